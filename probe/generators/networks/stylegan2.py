"""The StyleGAN2-ADA generator in plain PyTorch (Karras et al. 2020a, 2020b).

Modulated convolution uses its factored form: scale the input channels by the style, convolve once
with the shared weight, then scale the output channels by the demodulation. This equals the
per-sample-weight definition and needs no grouped convolution.
"""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from probe.accel.low_pass import low_pass
from probe.accel.winograd import convolve
from probe.errors import UsageError, shown
from probe.generators.files import rosinality
from probe.generators.networks.layers import (
    FullyConnected,
    Mapping,
    activation_gain,
    filter2d,
    finish,
    noise_maps,
    normal,
    truncate,
    upsample_double,
)
from probe.generators.networks.shapes import generator_arguments

ARCHITECTURES = ("skip", "orig", "resnet")


def modulated_conv2d(
    x: torch.Tensor,
    weight: torch.Tensor,
    styles: torch.Tensor,
    *,
    demodulate: bool = True,
    up_filter: torch.Tensor | None = None,
    gain: float = 1,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Convolve each sample with its own style-scaled weight.

    Args:
        x: (N, I, H, W).
        weight: (O, I, k, k).
        styles: (N, I) scales of the input channels.
        demodulate: divide each output channel by the norm of its scaled weight, eps 1e-8.
        up_filter: (T, T) low-pass. If given, the output has twice the size and the stored weight is
            applied as a true convolution (flipped); otherwise it is applied as a correlation.
        gain: multiplies the result.

    Returns:
        (N, O, H, W), or (N, O, 2H, 2W) when up-sampling, in the dtype of the convolution; and what
        its channels are still to be multiplied by, float32 (N, O), or None.
    """
    k = weight.shape[-1]
    if demodulate and _in_float16(x.device):
        styles, weight = _within_range(styles, weight)
    x = finish(x, None, "linear", scale=styles)
    if up_filter is None:
        x = convolve(x, weight, k // 2)
    else:
        # A strided transposed convolution inserts zeros, then applies a true convolution. It
        # leaves 2H + k - 2 rows; the low-pass crops them to 2H.
        x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
        taps = up_filter.shape[-1]
        x = low_pass(
            x,
            up_filter,
            before=(taps + 1) // 2 + k // 2 - (k - 1),
            after=(taps - 2) // 2 + k // 2 - (k - 1) + 1,
            gain=4,
        )
    if not demodulate:
        return (x if gain == 1 else x * gain), None
    with torch.autocast(x.device.type, enabled=False):
        norm = styles.float().square() @ weight.float().square().sum(dim=(2, 3)).T
    return x, (norm + 1e-8).rsqrt() * gain


def _in_float16(device: torch.device) -> bool:
    """Return whether convolutions on a device are cast to float16."""
    kind = device.type
    return torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.float16


def _within_range(styles: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale styles and weights by their largest values, which demodulation undoes.

    Keeps products in float16's range (Karras et al. 2020b, appendix D.1).
    """
    fan_in = weight[0].numel()
    largest = weight.abs().amax(dim=(1, 2, 3), keepdim=True).clamp_min(1e-12)
    strongest = styles.abs().amax(dim=1, keepdim=True).clamp_min(1e-12)
    return styles / strongest, weight / (largest * math.sqrt(fan_in))


class SynthesisLayer(nn.Module):
    """Modulated 3x3 convolution, noise, bias, non-linearity."""

    resample_filter: torch.Tensor
    noise_const: torch.Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        resolution: int,
        *,
        up: bool = False,
        use_noise: bool = True,
        activation: str = "lrelu",
        resample_filter: Sequence[float] = (1, 3, 3, 1),
        conv_clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.resolution, self.up, self.use_noise = resolution, up, use_noise
        self.activation, self.conv_clamp = activation, conv_clamp
        self.affine = FullyConnected(w_dim, in_channels, bias_init=1)
        self.weight = nn.Parameter(normal(out_channels, in_channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.register_buffer("resample_filter", filter2d(resample_filter))
        if use_noise:
            self.register_buffer("noise_const", normal(resolution, resolution))
            self.noise_strength = nn.Parameter(torch.zeros([]))

    def forward(
        self,
        x: torch.Tensor,
        w: torch.Tensor,
        *,
        noise_mode: str,
        noise_keys: torch.Tensor | None,
        gain: float = 1,
    ) -> torch.Tensor:
        """Map x (N, I, h, h) with w (N, w_dim) to (N, O, R, R)."""
        scale = activation_gain(self.activation) * gain
        up_filter = self.resample_filter if self.up else None
        x, norms = modulated_conv2d(x, self.weight, self.affine(w), up_filter=up_filter, gain=scale)
        noise = None
        if self.use_noise and noise_mode != "none":
            noise = self._noise(x, noise_mode, noise_keys) * (self.noise_strength * scale)
        clamp = self.conv_clamp and self.conv_clamp * gain
        return finish(x, self.bias * scale, self.activation, clamp, scale=norms, noise=noise)

    def _noise(self, x: torch.Tensor, mode: str, keys: torch.Tensor | None) -> torch.Tensor:
        if mode == "const":
            return self.noise_const
        return noise_maps(x, keys, 2 * self.resolution + self.up)


class ToRGB(nn.Module):
    """Modulated 1x1 convolution to image channels, without demodulation."""

    def __init__(
        self, in_channels: int, img_channels: int, w_dim: int, conv_clamp: float | None
    ) -> None:
        super().__init__()
        self.conv_clamp = conv_clamp
        self.affine = FullyConnected(w_dim, in_channels, bias_init=1)
        self.weight = nn.Parameter(normal(img_channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(img_channels))
        self.weight_gain = 1 / math.sqrt(in_channels)

    def forward(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        """Map x (N, I, R, R) with w (N, w_dim) to (N, img_channels, R, R)."""
        styles = self.affine(w) * self.weight_gain
        x, _ = modulated_conv2d(x, self.weight, styles, demodulate=False)
        return finish(x, self.bias, "linear", self.conv_clamp)


class Skip(nn.Module):
    """The residual branch of the 'resnet' architecture: 1x1 convolution, then double the size."""

    resample_filter: torch.Tensor

    def __init__(self, in_channels: int, out_channels: int, taps: Sequence[float]) -> None:
        super().__init__()
        self.weight = nn.Parameter(normal(out_channels, in_channels, 1, 1))
        self.register_buffer("resample_filter", filter2d(taps))
        self.weight_gain = 1 / math.sqrt(in_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, I, h, h) to (N, O, 2h, 2h)."""
        x = F.conv2d(x, self.weight * self.weight_gain)
        return upsample_double(x, self.resample_filter)


class SynthesisBlock(nn.Module):
    """All layers at one resolution."""

    resample_filter: torch.Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        resolution: int,
        img_channels: int,
        *,
        is_last: bool,
        architecture: str,
        resample_filter: Sequence[float],
        conv_clamp: float | None,
        use_noise: bool,
        activation: str,
    ) -> None:
        super().__init__()
        self.architecture = architecture
        self.register_buffer("resample_filter", filter2d(resample_filter))
        layer_options = {
            "use_noise": use_noise,
            "activation": activation,
            "resample_filter": resample_filter,
            "conv_clamp": conv_clamp,
        }
        if in_channels == 0:
            self.const = nn.Parameter(normal(out_channels, resolution, resolution))
        else:
            self.conv0 = SynthesisLayer(
                in_channels, out_channels, w_dim, resolution, up=True, **layer_options
            )
        self.conv1 = SynthesisLayer(out_channels, out_channels, w_dim, resolution, **layer_options)
        if is_last or architecture == "skip":
            self.torgb = ToRGB(out_channels, img_channels, w_dim, conv_clamp)
        if in_channels and architecture == "resnet":
            self.skip = Skip(in_channels, out_channels, resample_filter)
        self.num_conv = 1 if in_channels == 0 else 2

    def forward(
        self, x: torch.Tensor | None, img: torch.Tensor | None, ws: torch.Tensor, **noise: Any
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Map the previous block's features and image to this block's.

        Args:
            x: (N, I, R/2, R/2), or None for the first block.
            img: (N, img_channels, R/2, R/2), or None if there is no image yet.
            ws: (N, num_conv + 1, w_dim); the last one goes to `torgb`.
            noise: `noise_mode` and `noise_keys`.
        """
        if x is None:
            y = self.const.expand(len(ws), -1, -1, -1)
            y = self.conv1(y, ws[:, 0], **noise)
        elif self.architecture == "resnet":
            residual = self.skip(x) * math.sqrt(0.5)
            y = self.conv0(x, ws[:, 0], **noise)
            y = residual + self.conv1(y, ws[:, 1], gain=math.sqrt(0.5), **noise)
        else:
            y = self.conv0(x, ws[:, 0], **noise)
            y = self.conv1(y, ws[:, 1], **noise)
        if img is not None:
            img = upsample_double(img, self.resample_filter)
        if hasattr(self, "torgb"):
            rgb = self.torgb(y, ws[:, self.num_conv]).float()
            img = rgb if img is None else img + rgb
        return y, img


class Synthesis(nn.Module):
    """Intermediate latents to images: blocks b4, b8, … b{resolution}.

    The last `num_fp16_res` blocks may run in float16, as they did in training: see `in_half`.
    `use_fp16`, `fp16_channels_last` and `fused_modconv_default` control the original programs and
    change no weight; they are accepted and ignored.

    Attributes:
        in_half: whether those blocks run in float16.
        halved: their resolutions; none without `conv_clamp`, which keeps values in range.
    """

    def __init__(
        self,
        w_dim: int,
        img_resolution: int,
        img_channels: int,
        *,
        channel_base: int = 32768,
        channel_max: int = 512,
        architecture: str = "skip",
        resample_filter: Sequence[float] = (1, 3, 3, 1),
        use_noise: bool = True,
        activation: str = "lrelu",
        conv_clamp: float | None = None,
        num_fp16_res: int = 0,
        use_fp16: bool = False,
        fp16_channels_last: bool = False,
        fused_modconv_default: bool | str = True,
    ) -> None:
        super().__init__()
        if img_resolution < 4 or img_resolution & (img_resolution - 1):
            raise UsageError(
                f"A StyleGAN2 generator has a resolution that is a power of two from 4, not "
                f"{img_resolution}."
            )
        if architecture not in ARCHITECTURES:
            raise UsageError(
                f"Unknown synthesis architecture {shown(architecture)}: one of {ARCHITECTURES}."
            )
        if channel_base < img_resolution:
            raise UsageError(f"channel_base is {channel_base}: a layer would have no channels.")
        self.resolutions = [2**i for i in range(2, int(math.log2(img_resolution)) + 1)]
        self.num_ws = 2 * len(self.resolutions)
        self.in_half = False
        count = 0 if conv_clamp is None else min(num_fp16_res, len(self.resolutions))
        self.halved = self.resolutions[len(self.resolutions) - count :]
        in_channels = 0
        for resolution in self.resolutions:
            channels = min(channel_base // resolution, channel_max)
            block = SynthesisBlock(
                in_channels,
                channels,
                w_dim,
                resolution,
                img_channels,
                is_last=resolution == img_resolution,
                architecture=architecture,
                resample_filter=resample_filter,
                conv_clamp=conv_clamp,
                use_noise=use_noise,
                activation=activation,
            )
            setattr(self, f"b{resolution}", block)
            in_channels = channels

    def forward(
        self,
        ws: torch.Tensor,
        *,
        noise_mode: str = "random",
        noise_keys: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Map ws (N, num_ws, w_dim) to images (N, img_channels, R, R), float32."""
        x = img = None
        start = 0
        for resolution in self.resolutions:
            block = getattr(self, f"b{resolution}")
            block_ws = ws[:, start : start + block.num_conv + 1]
            halved = self.in_half and resolution in self.halved
            with torch.autocast(ws.device.type, torch.float16) if halved else nullcontext():
                x, img = block(x, img, block_ws, noise_mode=noise_mode, noise_keys=noise_keys)
            start += block.num_conv
        assert img is not None  # the last block always makes one
        return img


class Generator(nn.Module):
    """StyleGAN2: z and class to an image (see `probe.generators.base.Generator`).

    Synthesis arguments come in `synthesis_kwargs`, as in StyleGAN2-ADA's files, or next to the
    others, as in files from StyleGAN3's and Projected GAN's trainers.

    Attributes:
        replayable: whether the same kernels run for every batch of a size.
    """

    replayable = True

    def __init__(
        self,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        img_resolution: int,
        img_channels: int,
        mapping_kwargs: dict[str, Any] | None = None,
        synthesis_kwargs: dict[str, Any] | None = None,
        **synthesis: Any,
    ) -> None:
        super().__init__()
        synthesis = {**(synthesis_kwargs or {}), **synthesis}
        self.z_dim, self.c_dim, self.w_dim = z_dim, c_dim, w_dim
        self.img_resolution, self.img_channels = img_resolution, img_channels
        self.init_kwargs: dict[str, Any] = {
            "z_dim": z_dim,
            "c_dim": c_dim,
            "w_dim": w_dim,
            "img_resolution": img_resolution,
            "img_channels": img_channels,
            "mapping_kwargs": dict(mapping_kwargs or {}),
            "synthesis_kwargs": synthesis,
        }
        self.synthesis = Synthesis(w_dim, img_resolution, img_channels, **synthesis)
        self.num_ws = self.synthesis.num_ws
        self.mapping = Mapping(z_dim, c_dim, w_dim, **(mapping_kwargs or {}))

    @property
    def can_halve(self) -> bool:
        """Whether any blocks may run in float16."""
        return bool(self.synthesis.halved)

    @property
    def half_precision(self) -> bool:
        """Whether those blocks do; see `Synthesis`."""
        return self.synthesis.in_half

    @half_precision.setter
    def half_precision(self, half: bool) -> None:
        self.synthesis.in_half = half

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
        """Return images (N, img_channels, R, R), float32, nominally in [-1, 1]."""
        w = self.mapping(z, c)
        ws = truncate(w, self.mapping.w_avg, self.num_ws, truncation_psi, truncation_cutoff)
        return self.synthesis(ws, noise_mode=noise_mode, noise_keys=noise_keys)


def convert_state(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a file's tensors under our names, which match StyleGAN2-ADA's."""
    return rosinality.generator_to_ours(state) if rosinality.SIGN in state else state


def derive_arguments(state: dict[str, torch.Tensor], attributes: dict[str, Any]) -> dict[str, Any]:
    """Return the constructor's arguments of the network that has these tensors.

    Args:
        state: tensors under the network's names.
        attributes: plain values from the file's modules; ignored.
    """
    return generator_arguments(state)
