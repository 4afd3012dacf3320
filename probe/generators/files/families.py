"""The generator families: how a file's tensors identify one, and which network reads it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch

from probe.errors import CheckpointError
from probe.generators.base import Generator
from probe.generators.files import rosinality

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Family:
    """One architecture.

    Attributes:
        title: its common name.
        signs: prefixes, in any spelling, of tensor names that only this family has.
        module: the module of its `Generator`.
        arguments: file names of its constructor's positional arguments.
        converts: whether the module's `convert_state` must first rename a file's tensors.
        derives: whether the module's `derive_arguments` can find arguments that a file omits.
    """

    title: str
    signs: tuple[str, ...]
    module: str
    arguments: tuple[str, ...]
    converts: bool = False
    derives: bool = False

    @property
    def network(self) -> Callable[..., Generator]:
        """The network's class."""
        return import_module(self.module).Generator

    def derive(self, state: Tensors, attributes: Mapping[str, Any]) -> dict[str, Any]:
        """Return the constructor's arguments for a file that does not store them.

        Args:
            state: the file's tensors, under our names.
            attributes: plain values of its modules' attributes, under the file's dotted names.

        Raises:
            CheckpointError: if a tensor needed for this is missing, or no network has such tensors.
        """
        try:
            return import_module(self.module).derive_arguments(state, attributes)
        except KeyError as error:
            raise CheckpointError(f"its generator lacks tensor {error}") from error

    def convert(self, state: Tensors) -> Tensors:
        """Return a file's tensors under our names; our own files are unchanged."""
        return import_module(self.module).convert_state(state) if self.converts else state


_STYLEGAN = ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels")
FAMILIES: dict[str, Family] = {
    "stylegan2": Family(
        "StyleGAN2",
        ("synthesis.b4.const", rosinality.SIGN),
        "probe.generators.networks.stylegan2",
        _STYLEGAN,
        converts=True,
        derives=True,
    ),
    "stylegan3": Family(
        "StyleGAN3", ("synthesis.input.freqs",), "probe.generators.networks.stylegan3", _STYLEGAN
    ),
    "fastgan": Family(
        "FastGAN (Projected GAN)",
        ("synthesis.init.",),
        "probe.generators.networks.fastgan",
        ("z_dim", "c_dim", "img_resolution", "img_channels", "ngf", "cond", "synthesis_kwargs"),
        converts=True,
        derives=True,
    ),
    "r3gan": Family(
        "R3GAN",
        ("Model.MainLayers.",),
        "probe.generators.networks.r3gan",
        ("NoiseDimension", "WidthPerStage", "CardinalityPerStage", "BlocksPerStage",
         "ExpansionFactor"),
        converts=True,
        derives=True,
    ),
}  # fmt: skip


def signs() -> tuple[str, ...]:
    """Return the tensor name prefixes that identify a family."""
    return tuple(sign for family in FAMILIES.values() for sign in family.signs)


def heads(names: Iterable[str], signs: Sequence[str]) -> list[str]:
    """Return the distinct prefixes before a sign in some names, in order.

    A prefix is "" or a network's parent modules: "module.", "state_dict.decoder.".
    """
    found: dict[str, None] = {}
    for name in names:
        for sign in signs:
            head, sign_found, _ = name.partition(sign)
            if sign_found and (not head or head.endswith(".")):
                found[head] = None
    return list(found)


def family_of(names: Iterable[str]) -> str:
    """Return the family that tensors with these names belong to.

    Raises:
        CheckpointError: if no supported family matches.
    """
    known = list(names)
    for name, family in FAMILIES.items():
        if any(key.startswith(family.signs) for key in known):
            return name
    raise CheckpointError("its tensors belong to no supported network")
