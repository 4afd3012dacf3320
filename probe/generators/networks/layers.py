"""Layers and functions that several networks share.

The StyleGAN layers use an equalised learning rate: weights are stored with unit variance and
multiplied at run time by a gain of 1/sqrt(fan-in) (Karras et al. 2018, section 4.1). Parameter and
buffer names match the StyleGAN2-ADA files, so state dicts are interchangeable.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional as F

from probe.accel.kernels import has_kernels
from probe.accel.low_pass import low_pass
from probe.errors import UsageError
from probe.generators.noise import normal_noise

# In place, the slope for negative numbers, and the gain that preserves the variance.
ACTIVATIONS: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], float, float]] = {
    "linear": (lambda x: x, 1.0, 1.0),
    "lrelu": (lambda x: F.leaky_relu_(x, 0.2), 0.2, math.sqrt(2)),
    "relu": (F.relu_, 0.0, math.sqrt(2)),
}


def shapes_only() -> bool:
    """Return whether a network is being built for its shapes only, before a file fills it.

    This means the meta device. There, arithmetic and random numbers run through Python, and the
    first such operation imports torch's compiler: 1.4 s, a third of a ranking with cached features.
    """
    return torch.get_default_device().type == "meta"


def normal(*shape: int, over: float = 1) -> torch.Tensor:
    """Return standard normal numbers divided by `over`."""
    return torch.empty(shape) if shapes_only() else torch.randn(shape) / over


def noise_maps(x: torch.Tensor, keys: torch.Tensor | None, number: int) -> torch.Tensor:
    """Return standard normal noise for x (N, C, R, R): (N, 1, R, R), float32.

    Args:
        x: gives the shape and the device.
        keys: see `normal_noise`; None draws them from torch's global stream.
        number: of the layer, different in every layer of a network and above 0.
    """
    if keys is None:
        keys = torch.randint(2**63 - 1, (len(x),), device=x.device)
    return normal_noise(keys, number, (1, *x.shape[2:]))


def filter2d(taps: Sequence[float]) -> torch.Tensor:
    """Return the normalised 2-D low-pass f⊗f / Σ from 1-D taps, float32 (T, T)."""
    f = torch.tensor(taps, dtype=torch.float32)
    if shapes_only():
        return torch.empty(len(f), len(f))
    f = torch.outer(f, f)
    return f / f.sum()


def upsample_double(x: torch.Tensor, f: torch.Tensor) -> torch.Tensor:
    """Double the size: insert zeros, then low-pass with gain 4; (N, C, H, W) → (N, C, 2H, 2W)."""
    taps = f.shape[-1]
    return low_pass(x, f, before=(taps + 1) // 2, after=(taps - 2) // 2, gain=4, up=2)


def activation_gain(kind: str) -> float:
    """Return the factor to multiply a non-linearity's input by.

    All the non-linearities are homogeneous, so the gain that preserves the variance can be applied
    beforehand, to weights and biases, which are smaller than the activations.
    """
    return ACTIVATIONS[kind][2]


def activate(x: torch.Tensor, kind: str, clamp: float | None = None) -> torch.Tensor:
    """Apply a non-linearity in place to x, which already has its gain, then clamp to ±clamp."""
    x = ACTIVATIONS[kind][0](x)
    return x if clamp is None else x.clamp(-clamp, clamp)


def finish(
    x: torch.Tensor,
    bias: torch.Tensor | None,
    kind: str,
    clamp: float | None = None,
    *,
    scale: torch.Tensor | None = None,
    noise: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return act(x·scale + noise + bias), clamped; everything already has the activation's gain.

    Args:
        x: (N, C, H, W), the result of a convolution; may be overwritten.
        bias: (C,), or None.
        kind: of the non-linearity.
        clamp: limit of the result, or None.
        scale: (N, C), or None.
        noise: (N, 1, H, W) or (H, W), or None.
    """
    if has_kernels(x):
        from probe.accel import finish_kernels

        limits = ACTIVATIONS[kind][1], math.inf if clamp is None else clamp
        return finish_kernels.fused_finish(x, scale, noise, bias, limits)
    if scale is not None:
        x = x * scale.to(x.dtype)[:, :, None, None]
    if noise is not None:
        x += noise.to(x)
    if bias is not None:
        x += bias.to(x.dtype)[:, None, None]
    return activate(x, kind, clamp)


def second_moment_normalise(x: torch.Tensor) -> torch.Tensor:
    """Scale each row of (N, d) to a root-mean-square of 1."""
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
        """Apply the layer to (N, in), always in float32: it is cheap and affects everything."""
        gain = self.activation_gain
        weight, bias = self.weight * (self.weight_gain * gain), self.bias * (self.bias_gain * gain)
        with torch.autocast(x.device.type, enabled=False):
            return activate(F.linear(x.float(), weight, bias), self.activation)


class Mapping(nn.Module):
    """Latents and classes to intermediate latents w (generator) or class vectors (discriminator).

    Args:
        z_dim: width of the latent, 0 for none (the discriminator).
        c_dim: number of classes, 0 for none.
        w_dim: width of the output.
        num_layers: number of fully connected layers.
        embed_features: width of the class embedding; None means `w_dim`.
        layer_features: width of the hidden layers; None means `w_dim`.
        activation: of every layer.
        lr_multiplier: of every layer but the embedding.
        track_average: whether to keep `w_avg`, the running mean of w, as generators do.
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
        """Map z (N, z_dim) and c (N, c_dim) to (N, w_dim); update `w_avg` in training mode."""
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
    """Repeat latents for every layer and pull the leading ones towards the average.

    Args:
        w: (N, w_dim).
        average: (w_dim,), reached at psi 0.
        layers: L.
        psi: 1 is no truncation.
        cutoff: number of leading layers to truncate; None is all.

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


def check_call(family: str, psi: float, classes: int, c: torch.Tensor | None) -> None:
    """Check the arguments for a generator that feeds z and the class straight to its synthesis.

    Args:
        family: its name, for messages.
        psi: the truncation asked for.
        classes: number of classes, 0 for none.
        c: the classes given.

    Raises:
        UsageError: if truncation is asked for, or a conditional network gets no classes.
    """
    if psi != 1:
        raise UsageError(f"{family} has no intermediate latents to truncate: use psi 1, not {psi}.")
    if classes and c is None:
        raise UsageError(f"This generator needs classes: one-hot, (N, {classes}).")
