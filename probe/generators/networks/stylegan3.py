"""The StyleGAN3 generator, configurations T and R, in plain PyTorch (Karras et al. 2021).

Features are samples of a continuous signal. Each layer has its own sampling rate and cutoff
frequency, fixed in advance by a schedule (`signals.design`). Its non-linearity is wrapped in
up- and down-sampling so that it adds no frequency the samples cannot represent. Modulated
convolution uses the factored form of `probe.generators.networks.stylegan2`.
"""

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from probe.accel.winograd import convolve
from probe.generators.networks.layers import (
    FullyConnected,
    Mapping,
    normal,
    second_moment_normalise,
    shapes_only,
    truncate,
)
from probe.generators.networks.signals import (
    LayerSettings,
    design,
    downsample,
    low_pass_filter,
    padding,
    resampling,
    unused_border,
    upsample,
)

LRELU_SLOPE = 0.2
PIECE = 2**22  # up-sampled values to process at a time on a CPU


def plane_waves(count: int, bandwidth: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return frequencies (count, 2), uniform in the disc of `bandwidth`, and phases (count,)."""
    if shapes_only():
        return torch.empty(count, 2), torch.empty(count)
    radius = torch.rand(count).sqrt() * bandwidth
    angle = torch.rand(count) * math.tau
    phases = torch.rand(count) - 0.5
    return torch.stack([angle.cos(), angle.sin()], 1) * radius[:, None], phases


class SynthesisInput(nn.Module):
    """Fourier features: plane waves that w rotates and shifts, mixed by a learned matrix."""

    transform: torch.Tensor
    freqs: torch.Tensor
    phases: torch.Tensor

    def __init__(self, w_dim: int, stage: LayerSettings) -> None:
        super().__init__()
        self.size, self.rate, self.bandwidth = stage.size, stage.rate, stage.cutoff
        channels = stage.channels
        self.affine = FullyConnected(w_dim, 4)
        with torch.no_grad():  # start as the identity for every w
            self.affine.weight.zero_()
            self.affine.bias.copy_(torch.tensor([1.0, 0, 0, 0]))
        self.weight = nn.Parameter(normal(channels, channels))
        freqs, phases = plane_waves(channels, self.bandwidth)
        self.register_buffer("transform", torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]]))
        self.register_buffer("freqs", freqs)
        self.register_buffer("phases", phases)

    def forward(self, w: torch.Tensor) -> torch.Tensor:
        """Map w (N, w_dim) to features (N, C, size, size), channels last, always in float32."""
        with torch.autocast(w.device.type, enabled=False):
            freqs, phases = self._moved(self.affine(w))
            # Rotation keeps a wave's frequency but a user's transform may raise it: fade those out.
            room = self.rate / 2 - self.bandwidth
            amplitude = (1 - (freqs.norm(dim=2) - self.bandwidth) / room).clamp(0, 1)
            # Pixel centres, in image sides from the image's middle.
            position = torch.arange(self.size, device=w.device, dtype=torch.float32)
            position = (position + 0.5 - self.size / 2) / self.rate
            across = position[:, None] * freqs[:, None, :, 0]  # (N, size, C)
            downwards = position[:, None] * freqs[:, None, :, 1] + phases[:, None]
            x = torch.sin((across[:, None] + downwards[:, :, None]) * math.tau)
            x = x * amplitude[:, None, None]
            x = F.linear(x, self.weight / math.sqrt(len(self.weight)))
        return x.permute(0, 3, 1, 2)

    def _moved(self, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return frequencies (N, C, 2) and phases (N, C) after t (N, 4) and `transform`."""
        t = t / t[:, :2].norm(dim=1, keepdim=True)
        cos, sin, x, y = t.unbind(dim=1)
        zero, one = torch.zeros_like(cos), torch.ones_like(cos)
        rotation = torch.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], 1)
        translation = torch.stack([one, zero, -x, zero, one, -y, zero, zero, one], 1)
        m = rotation.view(-1, 3, 3) @ translation.view(-1, 3, 3) @ self.transform
        phases = self.phases + (self.freqs @ m[:, :2, 2:]).squeeze(2)
        return self.freqs @ m[:, :2, :2], phases


class SynthesisLayer(nn.Module):
    """Modulated convolution, bias and filtered non-linearity; the RGB layer has no non-linearity.

    Args:
        w_dim: width of w.
        source: of the input.
        target: of the output.
        is_torgb: whether this is the last layer.
        critical: whether it is critically sampled; its down filter then stays separable.
        conv_kernel: side of the convolution's kernel.
        filter_size: filter taps per unit of the resampling factor.
        lrelu_upsampling: oversampling of the non-linearity.
        use_radial_filters: use rotationally symmetric down filters (configuration R).
        conv_clamp: bound on the features, None for no bound.
    """

    magnitude_ema: torch.Tensor
    up_filter: torch.Tensor | None
    down_filter: torch.Tensor | None

    def __init__(
        self,
        w_dim: int,
        source: LayerSettings,
        target: LayerSettings,
        *,
        is_torgb: bool,
        critical: bool,
        conv_kernel: int = 3,
        filter_size: int = 6,
        lrelu_upsampling: int = 2,
        use_radial_filters: bool = False,
        conv_clamp: float | None = 256,
    ) -> None:
        super().__init__()
        self.is_torgb, self.conv_clamp = is_torgb, conv_clamp
        self.size = target.size
        k = 1 if is_torgb else conv_kernel
        self.up, self.down, up_taps, down_taps = (
            (1, 1, 1, 1) if is_torgb else resampling(source, target, lrelu_upsampling, filter_size)
        )
        pad = padding(source.size + k - 1, target.size, self.up, self.down, up_taps, down_taps)
        # Skip convolving samples that the filters would discard.
        unused = unused_border(pad, self.up, up_taps)
        self.conv_padding = k - 1 - unused
        self.padding = (pad[0] + unused * self.up, pad[1] + unused * self.up)
        self.affine = FullyConnected(w_dim, source.channels, bias_init=1)
        self.weight = nn.Parameter(normal(target.channels, source.channels, k, k))
        self.bias = nn.Parameter(torch.zeros(target.channels))
        self.register_buffer("magnitude_ema", torch.ones([]))
        rate = source.rate * self.up
        up_filter = down_filter = None
        if up_taps > 1:
            up_filter = low_pass_filter(up_taps, source.cutoff, source.half_width, rate)
        if down_taps > 1:
            radial = use_radial_filters and not critical
            down_filter = low_pass_filter(
                down_taps, target.cutoff, target.half_width, rate, radial=radial
            )
        self.register_buffer("up_filter", up_filter)
        self.register_buffer("down_filter", down_filter)

    def forward(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        """Map x (N, I, h, h) with w (N, w_dim) to (N, O, size, size)."""
        weight, scale_in, scale_out = self._modulation(self.affine(w))
        if self.conv_padding < 0:
            cut = slice(-self.conv_padding, self.conv_padding)
            x = x[:, :, cut, cut]
        x = x * scale_in.to(x.dtype)[:, :, None, None]
        x = convolve(x, weight, max(0, self.conv_padding))
        if x.device.type != "cpu":
            return self._activate(x, scale_out.to(x.dtype), self.bias.to(x.dtype))
        return self._activate_in_pieces(x, scale_out)

    def _modulation(self, styles: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the shared weight, its input scales (N, I) and its output scales (N, O).

        The original rescales weights and styles to root-mean-square 1 to keep half precision in
        range; the demodulation cancels it. Weights of norm 1 do the same, with the fan-in in
        epsilon. Styles are rescaled per sample, so no sample depends on its batch.
        """
        with torch.autocast(styles.device.type, enabled=False):
            fan_in = self.weight[0].numel()
            gain = self.magnitude_ema.rsqrt()
            if self.is_torgb:
                ones = styles.new_ones(1, 1).expand(len(styles), len(self.weight))
                return self.weight, styles * (gain / math.sqrt(fan_in)), ones
            energy = self.weight.square().sum(dim=(2, 3))
            norm = energy.sum(dim=1, keepdim=True)
            styles = second_moment_normalise(styles)
            demodulation = (styles.square() @ (energy / norm).T + 1e-8 / fan_in).rsqrt()
            return self.weight * norm[:, :, None, None].rsqrt(), styles * gain, demodulation

    def _activate_in_pieces(self, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """Do the same as `_activate`, arranged for speed on a CPU.

        Up-sampled features are large. Processing them sample by sample, in groups of channels,
        keeps them in the cache and reuses memory instead of allocating more. Single-channel
        filters run twice as fast in channels-last, and several times as fast in float32 as in
        bfloat16: scale and bias are float32, so they promote x.
        """
        y = x.new_empty(len(x), self.size, self.size, len(self.bias)).permute(0, 3, 1, 2)
        group = max(16, PIECE // (x.shape[2] * self.up) ** 2 // 16 * 16)
        with torch.autocast(x.device.type, enabled=False):
            for i in range(len(x)):
                for start in range(0, x.shape[1], group):
                    at = slice(i, i + 1), slice(start, start + group)
                    y[at] = self._activate(x[at], scale[at], self.bias[at[1]])
        return y

    def _activate(self, x: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """Scale x (N, C, h, h) by (N, C), add bias (C,), apply the filtered non-linearity."""
        x = torch.addcmul(bias[:, None, None], x, scale[:, :, None, None])
        gain = 1 if self.is_torgb else math.sqrt(2)  # the leaky ReLU's gain, applied before it
        if self.up_filter is not None:
            x = upsample(x, self.up_filter, self.up, self.padding, self.up**2 * gain)
        elif gain != 1 or any(self.padding):
            before, after = self.padding
            x = F.pad(x * gain, (before, after, before, after))
        slope = 1 if self.is_torgb else LRELU_SLOPE
        # Clamping first gives the same result, and both steps can then run in place with gradients.
        if self.conv_clamp is not None:
            x = x.clamp_(-self.conv_clamp / slope, self.conv_clamp)
        if not self.is_torgb:
            x = F.leaky_relu_(x, slope)
        return x if self.down_filter is None else downsample(x, self.down_filter, self.down)


class Synthesis(nn.Module):
    """Intermediate latents to images: `input`, then layers L0, L1, … and a last layer to RGB.

    `num_fp16_res` controls half precision in the original programs and changes no weight; it is
    accepted and ignored.
    """

    def __init__(
        self,
        w_dim: int,
        img_resolution: int,
        img_channels: int,
        *,
        channel_base: int = 32768,
        channel_max: int = 512,
        num_layers: int = 14,
        num_critical: int = 2,
        first_cutoff: float = 2,
        first_stopband: float = 2**2.1,
        last_stopband_rel: float = 2**0.3,
        margin_size: int = 10,
        output_scale: float = 0.25,
        num_fp16_res: int = 4,
        conv_kernel: int = 3,
        filter_size: int = 6,
        lrelu_upsampling: int = 2,
        use_radial_filters: bool = False,
        conv_clamp: float | None = 256,
        magnitude_ema_beta: float = 0.999,  # set by the trainer that wrote the file; ignored here
    ) -> None:
        super().__init__()
        stages = design(
            img_resolution,
            img_channels,
            channel_base=channel_base,
            channel_max=channel_max,
            num_layers=num_layers,
            num_critical=num_critical,
            first_cutoff=first_cutoff,
            first_stopband=first_stopband,
            last_stopband_rel=last_stopband_rel,
            margin_size=margin_size,
        )
        self.num_ws = num_layers + 2
        self.output_scale = output_scale
        self.input = SynthesisInput(w_dim, stages[0])
        self.layer_names = []
        for i, target in enumerate(stages):
            layer = SynthesisLayer(
                w_dim,
                stages[max(i - 1, 0)],
                target,
                is_torgb=i == num_layers,
                critical=i >= num_layers - num_critical,
                conv_kernel=conv_kernel,
                filter_size=filter_size,
                lrelu_upsampling=lrelu_upsampling,
                use_radial_filters=use_radial_filters,
                conv_clamp=conv_clamp,
            )
            name = f"L{i}_{target.size}_{target.channels}"
            setattr(self, name, layer)
            self.layer_names.append(name)

    def forward(self, ws: torch.Tensor) -> torch.Tensor:
        """Map ws (N, num_ws, w_dim) to images (N, img_channels, R, R), float32."""
        x = self.input(ws[:, 0])
        for i, name in enumerate(self.layer_names):
            x = getattr(self, name)(x, ws[:, i + 1])
        return x.float() * self.output_scale


class Generator(nn.Module):
    """StyleGAN3: z and class to an image (see `probe.generators.base.Generator`).

    StyleGAN3 has no noise inputs: `noise_mode` and `noise_keys` have no effect.
    """

    def __init__(
        self,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        img_resolution: int,
        img_channels: int,
        mapping_kwargs: dict[str, Any] | None = None,
        **synthesis_kwargs: Any,
    ) -> None:
        super().__init__()
        self.z_dim, self.c_dim, self.w_dim = z_dim, c_dim, w_dim
        self.img_resolution, self.img_channels = img_resolution, img_channels
        self.init_kwargs: dict[str, Any] = {
            "z_dim": z_dim,
            "c_dim": c_dim,
            "w_dim": w_dim,
            "img_resolution": img_resolution,
            "img_channels": img_channels,
            "mapping_kwargs": dict(mapping_kwargs or {}),
            **synthesis_kwargs,
        }
        self.synthesis = Synthesis(w_dim, img_resolution, img_channels, **synthesis_kwargs)
        self.num_ws = self.synthesis.num_ws
        mapping_options = {"num_layers": 2, "w_avg_beta": 0.998, **(mapping_kwargs or {})}
        self.mapping = Mapping(z_dim, c_dim, w_dim, **mapping_options)

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
        return self.synthesis(ws)
