"""Derive the constructor's arguments of StyleGAN2 networks from their tensors.

Settings that affect no shape get their usual values: activations, mapping learning rate, clamps.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch

from probe.errors import CheckpointError

DEFAULT_BASE = 32768
TAPS = [1, 3, 3, 1]
MOST_TAPS = 64

Tensors = Mapping[str, torch.Tensor]


def generator_arguments(state: Tensors) -> dict[str, Any]:
    """Return the arguments of the generator that has these tensors.

    Raises:
        CheckpointError: if no generator has such widths or such a filter.
        LookupError, ValueError: if a tensor is missing or has another shape.
    """
    layers = count_numbered(state, "mapping.fc{}.weight")
    if not layers:
        raise CheckpointError("its generator lacks tensor 'mapping.fc0.weight'")
    first, last = state["mapping.fc0.weight"], state[f"mapping.fc{layers - 1}.weight"]
    w_dim = len(last)
    mapping: dict[str, Any] = {"num_layers": layers}
    c_dim = embedded = 0
    if "mapping.embed.weight" in state:
        embedded, c_dim = state["mapping.embed.weight"].shape
        if embedded != w_dim:
            mapping["embed_features"] = embedded
    if layers > 1 and len(first) != w_dim:
        mapping["layer_features"] = len(first)
    channels = {r: len(state[f"synthesis.b{r}.conv1.weight"]) for r in _resolutions(state)}
    size = max(channels)
    synthesis = {**_widths(channels), "architecture": _architecture(state, size)}
    if "synthesis.b4.conv1.noise_strength" not in state:
        synthesis["use_noise"] = False
    taps = _taps(state["synthesis.b4.resample_filter"])
    if taps != TAPS:
        synthesis["resample_filter"] = taps
    return {
        "z_dim": first.shape[1] - embedded,
        "c_dim": c_dim,
        "w_dim": w_dim,
        "img_resolution": size,
        "img_channels": len(state[f"synthesis.b{size}.torgb.weight"]),
        "mapping_kwargs": mapping,
        "synthesis_kwargs": synthesis,
    }


def discriminator_arguments(state: Tensors) -> dict[str, Any]:
    """Return the arguments of the discriminator that has these tensors.

    Raises:
        CheckpointError: if no discriminator has such widths.
        LookupError, ValueError: if a tensor is missing or has another shape.
    """
    sizes = [int(m[1]) for n in state if (m := re.fullmatch(r"b(\d{1,5})\.conv0\.weight", n))]
    channels = {r: state[f"b{r}.conv0.weight"].shape[1] for r in sizes}
    channels[4] = len(state["b4.conv.weight"])
    size = max(sizes)
    embedding = state.get("mapping.embed.weight")
    return {
        "c_dim": 0 if embedding is None else embedding.shape[1],
        "img_resolution": size,
        "img_channels": state[f"b{size}.fromrgb.weight"].shape[1],
        "architecture": "resnet" if f"b{size}.skip.weight" in state else "orig",
        **_widths(channels),
    }


def count_numbered(state: Tensors, name: str, first: int = 0) -> int:
    """Return how many tensors have consecutive numbers from `first`.

    Args:
        state: tensors by name.
        name: with {} for the number.
        first: the first number.
    """
    count = 0
    while name.format(first + count) in state:
        count += 1
    return count


def _resolutions(state: Tensors) -> list[int]:
    """Return the sides of a generator's blocks, from 4 px to the largest with a tensor."""
    named = (re.match(r"synthesis\.b(\d{1,5})\.", name) for name in state)
    largest = max(int(found[1]) for found in named if found)
    return [2**i for i in range(2, largest.bit_length())]


def _architecture(state: Tensors, size: int) -> str:
    if "synthesis.b8.skip.weight" in state:
        return "resnet"
    return "skip" if size == 4 or "synthesis.b4.torgb.weight" in state else "orig"


def _widths(channels: Mapping[int, int]) -> dict[str, int]:
    """Return base and maximum such that every r px has min(base // r, maximum) channels.

    Raises:
        CheckpointError: if no such pair exists.
    """
    most = max(channels.values())
    base = max(r * count for r, count in channels.items())
    if all(min(DEFAULT_BASE // r, most) == count for r, count in channels.items()):
        base = DEFAULT_BASE
    for r, count in channels.items():
        if min(base // r, most) != count:
            widths = ", ".join(f"{r} px: {count}" for r, count in sorted(channels.items()))
            raise CheckpointError(
                f"its layers have channels that no channel_base and channel_max give ({widths})"
            )
    return {"channel_base": base, "channel_max": most}


def _taps(kernel: torch.Tensor) -> list[float]:
    """Return the taps of a two-dimensional low-pass f⊗f, scaled so that the first is 1.

    Raises:
        CheckpointError: if it is large, begins with zeros, or is not symmetric.
    """
    if max(kernel.shape) > MOST_TAPS:
        raise CheckpointError(f"its low-pass filter has the shape {tuple(kernel.shape)}")
    taps = kernel.double().sum(dim=0)
    if not taps[0] > 0 or not torch.allclose(taps, taps.flip(0), rtol=1e-4):
        raise CheckpointError("its low-pass filter is not symmetric; no other kind is read")
    found = (taps / taps[0]).tolist()
    return [round(tap) if abs(tap - round(tap)) < 1e-4 else tap for tap in found]
