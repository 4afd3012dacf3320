"""A generator read from a file, and how its network is made from what the file holds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from probe.errors import CheckpointError, UsageError
from probe.generators.stylegan2 import Generator

# Bounds on what a file may make us allocate; the largest published networks are far below.
BOUNDS = {
    "z_dim": (1, 16384),
    "c_dim": (0, 100_000),
    "w_dim": (1, 16384),
    "img_resolution": (4, 4096),
    "img_channels": (1, 4),
    "channel_base": (16, 2**20),
    "channel_max": (1, 16384),
    "num_layers": (1, 64),
    "embed_features": (1, 16384),
    "layer_features": (1, 16384),
}


@dataclass(frozen=True)
class Checkpoint:
    """A generator and where it comes from.

    Attributes:
        generator: eval mode, float32, no gradients, on the CPU.
        architecture: "stylegan2".
        digest: SHA-256 of the file.
        init: the constructor's arguments.
        kimg: images seen in training, in thousands, where the file says so.
        globals: every global the file's pickle refers to; empty for safetensors.
        ignored: what else the file holds.
    """

    generator: Generator
    architecture: str
    digest: str
    init: dict[str, Any]
    kimg: float | None = None
    globals: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)


def build_stylegan2(init: Mapping[str, Any], state: Mapping[str, torch.Tensor]) -> Generator:
    """Build the network a file describes and load its tensors, all of them and no others.

    Shapes are compared before any memory is taken.

    Raises:
        CheckpointError: arguments unknown or out of bounds; tensors missing, unknown, of another
            shape, or not finite.
    """
    _check_bounds(init)
    try:
        with torch.device("meta"):
            network = Generator(**init)
    except (TypeError, ValueError, RuntimeError, UsageError) as error:
        raise CheckpointError(f"its generator cannot be built: {error}") from error
    wanted = {name: tuple(t.shape) for name, t in network.state_dict().items()}
    missing, unknown = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    if missing or unknown:
        name, kind = (missing[0], "lacks") if missing else (unknown[0], "has an unknown")
        raise CheckpointError(
            f"its generator {kind} tensor '{name}' ({len(missing)} missing, {len(unknown)} unknown)"
        )
    for name, tensor in state.items():
        if tuple(tensor.shape) != wanted[name]:
            raise CheckpointError(
                f"its tensor '{name}' has shape {tuple(tensor.shape)} where {wanted[name]} is "
                "expected"
            )
        if not tensor.isfinite().all():
            raise CheckpointError(f"its tensor '{name}' holds NaN or infinite values")
    network.load_state_dict({n: t.float().contiguous() for n, t in state.items()}, assign=True)
    return network.eval().requires_grad_(False)


def _check_bounds(init: Mapping[str, Any]) -> None:
    nested = [init, init.get("mapping_kwargs") or {}, init.get("synthesis_kwargs") or {}]
    for group in nested:
        if not isinstance(group, Mapping):
            raise CheckpointError("its constructor arguments are malformed")
        for name, (low, high) in BOUNDS.items():
            value = group.get(name)
            if value is None:
                continue
            if type(value) is not int or not low <= value <= high:
                raise CheckpointError(
                    f"its generator has {name} = {value!r:.40}; an integer from {low} to {high} is "
                    "expected"
                )
