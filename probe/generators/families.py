"""The generator families: how a file's tensors tell one, and which network reads it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch

from probe.errors import CheckpointError
from probe.generators.base import Generator

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Family:
    """One architecture.

    Attributes:
        title: what people call it.
        sign: how the name of a tensor begins that only this family has.
        module: where its `Generator` is.
        arguments: what its constructor's positional arguments are called in files.
        converts: whether the module's `convert_state` makes our names of a file's first.
        derives: whether the module's `derive_arguments` finds arguments that a file does not hold.
    """

    title: str
    sign: str
    module: str
    arguments: tuple[str, ...]
    converts: bool = False
    derives: bool = False

    @property
    def network(self) -> Callable[..., Generator]:
        """The network's class."""
        return import_module(self.module).Generator

    def derive(self, state: Tensors, attributes: Mapping[str, Any]) -> dict[str, Any]:
        """Return the constructor's arguments of a file that does not hold them.

        Args:
            state: the file's tensors, under our names.
            attributes: plain values of its modules' attributes, under dotted names of its own.

        Raises:
            CheckpointError: a tensor that would tell is missing.
        """
        try:
            return import_module(self.module).derive_arguments(state, attributes)
        except KeyError as error:
            raise CheckpointError(f"its generator lacks tensor {error}") from error

    def convert(self, state: Tensors) -> Tensors:
        """Return a file's tensors under our names; those of our own files stay as they are."""
        return import_module(self.module).convert_state(state) if self.converts else state


_STYLEGAN = ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels")
FAMILIES: Mapping[str, Family] = {
    "stylegan2": Family(
        "StyleGAN2", "synthesis.b4.const", "probe.generators.stylegan2", _STYLEGAN
    ),
    "stylegan3": Family(
        "StyleGAN3", "synthesis.input.freqs", "probe.generators.stylegan3", _STYLEGAN
    ),
    "fastgan": Family(
        "FastGAN (Projected GAN)",
        "synthesis.init.",
        "probe.generators.fastgan",
        ("z_dim", "c_dim", "img_resolution", "img_channels", "ngf", "cond", "synthesis_kwargs"),
        converts=True,
        derives=True,
    ),
    "r3gan": Family(
        "R3GAN",
        "Model.MainLayers.",
        "probe.generators.r3gan",
        ("NoiseDimension", "WidthPerStage", "CardinalityPerStage", "BlocksPerStage",
         "ExpansionFactor"),
        converts=True,
        derives=True,
    ),
}  # fmt: skip


def without_prefix(state: Tensors) -> Tensors:
    """Return tensors without what a wrapper ("module.", "G_ema.") put before every name."""
    for family in FAMILIES.values():
        head = next((name.partition(family.sign)[0] for name in state if family.sign in name), "")
        if head.endswith(".") and all(name.startswith(head) for name in state):
            return {name.removeprefix(head): tensor for name, tensor in state.items()}
    return state


def family_of(state: Tensors) -> str | None:
    """Return which family a file's tensors belong to, None for none that is read."""
    for name, family in FAMILIES.items():
        if any(key.startswith(family.sign) for key in state):
            return name
    return None
