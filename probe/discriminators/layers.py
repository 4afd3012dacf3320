"""The convolution all discriminators use: equalised, optionally low-pass filtered and halved."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from probe.accel.kernels import has_kernels
from probe.accel.low_pass import low_pass
from probe.generators.networks.layers import activation_gain, filter2d, finish

TAPS = (1, 3, 3, 1)


class ConvLayer(nn.Module):
    """Equalised convolution, optionally low-passed and halved; (N, I, H, W) → (N, O, ·, ·)."""

    resample_filter: torch.Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        bias: bool = True,
        activation: str = "lrelu",
        down: bool = False,
        conv_clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.register_buffer("resample_filter", filter2d(TAPS))
        self.weight_gain = 1 / math.sqrt(in_channels * kernel**2)
        self.activation, self.activation_gain = activation, activation_gain(activation)
        self.kernel, self.down = kernel, down
        self.conv_clamp = conv_clamp

    def forward(self, x: torch.Tensor, gain: float = 1) -> torch.Tensor:
        """Apply the layer; `gain` multiplies the activation's own gain."""
        scale = self.activation_gain * gain
        weight = self.weight * (self.weight_gain * scale)
        bias = None if self.bias is None else self.bias * scale
        pad = self.kernel // 2
        # torch adds a bias on a GPU in a pass of its own.
        bias, late = (None, bias) if has_kernels(x) else (bias, None)
        if not self.down:
            x = F.conv2d(x, weight, bias, padding=pad)
        elif self.kernel == 1:
            # Decimating before the 1x1 convolution cuts its work to a quarter.
            x = low_pass(x, self.resample_filter, before=1, after=1, down=2)
            x = F.conv2d(x, weight, bias)
        else:
            x = low_pass(x, self.resample_filter, before=1 + pad, after=1 + pad)
            x = F.conv2d(x, weight, bias, stride=2)
        return finish(x, late, self.activation, self.conv_clamp and self.conv_clamp * gain)
