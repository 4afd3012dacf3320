"""Look up things by name, with suggestions for misspelt names.

A mapping that must be cheap to import holds "module:name" in place of slow imports.
"""

import difflib
from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import TypeVar

from probe.errors import UsageError

T = TypeVar("T")
Place = T | str  # a thing, or "module:name"
MOST_LISTED, NEAREST = 8, 3  # names in an error


def nearest(name: str, known: Iterable[str], count: int = 1, cutoff: float = 0.6) -> list[str]:
    """Return the known names that are most like a name, best first.

    Args:
        name: as typed.
        known: all names.
        count: of names, at most.
        cutoff: likeness from 0 to 1 below which a name is left out, unless it begins as `name`.
    """

    def likeness(other: str) -> float:
        begins = len(name) > 1 and other.lower().startswith(name.lower())
        return begins + difflib.SequenceMatcher(None, name.lower(), other.lower()).ratio()

    rated = sorted(((likeness(other), other) for other in known), key=lambda pair: -pair[0])
    return [other for value, other in rated[:count] if value >= cutoff]


def suggest(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the nearest known name, or ""."""
    near = nearest(name, known)
    return f" Did you mean '{near[0]}'?" if near else ""


def either(names: Iterable[str]) -> str:
    """Return names joined for a sentence: "a, b or c"."""
    *most, last = names
    return f"{', '.join(most)} or {last}" if most else last


def lookup(mapping: Mapping[str, T], name: str, kind: str) -> T:
    """Return `mapping[name]`.

    Raises:
        UsageError: unknown name; suggests the nearest, and lists all if they are few.
    """
    if name in mapping:
        return mapping[name]
    known = sorted(mapping)
    shown = f"Known: {', '.join(known)}."
    if len(known) > MOST_LISTED:
        near = nearest(name, known, NEAREST, cutoff=0)
        shown = f"The nearest of {len(known)} are {', '.join(near)}."
    raise UsageError(f"Unknown {kind} '{name}'.{suggest(name, known)} {shown}")


def load(place: "Place[T]") -> T:
    """Return a thing itself, or import the one that "module:name" refers to."""
    if not isinstance(place, str):
        return place
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)
