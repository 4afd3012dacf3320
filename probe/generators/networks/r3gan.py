"""The R3GAN generator (Huang et al. 2024): residual blocks of grouped convolutions, no tricks.

Argument, parameter and buffer names match those in the files.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from probe.errors import CheckpointError, UsageError, printable
from probe.generators.networks.layers import check_call, filter2d, normal
from probe.generators.networks.shapes import count_numbered

# Limits on what is built layer by layer; the published networks have 7 stages of 2 blocks.
MOST_STAGES, MOST_BLOCKS, MOST_CHANNELS, MOST_TAPS = 11, 64, 2**16, 64


class Convolution(nn.Module):
    """Convolution without bias that preserves the size."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, groups: int = 1) -> None:
        super().__init__()
        self.Layer = nn.Conv2d(
            in_channels, out_channels, kernel, padding=kernel // 2, groups=groups, bias=False
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, I, H, W) to (N, O, H, W)."""
        return self.Layer(x)


class BiasedActivation(nn.Module):
    """Leaky ReLU of x + bias, slope 0.2, no gain."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.Bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply to (N, C, H, W)."""
        return F.leaky_relu(x + self.Bias.to(x.dtype)[:, None, None], 0.2)


class ResidualBlock(nn.Module):
    """x + contract(act(grouped(act(expand(x)))))."""

    def __init__(self, channels: int, expanded: int, cardinality: int, kernel: int) -> None:
        super().__init__()
        self.LinearLayer1 = Convolution(channels, expanded, 1)
        self.NonLinearity1 = BiasedActivation(expanded)
        self.LinearLayer2 = Convolution(expanded, expanded, kernel, groups=cardinality)
        self.NonLinearity2 = BiasedActivation(expanded)
        self.LinearLayer3 = Convolution(expanded, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, C, H, W) to the same shape."""
        y = self.NonLinearity1(self.LinearLayer1(x))
        y = self.NonLinearity2(self.LinearLayer2(y))
        return x + self.LinearLayer3(y)


class Basis(nn.Module):
    """The first stage's input: a learned 4x4 map whose channels are scaled by the latent."""

    def __init__(self, in_features: int, channels: int) -> None:
        super().__init__()
        self.Basis = nn.Parameter(normal(channels, 4, 4))
        self.LinearLayer = nn.Linear(in_features, channels, bias=False)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Map (N, in_features) to (N, C, 4, 4)."""
        return self.Basis * self.LinearLayer(z)[:, :, None, None]


class Resampler(nn.Module):
    """Double the size: insert zeros, then filter with gain 4.

    Args:
        taps: an odd number of taps; the kernel is taps ⋆ [1, 1] along each axis, with sum 1.
    """

    Kernel: torch.Tensor

    def __init__(self, taps: Sequence[float]) -> None:
        super().__init__()
        taps = [a + b for a, b in zip([*taps, 0], [0, *taps], strict=True)]
        self.register_buffer("Kernel", filter2d(taps))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, C, h, h) to (N, C, 2h, 2h)."""
        channels = x.shape[1]
        kernel = (self.Kernel * 4).to(x.dtype).expand(channels, 1, -1, -1)
        padding = self.Kernel.shape[-1] // 2 - 1
        return F.conv_transpose2d(x, kernel, stride=2, padding=padding, groups=channels)


class Transition(nn.Module):
    """A later stage's input: change the width if it differs, then double the size."""

    def __init__(self, in_channels: int, channels: int, taps: Sequence[float]) -> None:
        super().__init__()
        if in_channels != channels:
            self.LinearLayer = Convolution(in_channels, channels, 1)
        self.Resampler = Resampler(taps)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, I, h, h) to (N, O, 2h, 2h)."""
        if hasattr(self, "LinearLayer"):
            x = self.LinearLayer(x)
        return self.Resampler(x)


class Stage(nn.Module):
    """All layers at one resolution: the transition into it, then residual blocks."""

    def __init__(self, transition: nn.Module, blocks: Sequence[ResidualBlock]) -> None:
        super().__init__()
        self.Layers = nn.ModuleList([transition, *blocks])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map the latent or the previous stage's features to this stage's."""
        for layer in self.Layers:
            x = layer(x)
        return x


class Synthesis(nn.Module):
    """Latents and classes to images: stages at 4, 8, … pixels, then one 1x1 convolution."""

    def __init__(
        self,
        noise_dim: int,
        widths: Sequence[int],
        cardinalities: Sequence[int],
        blocks: Sequence[int],
        expansion: float,
        classes: int,
        embedding_dim: int,
        kernel: int,
        taps: Sequence[float],
        img_channels: int,
    ) -> None:
        super().__init__()
        self.MainLayers = nn.ModuleList()
        for s, (width, groups, count) in enumerate(zip(widths, cardinalities, blocks, strict=True)):
            if s == 0:
                transition = Basis(noise_dim + embedding_dim, width)
            else:
                transition = Transition(widths[s - 1], width, taps)
            expanded = int(width * expansion)
            residual = [ResidualBlock(width, expanded, groups, kernel) for _ in range(count)]
            self.MainLayers.append(Stage(transition, residual))
        self.AggregationLayer = Convolution(widths[-1], img_channels, 1)
        if classes:
            self.EmbeddingLayer = nn.Linear(classes, embedding_dim, bias=False)

    def forward(self, z: torch.Tensor, c: torch.Tensor | None) -> torch.Tensor:
        """Map z (N, noise_dim) and c (N, classes) to (N, img_channels, R, R)."""
        x = z if c is None else torch.cat([z, self.EmbeddingLayer(c)], dim=1)
        for stage in self.MainLayers:
            x = stage(x)
        return self.AggregationLayer(x)


class Generator(nn.Module):
    """R3GAN: z and class to an image (see `probe.generators.base.Generator`).

    R3GAN has no intermediate latent and so no mean to truncate towards: `truncation_psi` must be 1
    and `truncation_cutoff` is ignored. It has no noise, so the noise arguments are ignored too.

    Args:
        NoiseDimension: width of the latent.
        WidthPerStage: channels at 4, 8, … pixels.
        CardinalityPerStage: groups of the spatial convolutions.
        BlocksPerStage: residual blocks per stage.
        ExpansionFactor: width within a block, in multiples of the stage's.
        ConditionDimension: number of classes; None or 0 for none.
        ConditionEmbeddingDimension: width of the class embedding.
        KernelSize: of the spatial convolutions, odd.
        ResamplingFilter: 1-D low-pass with an odd number of taps.
        FP16Stages: half precision in the original program; changes no weight and is ignored.
        c_dim: alias of `ConditionDimension`.
        img_resolution: must match the number of stages; None derives it from them.
        img_channels: 3, or 1 for grey.

    Raises:
        UsageError: if values contradict each other.
    """

    def __init__(
        self,
        NoiseDimension: int,
        WidthPerStage: Sequence[int],
        CardinalityPerStage: Sequence[int],
        BlocksPerStage: Sequence[int],
        ExpansionFactor: float,
        ConditionDimension: int | None = None,
        ConditionEmbeddingDimension: int | None = 0,
        KernelSize: int = 3,
        ResamplingFilter: Sequence[float] = (1, 2, 1),
        FP16Stages: Sequence[Any] | None = None,
        *,
        c_dim: int | None = None,
        img_resolution: int | None = None,
        img_channels: int = 3,
    ) -> None:
        super().__init__()
        if ConditionDimension and c_dim is not None and ConditionDimension != c_dim:
            raise UsageError(
                f"An R3GAN generator has {ConditionDimension} classes or {c_dim}, not both."
            )
        classes = ConditionDimension or c_dim or 0
        embedding_dim = (ConditionEmbeddingDimension or 0) if classes else 0
        if classes and not embedding_dim:
            raise UsageError(
                "A conditional R3GAN generator needs a ConditionEmbeddingDimension above 0."
            )
        per_stage = WidthPerStage, CardinalityPerStage, BlocksPerStage
        _check_stages(*per_stage, ExpansionFactor)
        resolution = 4 * 2 ** (len(WidthPerStage) - 1)
        if img_resolution not in (None, resolution):
            raise UsageError(
                f"An R3GAN generator of {len(WidthPerStage)} stages has a resolution of "
                f"{resolution}, not {img_resolution}."
            )
        if KernelSize % 2 == 0 or len(ResamplingFilter) % 2 == 0:
            raise UsageError("KernelSize and ResamplingFilter of an R3GAN generator are odd.")
        if len(ResamplingFilter) >= MOST_TAPS or not sum(ResamplingFilter):
            raise UsageError(
                f"The ResamplingFilter of an R3GAN generator has fewer than {MOST_TAPS} taps, and "
                "a sum that is not 0."
            )
        self.z_dim, self.c_dim = NoiseDimension, classes
        self.img_resolution, self.img_channels = resolution, img_channels
        self.init_kwargs: dict[str, Any] = {
            "NoiseDimension": NoiseDimension,
            "WidthPerStage": list(WidthPerStage),
            "CardinalityPerStage": list(CardinalityPerStage),
            "BlocksPerStage": list(BlocksPerStage),
            "ExpansionFactor": ExpansionFactor,
            "ConditionDimension": classes or None,
            "ConditionEmbeddingDimension": embedding_dim,
            "KernelSize": KernelSize,
            "ResamplingFilter": list(ResamplingFilter),
            "FP16Stages": None if FP16Stages is None else list(FP16Stages),
            "c_dim": classes,
            "img_resolution": resolution,
            "img_channels": img_channels,
        }
        self.Model = Synthesis(
            NoiseDimension,
            *per_stage,
            ExpansionFactor,
            classes,
            embedding_dim,
            KernelSize,
            ResamplingFilter,
            img_channels,
        )

    def forward(
        self,
        z: torch.Tensor,
        c: torch.Tensor | None = None,
        *,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        noise_mode: str = "random",
        noise_keys: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return images (N, img_channels, R, R), float32, nominally in [-1, 1].

        Raises:
            UsageError: if truncation is asked for, or a conditional network gets no classes.
        """
        check_call("R3GAN", truncation_psi, self.c_dim, c)
        classes = None if c is None or not self.c_dim else c.float()
        return self.Model(z.float(), classes).float()


def _check_stages(
    widths: Sequence[int], cardinalities: Sequence[int], blocks: Sequence[int], expansion: float
) -> None:
    for values, most in (
        (widths, MOST_CHANNELS),
        (cardinalities, MOST_CHANNELS),
        (blocks, MOST_BLOCKS),
    ):
        if (
            not isinstance(values, list | tuple)
            or not 1 <= len(values) <= MOST_STAGES
            or len(values) != len(widths)
            or not all(type(v) is int and (values is blocks or v > 0) for v in values)
            or not all(0 <= v <= most for v in values)
        ):
            raise UsageError(
                "An R3GAN generator has one width, cardinality and number of blocks for each of "
                f"up to {MOST_STAGES} stages."
            )
    for width, groups in zip(widths, cardinalities, strict=True):
        if not 0 < width * expansion <= MOST_CHANNELS or width * expansion % groups:
            raise UsageError(
                f"An R3GAN stage of width {width}, expanded {expansion} times, cannot have "
                f"{groups} groups."
            )


STAGE = re.compile(r"Model\.MainLayers\.(\d{1,4})\.(?:Layers\.(\d{1,4})\.)?(.+)")


def convert_state(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Convert a file's tensors to the names and shapes of `Generator`.

    In each stage, the layer that holds `Basis` or `Resampler.Kernel` is the transition. It becomes
    `Layers.0`, and its linear layer or 1x1 convolution becomes `LinearLayer` under any name. The
    residual blocks follow in order. A `Kernel` may have leading axes of length 1, a single axis, or
    any sum; it is converted to (T, T) with sum 1. Everything else passes unchanged, so that loading
    reports tensors that belong nowhere. A converted state is returned unchanged.

    Raises:
        CheckpointError: if two tensors would get the same name.
    """
    stages: dict[str, dict[str | None, dict[str, torch.Tensor]]] = {}  # stage → layer → rest
    result: dict[str, torch.Tensor] = {}

    def put(name: str, tensor: torch.Tensor) -> None:
        if name in result:
            raise CheckpointError(f"its tensor '{printable(name, 100)}' appears twice")
        result[name] = tensor

    for name, tensor in state.items():
        if part := STAGE.fullmatch(name):
            stages.setdefault(part[1], {}).setdefault(part[2], {})[part[3]] = tensor
        else:
            put(name, tensor)
    for stage, layers in stages.items():
        blocks = []
        for layer, tensors in layers.items():
            leaves = {rest.rpartition(".")[2] for rest in tensors}
            if layer is not None and not leaves & {"Basis", "Kernel"}:
                blocks.append(layer)
                continue
            for rest, tensor in tensors.items():
                leaf = rest.rpartition(".")[2]
                if leaf == "Kernel":
                    rest, tensor = "Resampler.Kernel", _normalise(tensor)
                elif leaf == "Basis":
                    rest = "Basis"
                elif leaf == "weight" and tensor.ndim in (2, 4):
                    rest = "LinearLayer.weight" if tensor.ndim == 2 else "LinearLayer.Layer.weight"
                put(f"Model.MainLayers.{stage}.Layers.0.{rest}", tensor)
        for position, layer in enumerate(sorted(blocks, key=int), start=1):
            for rest, tensor in layers[layer].items():
                put(f"Model.MainLayers.{stage}.Layers.{position}.{rest}", tensor)
    return result


def _normalise(kernel: torch.Tensor) -> torch.Tensor:
    if kernel.numel() > MOST_TAPS**2:
        return kernel  # loading reports the wrong shape
    while kernel.ndim > 1 and kernel.shape[0] == 1:
        kernel = kernel[0]
    kernel = kernel.float()
    if kernel.ndim == 1:
        if len(kernel) > MOST_TAPS:  # the square kernel would be large
            return kernel
        kernel = torch.outer(kernel, kernel)
    total = kernel.sum()
    return kernel if (total - 1).abs() < 1e-6 else kernel / total


def derive_arguments(
    state: Mapping[str, torch.Tensor], attributes: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the constructor's arguments, from tensor names and shapes alone.

    Args:
        state: tensors under the network's names.
        attributes: plain values from the file's modules; ignored.

    Raises:
        KeyError: the name of a missing tensor.
    """
    last = max((int(part[1]) for part in map(STAGE.fullmatch, state) if part), default=0)
    width, in_features = state["Model.MainLayers.0.Layers.0.LinearLayer.weight"].shape
    widths, cardinalities, blocks = [], [], []
    expansion, kernel, taps = 2, 3, [1, 2, 1]
    for s in range(min(last, MOST_STAGES) + 1):
        name = f"Model.MainLayers.{s}.Layers"
        if s:
            taps = _taps(state[f"{name}.0.Resampler.Kernel"])
            entry = state.get(f"{name}.0.LinearLayer.Layer.weight")
            width = width if entry is None else len(entry)
        count = count_numbered(state, name + ".{}.LinearLayer2.Layer.weight", first=1)
        groups = 1
        if count:
            expanded, per_group, kernel, _ = state[f"{name}.1.LinearLayer2.Layer.weight"].shape
            expansion, groups = expanded // width, expanded // per_group
        widths.append(width)
        cardinalities.append(groups)
        blocks.append(count)
    embedding = state.get("Model.EmbeddingLayer.weight")
    embedding_dim, classes = (0, 0) if embedding is None else embedding.shape
    return {
        "NoiseDimension": in_features - embedding_dim,
        "WidthPerStage": widths,
        "CardinalityPerStage": cardinalities,
        "BlocksPerStage": blocks,
        "ExpansionFactor": expansion,
        "ConditionDimension": classes,
        "ConditionEmbeddingDimension": embedding_dim,
        "KernelSize": kernel,
        "ResamplingFilter": taps,
        "img_channels": len(state["Model.AggregationLayer.Layer.weight"]),
    }


def _taps(kernel: torch.Tensor) -> list[float]:
    """Return the taps, up to a factor, that a `Resampler`'s kernel is made from."""
    taps = [0.0]
    for value in kernel.sum(0).tolist()[:-1]:
        taps.append(value - taps[-1])
    return taps[1:]
