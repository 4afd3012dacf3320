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


def suggest(name: str, known: list[str]) -> str:
    """Return " Did you mean 'x'?" for the nearest known name, or ""."""
    near = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean '{near[0]}'?" if near else ""


def either(names: Iterable[str]) -> str:
    """Return names joined for a sentence: "a, b or c"."""
    *most, last = names
    return f"{', '.join(most)} or {last}" if most else last


def lookup(mapping: Mapping[str, T], name: str, kind: str) -> T:
    """Return `mapping[name]`.

    Raises:
        UsageError: unknown name; suggests the nearest and lists at most twenty.
    """
    if name in mapping:
        return mapping[name]
    known = sorted(mapping)
    shown = ", ".join(known[:20]) + (f", … ({len(known)} in all)" if len(known) > 20 else "")
    raise UsageError(f"Unknown {kind} '{name}'.{suggest(name, known)} Known: {shown}.")


def load(place: "Place[T]") -> T:
    """Return a thing itself, or import the one that "module:name" refers to."""
    if not isinstance(place, str):
        return place
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)
