"""Presets: sets of backbones that are chosen by name, as in `--backbones @small,clip-vit-b32`.

An entry lists the presets it belongs to; two follow from what an entry says, and each licence is a
preset by its name in small letters: @mit, @cc-by-nc-4.0. No torch here.
"""

from collections.abc import Callable, Mapping, Sequence

from probe.bank.licences import FREE
from probe.bank.spec import BackboneSpec
from probe.errors import UsageError
from probe.registry import lookup

SIGN = "@"

DERIVED: Mapping[str, Callable[[BackboneSpec], bool]] = {
    "commercial": lambda spec: spec.license in FREE,
    "offline": lambda spec: spec.weights.kind in ("package", "file"),
}


def presets(specs: Sequence[BackboneSpec]) -> dict[str, set[str]]:
    """Return the name of every preset → the names of its entries; controls are in none."""
    pretrained = [spec for spec in specs if spec.role != "control"]
    members = {name: {s.name for s in pretrained if holds(s)} for name, holds in DERIVED.items()}
    for spec in pretrained:
        for listed in (*spec.presets, spec.license.lower()):
            members.setdefault(listed, set()).add(spec.name)
    return members


def preset(specs: Sequence[BackboneSpec], name: str) -> set[str]:
    """Return the names of a preset's entries.

    Args:
        specs: a bank's entries.
        name: of the preset, without the sign.

    Raises:
        UsageError: if there is no such preset, or nothing is in it.
    """
    found = lookup(presets(specs), name, "preset")
    if not found:
        raise UsageError(f"--backbones: no entry of the bank is in the preset {SIGN}{name}.")
    return found
