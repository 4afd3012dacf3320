"""Layers that the StyleGAN2 generator and its discriminator share.

Equalised learning rate throughout: weights are stored with unit variance and multiplied at run
time by a gain of 1/sqrt(fan-in) (Karras et al. 2018, section 4.1). Parameter and buffer names
follow the StyleGAN2-ADA files, so that a state dict moves either way.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

ACTIVATIONS: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], float]] = {
    "linear": (lambda x: x, 1.0),
    "lrelu": (lambda x: F.leaky_relu_(x, 0.2), math.sqrt(2)),
    "relu": (F.relu_, math.sqrt(2)),
}
WINOGRAD_CHANNELS = 160  # with fewer, or in smaller images, the transforms cost more than they save
WINOGRAD_SIDE = 32
WINOGRAD_TILES = 256  # at a time: what they are transformed to stays in the cache
# Where polynomials are evaluated, with infinity as the sixth point: exact in binary, and a
# quarter of the rounding of the textbooks' 0, ±1, ±2.
WINOGRAD_POINTS = (0, 0.75, -0.75, 1.5, -1.5)


def shapes_only() -> bool:
    """Return whether a network is being built for its shapes: a file brings the numbers.

    That is on the meta device. Arithmetic and random numbers there are written in Python, and the
    first of them imports torch's compiler: 1.4 s, a third of a ranking that has its features.
    """
    return torch.get_default_device().type == "meta"


def normal(*shape: int, over: float = 1) -> torch.Tensor:
    """Return standard normal numbers over `over`."""
    return torch.empty(shape) if shapes_only() else torch.randn(shape) / over


def filter2d(taps: Sequence[float]) -> torch.Tensor:
    """Return the normalised 2-D low-pass f⊗f / Σ of 1-D taps, float32 (T, T)."""
    f = torch.tensor(taps, dtype=torch.float32)
    if shapes_only():
        return torch.empty(len(f), len(f))
    f = torch.outer(f, f)
    return f / f.sum()


def low_pass(
    x: torch.Tensor, f: torch.Tensor, *, before: int, after: int, gain: float = 1
) -> torch.Tensor:
    """Filter every channel with the symmetric 2-D kernel `f`.

    Args:
        x: (N, C, H, W).
        f: (T, T), symmetric: correlation and convolution are the same.
        before: zero padding at the top and left; negative crops.
        after: zero padding at the bottom and right; negative crops.
        gain: multiplies the result.
    """
    last = x.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if last else torch.contiguous_format
    return _LowPass.apply(x, f * gain, before, after, layout)


class _LowPass(torch.autograd.Function):
    """Its gradient is a low-pass as well, and so is that one's; all in one layout.

    torch's own second derivative of such a convolution takes every channel by itself: on an H100 a
    step with path lengths at 256 px took eleven times as long as one without.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        f: torch.Tensor,
        before: int,
        after: int,
        layout: torch.memory_format,
    ) -> torch.Tensor:
        ctx.save_for_backward(f)
        ctx.padding = len(f) - 1 - before, len(f) - 1 - after
        ctx.layout = layout
        # A GPU has a good kernel for the default layout alone: 32x64x256x256 in bf16 on an H100
        # takes 2.6 ms in it, and 11.6 ms channels last.
        x = x.contiguous(
            memory_format=torch.contiguous_format if x.device.type == "cuda" else layout
        )
        channels = x.shape[1]
        kernel = f.to(x.dtype).expand(channels, 1, -1, -1)
        if before == after >= 0:  # padding inside the convolution saves a copy
            x = F.conv2d(x, kernel, groups=channels, padding=before)
        else:
            x = F.conv2d(F.pad(x, (before, after, before, after)), kernel, groups=channels)
        return x.contiguous(memory_format=layout)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (f,) = ctx.saved_tensors
        x = _LowPass.apply(gradients[0], f.flip(0, 1), *ctx.padding, ctx.layout)
        return x, None, None, None, None


def upsample(x: torch.Tensor, f: torch.Tensor) -> torch.Tensor:
    """Double the size: insert zeros, then low-pass with gain 4; (N, C, H, W) → (N, C, 2H, 2W)."""
    n, c, h, w = x.shape
    zeros = x.new_zeros(n, c, h, 2, w, 2)
    zeros[:, :, :, 0, :, 0] = x
    taps = f.shape[-1]
    return low_pass(
        zeros.reshape(n, c, 2 * h, 2 * w), f, before=(taps + 1) // 2, after=(taps - 2) // 2, gain=4
    )


def convolve(x: torch.Tensor, weight: torch.Tensor, padding: int) -> torch.Tensor:
    """Correlate x (N, I, H, W) with weight (O, I, k, k), zero padding, by the fastest way there is.

    The way depends on shapes but not on N, so that a sample does not depend on its batch.
    """
    wide = weight.shape[2:] == (3, 3) and min(weight.shape[:2]) >= WINOGRAD_CHANNELS
    exact = x.dtype == torch.float32 and not torch.is_autocast_enabled(x.device.type)
    constant = not (torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad))
    large = min(x.shape[2:]) >= WINOGRAD_SIDE
    if x.device.type == "cpu" and wide and large and exact and constant:
        return winograd(x, weight, padding)
    return F.conv2d(x, weight, padding=padding)


def winograd(x: torch.Tensor, weight: torch.Tensor, padding: int) -> torch.Tensor:
    """Correlate x (N, I, H, W) with weight (O, I, 3, 3) in 36 instead of 144 products per 4x4.

    Minimal filtering F(4x4, 3x3) (Winograd 1980; Lavin and Gray 2015): overlapping tiles of 6x6
    are transformed, which turns the correlation into 36 matrix products over channels. On a CPU
    core with wide vectors it takes half the time of a direct convolution at 512 channels.

    Returns:
        (N, O, H', W') float32, channels last.
    """
    to_tiles, to_kernel, to_image = (m.to(x) for m in _winograd_matrices())
    n, inputs, height, width = x.shape
    outputs = len(weight)
    high, wide = height + 2 * padding - 2, width + 2 * padding - 2
    rows, columns = -(-high // 4), -(-wide // 4)
    right, bottom = 4 * columns + 2 - width - padding, 4 * rows + 2 - height - padding
    x = F.pad(x.permute(0, 2, 3, 1), (0, 0, padding, right, padding, bottom))
    kernel = to_kernel @ weight.permute(2, 3, 1, 0).reshape(9, -1)
    kernel = kernel.view(36, inputs, outputs)
    tiles = x.unfold(1, 6, 4).unfold(2, 6, 4).permute(4, 5, 0, 1, 2, 3)
    y = x.new_empty(n, rows, 4, columns, 4, outputs)
    samples = max(1, WINOGRAD_TILES // (rows * columns))
    lines = max(1, WINOGRAD_TILES // columns)
    for i in range(0, n, samples):
        for r in range(0, rows, lines):
            piece = tiles[:, :, i : i + samples, r : r + lines]
            product = to_tiles @ piece.reshape(36, -1)
            product = torch.bmm(product.view(36, -1, inputs), kernel)
            product = (to_image @ product.view(36, -1)).view(4, 4, *piece.shape[2:5], outputs)
            y[i : i + samples, r : r + lines] = product.permute(2, 3, 0, 4, 1, 5)
    return y.view(n, 4 * rows, 4 * columns, outputs)[:, :high, :wide].permute(0, 3, 1, 2)


@cache
@torch.inference_mode(False)  # whoever asks first, the tensors are for all
def _winograd_matrices() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the maps of a tile (36, 36), of a kernel (36, 9) and of a product (16, 36).

    Evaluating, multiplying and interpolating multiplies a polynomial of 3 coefficients with one
    of 4 (Toom and Cook); the transpose of that in the second factor is a correlation.
    """

    def evaluate(coefficients: int) -> torch.Tensor:
        points = torch.tensor(WINOGRAD_POINTS, dtype=torch.float64, device="cpu")[:, None]
        at_infinity = torch.eye(coefficients, dtype=torch.float64, device="cpu")[-1:]
        return torch.cat([points ** torch.arange(coefficients, device="cpu"), at_infinity])

    matrices = torch.linalg.inv(evaluate(6)).T, evaluate(3), evaluate(4).T
    tile, kernel, image = (torch.kron(m, m).float() for m in matrices)
    return tile, kernel, image


def activation_gain(kind: str) -> float:
    """Return what a non-linearity's input is to be multiplied by.

    All of them are homogeneous: the gain that keeps the variance can be applied before them, to
    weights and biases, which are smaller than what they make.
    """
    return ACTIVATIONS[kind][1]


def activate(x: torch.Tensor, kind: str, clamp: float | None = None) -> torch.Tensor:
    """Apply a non-linearity in place to what has its gain already, then clamp to ±clamp."""
    x = ACTIVATIONS[kind][0](x)
    return x if clamp is None else x.clamp(-clamp, clamp)


def second_moment_normalise(x: torch.Tensor) -> torch.Tensor:
    """Scale each row of (N, d) to root-mean-square 1."""
    return x * (x.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()


class FullyConnected(nn.Module):
    """y = act((x Wᵀ)·lr/sqrt(in) + b·lr); (N, in) → (N, out)."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        activation: str = "linear",
        lr_multiplier: float = 1,
        bias_init: float = 0,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(normal(out_features, in_features, over=lr_multiplier))
        self.bias = nn.Parameter(torch.full((out_features,), float(bias_init)))
        self.activation, self.activation_gain = activation, activation_gain(activation)
        self.weight_gain = lr_multiplier / math.sqrt(in_features)
        self.bias_gain = lr_multiplier

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the layer to (N, in), always in float32: it is cheap and steers everything."""
        gain = self.activation_gain
        weight, bias = self.weight * (self.weight_gain * gain), self.bias * (self.bias_gain * gain)
        with torch.autocast(x.device.type, enabled=False):
            return activate(F.linear(x.float(), weight, bias), self.activation)


class Mapping(nn.Module):
    """Latents and classes to intermediate latents w (generator) or class vectors (discriminator).

    Args:
        z_dim: width of the latent, 0 for none (the discriminator's).
        c_dim: number of classes, 0 for none.
        w_dim: width of the output.
        num_layers: number of fully connected layers.
        embed_features: width of the class embedding; None is `w_dim`.
        layer_features: width of the hidden layers; None is `w_dim`.
        activation: of every layer.
        lr_multiplier: of every layer but the embedding.
        track_average: whether to keep `w_avg`, the running mean of w (generators do).
        w_avg_beta: decay of `w_avg` per training batch.
    """

    w_avg: torch.Tensor

    def __init__(
        self,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        *,
        num_layers: int = 8,
        embed_features: int | None = None,
        layer_features: int | None = None,
        activation: str = "lrelu",
        lr_multiplier: float = 0.01,
        track_average: bool = True,
        w_avg_beta: float = 0.995,
    ) -> None:
        super().__init__()
        self.z_dim, self.c_dim, self.w_dim = z_dim, c_dim, w_dim
        self.num_layers = num_layers
        self.w_avg_beta = w_avg_beta
        embed_features = (embed_features or w_dim) if c_dim else 0
        if c_dim:
            self.embed = FullyConnected(c_dim, embed_features)
        hidden = layer_features or w_dim
        widths = [z_dim + embed_features, *[hidden] * (num_layers - 1), w_dim]
        for i in range(num_layers):
            layer = FullyConnected(
                widths[i], widths[i + 1], activation=activation, lr_multiplier=lr_multiplier
            )
            setattr(self, f"fc{i}", layer)
        if track_average:
            self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(self, z: torch.Tensor | None, c: torch.Tensor | None) -> torch.Tensor:
        """Map z (N, z_dim) and c (N, c_dim) to (N, w_dim). In training mode `w_avg` follows."""
        parts = []
        if self.z_dim:
            assert z is not None
            parts.append(second_moment_normalise(z.float()))
        if self.c_dim:
            assert c is not None
            parts.append(second_moment_normalise(self.embed(c.float())))
        x = torch.cat(parts, dim=1)
        for i in range(self.num_layers):
            x = getattr(self, f"fc{i}")(x)
        if self.training and hasattr(self, "w_avg"):
            self.w_avg.lerp_(x.detach().float().mean(dim=0), 1 - self.w_avg_beta)
        return x


def truncate(
    w: torch.Tensor, average: torch.Tensor, layers: int, psi: float, cutoff: int | None
) -> torch.Tensor:
    """Repeat latents for every layer and pull the first ones towards the average.

    Args:
        w: (N, w_dim).
        average: (w_dim,), where psi 0 leads.
        layers: L.
        psi: 1 is no truncation.
        cutoff: how many leading layers are pulled; None is all.

    Returns:
        (N, L, w_dim).
    """
    ws = w.unsqueeze(1).expand(-1, layers, -1)
    if psi == 1:
        return ws
    pulled = average.lerp(ws, psi)
    if cutoff is None:
        return pulled
    return torch.cat([pulled[:, :cutoff], ws[:, cutoff:]], dim=1)
