"""Numbers, tables and lists as the pages print them."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from intervals import mean_interval


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def number(value: float | None) -> str:
    """Return three significant digits, without an exponent."""
    if value is None:
        return ""
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:#.3g}".rstrip(".")


def times(value: float) -> str:
    """Return a factor in words."""
    return f"{number(value)} times"


def between(found: dict[str, Any]) -> str:
    """Return the ends of an interval."""
    return f"{number(found['low'])} to {number(found['high'])}"


def cell(found: dict[str, Any] | None) -> str:
    """Return a value with its interval, nothing without a value."""
    if found is None:
        return ""
    text = number(found["value"])
    return text if found["low"] is None else f"{text} ({between(found)})"


def geometric(values: Any) -> str:
    """Return the geometric mean with its interval over seeds."""
    return cell(asdict(mean_interval(list(values), geometric=True)))


def linear(values: Any) -> str:
    """Return the mean with its interval over seeds."""
    return cell(asdict(mean_interval(list(values))))


def plain(values: Any) -> str:
    """Return the mean."""
    return f"{mean_interval(list(values)).value:.2f}"


def listed(words: Any) -> str:
    """Return words as a list in a sentence."""
    words = list(words)
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]
