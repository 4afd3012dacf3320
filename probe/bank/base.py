"""The interface of a frozen backbone: images in [0, 1] to a pooled feature and feature maps."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import nn
from torch.nn import functional as F

from probe.accel.resize import resize_by_products
from probe.errors import BackboneUnavailable
from probe.registry import suggest


@dataclass(frozen=True)
class InputSpec:
    """The input that a backbone expects.

    Attributes:
        size: side of the square input in pixels.
        mean: per-channel mean on the [0, 1] scale, subtracted after the resize.
        std: per-channel standard deviation on the [0, 1] scale, used as a divisor.
        resize: "bicubic", "bilinear" (both antialiased), "area" or "tf1-bilinear".
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resize: str = "bicubic"


def resize(images: torch.Tensor, size: int, mode: str) -> torch.Tensor:
    """Resize float images (N, 3, R, R) in [0, 1] to (N, 3, size, size).

    The result is clamped to [0, 1] because bicubic overshoots at edges.
    """
    if images.shape[-1] == size and images.shape[-2] == size:
        return images
    resized = _resample(images, (size, size), mode)
    return resized if mode in ("area", "tf1-bilinear") else resized.clamp(0, 1)


def resize_unclamped(images: torch.Tensor, size: int, mode: str) -> torch.Tensor:
    """Resize float images (N, 3, R, R) to (N, 3, size, size) for training.

    The result is not clamped, because clamping would stop gradients.
    """
    if images.shape[-1] == size and images.shape[-2] == size:
        return images
    return resize_by_products(images, size, mode, _resample)


def _resample(images: torch.Tensor, size: tuple[int, int], mode: str) -> torch.Tensor:
    """Resize (N, C, H, W) to (N, C, *size), without clamping."""
    if mode == "area":
        return F.interpolate(images, size=size, mode="area")
    if mode == "tf1-bilinear":
        return _bilinear_tf1(_bilinear_tf1(images, size[1]).mT, size[0]).mT
    return F.interpolate(images, size=size, mode=mode, antialias=True, align_corners=False)


def _bilinear_tf1(images: torch.Tensor, size: int) -> torch.Tensor:
    """Resize the last dimension as TensorFlow 1 did: pixel i is sampled at i · old / new.

    Neither antialiased nor centred; the last pixel repeats at the border.
    """
    old = images.shape[-1]
    at = torch.arange(size, device=images.device, dtype=torch.float32) * (old / size)
    left = at.floor().long()
    right = (left + 1).clamp(max=old - 1)
    return torch.lerp(images[..., left], images[..., right], (at - left).to(images.dtype))


def normalise(images: torch.Tensor, spec: InputSpec) -> torch.Tensor:
    """Subtract `spec.mean` and divide by `spec.std` per channel; (N, 3, S, S) in and out."""
    mean, std = _statistics(spec, images.dtype, images.device)
    return (images - mean) / std


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _statistics(
    spec: InputSpec, dtype: torch.dtype, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and deviation, (1, 3, 1, 1) each, cached on the device: copies stall a GPU."""
    mean, std = (
        torch.tensor(values, dtype=dtype, device=device).view(1, 3, 1, 1)
        for values in (spec.mean, spec.std)
    )
    return mean, std


class FeatureNetwork(nn.Module, ABC):
    """A source's network: a frozen module in eval mode with two forward passes.

    Attributes:
        layers: what may be tapped, shallow to deep, as in NAME@LAYER; empty if nothing may.
    """

    layers: Sequence[str] = ()

    @abstractmethod
    def pool(self, x: torch.Tensor) -> torch.Tensor:
        """Normalised input (N, 3, S, S) → pooled feature (N, d), any float dtype."""

    @abstractmethod
    def levels(self, x: torch.Tensor) -> tuple[Sequence[torch.Tensor], torch.Tensor]:
        """Normalised input → the tapped maps (N, C, H, W), shallow to deep, and the pooled feature.

        A single pass. Any float dtype.
        """


def averages(maps: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the global averages of maps (N, C, H, W), side by side: (N, sum of C)."""
    return torch.cat([m.mean(dim=(2, 3)) for m in maps], dim=1)


def numbered_layers(count: int, taps: Sequence[int | str], name: str) -> list[str]:
    """Return the names of numbered layers, "1" and on, if all taps are among them.

    Args:
        count: how many there are.
        taps: indices, from 0.
        name: of the network, for the error.

    Raises:
        BackboneUnavailable: if a tap is not.
    """
    for tap in taps:
        if not isinstance(tap, int) or not 0 <= tap < count:
            layer = tap + 1 if isinstance(tap, int) else f"'{tap}'"
            raise BackboneUnavailable(
                f"{name} has no layer {layer}, it has layers 1 to {count}",
                "choose one of them; taps of an entry count from 0",
            )
    return [str(i + 1) for i in range(count)]


class Backbone(nn.Module):
    """A frozen pretrained (or random) network behind one interface.

    Always in eval mode, with parameters that need no gradient. Gradients still flow to the images.

    Attributes:
        name: the bank entry's name.
        input: the input that `network` expects.
        dim: width d of the pooled feature.
        map_shapes: (C, H, W) of each tapped map, used to build heads.
        parameter_count: scalar parameters of `network` before acceleration merges its layers.
    """

    def __init__(
        self,
        name: str,
        network: FeatureNetwork,
        input: InputSpec,
        *,
        dim: int,
        map_shapes: Sequence[tuple[int, int, int]],
    ) -> None:
        super().__init__()
        self.name = name
        self.network = network
        self.input = input
        self.dim = dim
        self.map_shapes = tuple(map_shapes)
        self.parameter_count = sum(p.numel() for p in network.parameters())
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "Backbone":
        """Stay in eval mode regardless of `mode`: BatchNorm statistics must never change."""
        return super().train(False)

    def prepare(self, images: torch.Tensor) -> torch.Tensor:
        """Resize and normalise float images (N, 3, R, R) in [0, 1] to the network's input."""
        return normalise(resize(images, self.input.size, self.input.resize), self.input)

    def pool(self, x: torch.Tensor) -> torch.Tensor:
        """Prepared input (N, 3, S, S) → pooled feature (N, dim), float32."""
        return self.network.pool(x).float()

    def levels(self, x: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Prepared input (N, 3, S, S) → tapped maps (N, C, H, W) and pooled feature (N, dim).

        A single pass, shallow to deep, all float32: the input of discriminator heads.
        """
        maps, pooled = self.network.levels(x)
        return [m.float() for m in maps], pooled.float()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Float images (N, 3, R, R) in [0, 1] → pooled feature (N, dim), float32."""
        return self.pool(self.prepare(images))


def no_such(what: str, name: str, known: Sequence[str]) -> BackboneUnavailable:
    """Return the error for a name unknown to a library, with the nearest known names."""
    remedy = suggest(name, list(known)).strip().replace("Did", "did", 1)
    return BackboneUnavailable(f"{what} '{name}'", remedy)
