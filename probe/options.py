"""Options defined once: a dataclass field with its help text, flags and range.

The command line, the run's record and the documentation are derived from it.
"""

import functools
import math
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import Field, dataclass, field, fields
from numbers import Integral, Real
from typing import Any

from probe.errors import UsageError, printable
from probe.registry import either, suggest

DIGITS = 40  # quoted digits of an integer; printing a huge one can take hours


@dataclass(frozen=True)
class Range:
    """The finite numbers an option accepts.

    Attributes:
        least: the lower end.
        most: the upper end, inclusive.
        is_open: whether `least` is excluded.
    """

    least: float
    most: float
    is_open: bool = False

    def __str__(self) -> str:
        """Return the range for a sentence: "from 1 to 64", "above 0 and at most 10"."""
        low, high = f"{self.least:.15g}", f"{self.most:.15g}"
        return f"above {low} and at most {high}" if self.is_open else f"from {low} to {high}"

    def check(self, flag: str, value: Any, *, whole: bool = False) -> None:
        """Refuse a value that is not a number, NaN, infinite or outside the range.

        Args:
            flag: named in the message.
            value: as given.
            whole: whether to refuse fractions too.

        Raises:
            UsageError: names the flag, the range and the value.
        """
        # Comparisons with NaN are False, so NaN is refused too.
        if (
            _is_number(value, whole=whole)
            and self.least <= value <= self.most
            and (value > self.least or not self.is_open)
        ):
            return
        large = isinstance(value, int) and abs(value) >= 10**DIGITS
        given = f"one of more than {DIGITS} digits" if large else printable(str(value), DIGITS)
        kind = "a whole number" if whole else "a number"
        raise UsageError(f"{flag}: must be {kind} {self}, not {given}.")


def _is_number(value: Any, *, whole: bool) -> bool:
    return isinstance(value, Integral if whole else Real) and not isinstance(value, bool)


SEEDS = Range(0, 2**31 - 1)
SHARE = Range(0, 1)
SIDE = Range(8, 4096)  # of images, in pixels
MOST_IMAGES = 10_000_000
SECONDS = {"s": 1, "min": 60, "h": 3600}
PRECISIONS = ("auto", "fp32", "tf32", "bf16")


def option(
    default: Any,
    text: str,
    within: Range | None = None,
    *,
    flags: str = "",
    choices: Collection[str] = (),
    panel: str = "",
) -> Any:
    """Return a dataclass field.

    Args:
        default: default value.
        text: one-line help; of a switch that is on by default, of what turning it off does.
        within: the numbers it accepts; every numeric option has a range.
        flags: its flags on the command line, if not `--field-name`; separate several by spaces.
        choices: the words it accepts.
        panel: title of its group in the help, if not that of all options beside it.
    """
    return field(
        default=default,
        metadata={
            "help": text,
            "within": within,
            "flags": flags,
            "choices": choices,  # as given: a mapping may grow later
            "panel": panel,
        },
    )


def precision_option() -> Any:
    """Return the field of the numbers that networks compute in."""
    text = "auto (bf16 if the hardware supports it), fp32, tf32 (GPUs only) or bf16."
    return option("auto", text, choices=PRECISIONS)


def panelled(panel: str) -> Callable[..., Any]:
    """Return `option` for the options of one group of the help."""
    return functools.partial(option, panel=panel)


def flags_of(option: Field[Any]) -> list[str]:
    """Return an option's flags on the command line, its own name first."""
    return option.metadata["flags"].split() or ["--" + option.name.replace("_", "-")]


def is_integer(option: Field[Any]) -> bool:
    """Return whether an option is an integer."""
    return option.type in (int, int | None)


def check_numbers(options: Any) -> None:
    """Check every number in an option dataclass against its range; None means "not given".

    Raises:
        UsageError: names the flag and the range.
    """
    for option in fields(options):
        value, within = getattr(options, option.name), option.metadata["within"]
        if within is not None and value is not None:
            within.check(flags_of(option)[0], value, whole=is_integer(option))


def changed_flags(options: Any) -> dict[str, str]:
    """Return name → first flag of the options that are not at their default."""
    return {
        option.name: flags_of(option)[0]
        for option in fields(options)
        if getattr(options, option.name) != option.default
    }


def check_choices(options: Any) -> None:
    """Check every word in an option dataclass against its choices; None means "not given".

    Raises:
        UsageError: names the flag and the choices, and suggests the nearest.
    """
    for option in fields(options):
        value, choices = getattr(options, option.name), option.metadata["choices"]
        if choices and value is not None and value not in choices:
            raise UsageError(
                f"{flags_of(option)[0]}: '{value}' is unknown."
                f"{suggest(str(value), choices)} Use {either(choices)}."
            )


def check_precision(name: str) -> None:
    """Check the name of a precision; "auto" is one.

    Raises:
        UsageError: it is unknown.
    """
    if name not in PRECISIONS:
        raise UsageError(f"--precision: '{name}' is unknown. Use {either(PRECISIONS)}.")


def split_names(names: Sequence[str] | str | None) -> list[str] | None:
    """Return names or patterns as a list, given one or as text with commas; None for None or ""."""
    if isinstance(names, str):
        return [name.strip() for name in names.split(",")] if names else None
    return None if names is None else list(names)


def parse_duration(flag: str, text: str) -> float:
    """Return the seconds of a duration such as "30s", "10min" or "1.5h".

    Raises:
        UsageError: it is not one, or not above zero.
    """
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?(s|min|h)", str(text))
    seconds = float(found[1]) * SECONDS[found[2]] if found else 0.0
    if seconds <= 0:
        raise UsageError(
            f"{flag}: '{printable(str(text), DIGITS)}' is not a duration. Give a number and its "
            "unit: 30s, 10min or 1h."
        )
    return seconds


def parse_numbers(flag: str, text: str, within: Range) -> list[float]:
    """Return the numbers in a comma-separated list.

    Raises:
        UsageError: a part is not a number in the range.
    """
    numbers = []
    for part in text.split(","):
        try:
            number = float(part)
        except ValueError:
            number = math.nan
        within.check(flag, part.strip() if math.isnan(number) else number)
        numbers.append(number)
    return numbers
