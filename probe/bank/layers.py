"""Layers of a network as backbones of their own, named NAME@LAYER. No torch here.

A layer's feature is the global average of its map. The layers of one network are computed in one
pass.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from probe.bank.sources import SOURCES
from probe.errors import UsageError, shown

if TYPE_CHECKING:  # the command line imports this, and its specs need pydantic
    from probe.bank.spec import BackboneSpec

AT = "@"  # no name in a bank contains it


def split(name: str) -> tuple[str, str]:
    """Return the network and the layer of a backbone's name; the layer of a whole one is ""."""
    network, _, layer = name.partition(AT)
    return network, layer


def depth(layer: str) -> tuple[tuple[int, str], ...]:
    """Return a sort key: numbers in names by value, so that features.4 is before features.14."""
    parts = re.findall(r"\d+|\D+", layer)
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in parts)


def at_layer(spec: "BackboneSpec", layer: str) -> "BackboneSpec":
    """Return one layer of an entry as a backbone.

    Args:
        spec: the entry.
        layer: a block's or a stage's number, from 1, or a module's name; see `Source.layers`.

    Raises:
        UsageError: if the entry's source has no layers, or calls them otherwise.
    """
    kind = SOURCES[spec.source].layers
    if kind is None:
        raise UsageError(
            f"--backbones: {spec.name} has no layers to choose from (source: {spec.source})."
        )
    fits = r"[1-9]\d{0,3}" if kind == "number" else r"[A-Za-z_][\w.]{0,99}"
    if not re.fullmatch(fits, layer, re.ASCII):
        called = "numbers, from 1" if kind == "number" else "names of modules"
        raise UsageError(
            f"--backbones: {shown(layer)} is neither a backbone of the bank nor a layer of "
            f"{spec.name}, whose layers are {called} (probe bank show {spec.name})."
        )
    tap = int(layer) - 1 if kind == "number" else layer
    return replace(spec, name=f"{spec.name}{AT}{layer}", taps=(tap,), pool="taps", fingerprint=None)


@dataclass(frozen=True)
class Network:
    """A network to run, and the backbones whose features one pass through it gives.

    Attributes:
        spec: the entry to load; its name is the network's.
        members: names of the backbones. If there are several, each is one of `spec.taps`, in order.
    """

    spec: "BackboneSpec"
    members: tuple[str, ...]

    def apart(self) -> dict[str, "Network"]:
        """Return name → a network for each backbone alone."""
        return {
            name: Network(replace(self.spec, name=name, taps=(tap,)), (name,))
            for name, tap in zip(self.members, self.spec.taps, strict=True)
        }


def networks(specs: Iterable["BackboneSpec"]) -> dict[str, Network]:
    """Return name → the networks that together give all backbones."""
    found: dict[str, Network] = {}
    layers: dict[str, list[BackboneSpec]] = {}
    for spec in specs:
        network, layer = split(spec.name)
        if layer:
            layers.setdefault(network, []).append(spec)
        else:
            found[spec.name] = Network(spec, (spec.name,))
    for network, group in layers.items():
        group.sort(key=lambda spec: depth(split(spec.name)[1]))  # as libraries return maps
        name = group[0].name if len(group) == 1 else f"{network}{AT}"
        taps = tuple(tap for spec in group for tap in spec.taps)
        found[name] = Network(
            replace(group[0], name=name, taps=taps), tuple(spec.name for spec in group)
        )
    return found


def one_each(names: Iterable[str], used: Collection[str] = ()) -> list[str]:
    """Return the names whose network is neither in use nor that of an earlier name."""
    taken, left = {split(name)[0] for name in used}, []
    for name in names:
        if split(name)[0] not in taken:
            taken.add(split(name)[0])
            left.append(name)
    return left


def unused(specs: Sequence["BackboneSpec"], used: Collection[str]) -> list["BackboneSpec"]:
    """Return the backbones of whose network no backbone is in use."""
    taken = {split(name)[0] for name in used}
    return [spec for spec in specs if split(spec.name)[0] not in taken]
