"""Names to things: the one lookup, with suggestions for misspelt names."""

import difflib
from collections.abc import Mapping
from typing import TypeVar

from probe.errors import UsageError

T = TypeVar("T")


def suggest(name: str, known: list[str]) -> str:
    """Return " Did you mean 'x'?" for the nearest known name, or ""."""
    near = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean '{near[0]}'?" if near else ""


def lookup(mapping: Mapping[str, T], name: str, kind: str) -> T:
    """Return `mapping[name]`.

    Raises:
        UsageError: unknown name; says the nearest one and lists at most twenty.
    """
    if name in mapping:
        return mapping[name]
    known = sorted(mapping)
    shown = ", ".join(known[:20]) + (f", … ({len(known)} in all)" if len(known) > 20 else "")
    raise UsageError(f"Unknown {kind} '{name}'.{suggest(name, known)} Known: {shown}.")
