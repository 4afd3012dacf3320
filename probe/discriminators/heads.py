"""Discriminator heads: trainable networks on the features of a frozen backbone.

A head is built from the backbone's declared feature shapes, never from its name: one map gets a map
head; several maps get one each, plus one for the pooled vector; no map gets a vector head.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from probe.discriminators.layers import ConvLayer
from probe.generators.networks.layers import FullyConnected

Shapes = Sequence[tuple[int, int, int]]  # (C, H, W) of each map, shallow to deep

WIDTH = 256
WIDTH_OF_LARGE_MAPS = 128  # for sides above 8, as in the original code; they cost 4 times as much
SMALL = 4  # halve maps down to this side


def _halvings(side: int) -> int:
    """Return how many halvings bring `side` down to at most `SMALL`."""
    return max(0, math.ceil(math.log2(side / SMALL))) if side > SMALL else 0


def _normalise_spectrally(head: nn.Module) -> None:
    """Divide each weight except the class embedding by its largest singular value.

    Miyato et al. 2018. This replaces the run-time gains, including the activation's, so that no
    layer increases the norm of the input that one output reads. Over a whole map it may, because
    the patches of a 3x3 convolution overlap.
    """
    for name, layer in head.named_modules():
        if isinstance(layer, ConvLayer | FullyConnected) and not name.endswith("embed"):
            layer.weight_gain = layer.activation_gain = 1.0
            spectral_norm(layer)


def set_activation(head: nn.Module, kind: str) -> None:
    """Use another non-linearity in the hidden layers: "lrelu" or "relu"."""
    for layer in head.modules():
        if isinstance(layer, ConvLayer | FullyConnected) and layer.activation != "linear":
            layer.activation = kind


class LogitHead(nn.Module):
    """The final logit of a vector, with class projection (Miyato and Koyama 2018).

    (N, D) → (N,): FC to `width`, lrelu, FC to 1; plus the inner product of the last hidden vector
    with a class embedding.
    """

    def __init__(self, in_features: int, width: int, c_dim: int) -> None:
        super().__init__()
        self.hidden = FullyConnected(in_features, width, activation="lrelu")
        self.out = FullyConnected(width, 1)
        self.embed = FullyConnected(c_dim, width) if c_dim else None

    def forward(self, x: torch.Tensor, c: torch.Tensor | None) -> torch.Tensor:
        """Map features (N, D) and one-hot classes (N, c_dim) to logits (N,)."""
        x = self.hidden(x)
        logit = self.out(x)[:, 0]
        if self.embed is not None:
            assert c is not None
            logit = logit + (self.embed(c) * x).sum(dim=1) / math.sqrt(x.shape[1])
        return logit


class VectorHead(LogitHead):
    """One logit from the pooled vector."""

    # A subclass, so that parameter names match existing training states.
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, maps: Sequence[torch.Tensor], pooled: torch.Tensor, c: torch.Tensor | None
    ) -> list[torch.Tensor]:
        """Map the pooled vector (N, D) to one level of logits (N,)."""
        return [super().forward(pooled, c)]


class MapHead(nn.Module):
    """One logit from one map: 3x3 convolutions halve it to at most 4x4, then two linear layers.

    For maps of 7x7 and 8x8 this is the original code's head, with one convolution.
    """

    def __init__(self, shape: tuple[int, int, int], c_dim: int) -> None:
        super().__init__()
        channels, side, _ = shape
        layers = []
        downs = [True] * _halvings(side) or [False]
        for down in downs:
            layers.append(ConvLayer(channels, WIDTH, 3, down=down))
            channels = WIDTH
        self.convs = nn.Sequential(*layers)
        with torch.no_grad():
            features = self.convs(torch.zeros(1, *shape)).numel()
        self.final = LogitHead(features, WIDTH, c_dim)

    def forward(
        self, maps: Sequence[torch.Tensor], pooled: torch.Tensor, c: torch.Tensor | None
    ) -> list[torch.Tensor]:
        """Map one map (N, C, H, W) to one level of logits (N,)."""
        # Without contiguous(), flattening would depend on the memory format of the map.
        return [self.final(self.convs(maps[0]).contiguous().flatten(1), c)]


class LevelHead(nn.Module):
    """A small map of logits from one of several maps; (N, C, H, W) → (N, h, w), sides at most 4."""

    def __init__(self, shape: tuple[int, int, int], width: int) -> None:
        super().__init__()
        channels, side, _ = shape
        halvings = _halvings(side)
        layers = []
        # The 1x1 convolution does the last halving, the 3x3 ones the others.
        for down in [True] * (halvings - 1) or [False]:
            layers.append(ConvLayer(channels, width, 3, down=down))
            channels = width
        layers.append(ConvLayer(width, 1, 1, down=halvings > 0, activation="linear"))
        self.convs = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the head."""
        return self.convs(x)[:, 0]


class MultiLevelHead(nn.Module):
    """Maps of logits from several maps, and the final logit from the pooled vector."""

    def __init__(self, shapes: Sequence[tuple[int, int, int]], dim: int, c_dim: int) -> None:
        super().__init__()
        width = WIDTH_OF_LARGE_MAPS if max(side for _, side, _ in shapes) > 8 else WIDTH
        self.levels = nn.ModuleList(LevelHead(shape, width) for shape in shapes)
        self.final = LogitHead(dim, width, c_dim)

    def forward(
        self, maps: Sequence[torch.Tensor], pooled: torch.Tensor, c: torch.Tensor | None
    ) -> list[torch.Tensor]:
        """Return the levels' logits, shallow to deep, and last the final one (N,)."""
        levels = [head(x) for head, x in zip(self.levels, maps, strict=True)]
        return [*levels, self.final(pooled, c)]


@dataclass(frozen=True, kw_only=True)
class HeadKind:
    """A kind of head.

    Attributes:
        fits: shapes of the maps → whether this kind suits a backbone with such maps.
        build: (shapes of the maps, width of the pooled vector, number of classes) → a module with
            the signature of `Head.forward`.
    """

    fits: Callable[[Shapes], bool]
    build: Callable[[Shapes, int, int], nn.Module]


# If several fit, the last one is used.
HEADS: dict[str, HeadKind] = {
    "vector": HeadKind(
        fits=lambda shapes: not shapes,
        build=lambda shapes, dim, c_dim: VectorHead(dim, WIDTH, c_dim),
    ),
    "map": HeadKind(
        fits=lambda shapes: len(shapes) == 1,
        build=lambda shapes, dim, c_dim: MapHead(shapes[0], c_dim),
    ),
    "levels": HeadKind(fits=lambda shapes: len(shapes) > 1, build=MultiLevelHead),
}


def head_kind(map_shapes: Shapes) -> str:
    """Return the name of the kind of head for maps of these shapes."""
    return next(name for name, kind in reversed(HEADS.items()) if kind.fits(map_shapes))


class Head(nn.Module):
    """The head chosen by a backbone's declared shapes.

    Args:
        map_shapes: (C, H, W) of each tapped map, shallow to deep.
        dim: width of the pooled vector.
        c_dim: number of classes to project, 0 for none.
        norm: "equalised" (run-time gain of 1/sqrt(fan-in)) or "spectral".
    """

    def __init__(
        self,
        map_shapes: Sequence[tuple[int, int, int]],
        dim: int,
        *,
        c_dim: int = 0,
        norm: str = "equalised",
    ) -> None:
        super().__init__()
        self.network = HEADS[head_kind(map_shapes)].build(map_shapes, dim, c_dim)
        if norm == "spectral":
            _normalise_spectrally(self)

    def forward(
        self, maps: Sequence[torch.Tensor], pooled: torch.Tensor, c: torch.Tensor | None = None
    ) -> list[torch.Tensor]:
        """Return the logits of each level, positive for "real", with the final one (N,) last.

        Args:
            maps: (N, C, H, W) float32 each, as declared.
            pooled: (N, dim) float32.
            c: (N, c_dim) one-hot, for a head with classes.

        Returns:
            One tensor (N,) or (N, h, w) per level.
        """
        return self.network(maps, pooled, c)
