"""The low-pass filter of the StyleGAN networks, by the fastest means that there are."""

from typing import Any

import torch
from torch.nn import functional as F

from probe.accel import enabled
from probe.accel.kernels import has_kernels

MOST_TAPS = 12  # of Triton's kernel


def low_pass(
    x: torch.Tensor,
    f: torch.Tensor,
    *,
    before: int,
    after: int,
    gain: float = 1,
    up: int = 1,
    down: int = 1,
) -> torch.Tensor:
    """Filter every channel with the 2-D kernel `f` (a correlation), possibly changing the size.

    Args:
        x: (N, C, H, W).
        f: (T, T).
        before: zero padding at the top and left; negative crops.
        after: zero padding at the bottom and right; negative crops.
        gain: multiplies the result.
        up: every pixel is first followed by `up` - 1 zeros, to the right and below.
        down: of the result, only every `down`-th pixel is taken.
    """
    taps = len(f)
    if has_kernels(x) and taps <= MOST_TAPS:
        from probe.accel.low_pass_kernel import Resample

        h, w = ((up * side + before + after - taps) // down + 1 for side in x.shape[2:])
        return Resample.apply(x, f * gain, (h, w), (up, down), before)
    if up > 1:
        x = _insert_zeros(x, up)
    if not enabled():
        kernel = (f * gain).to(x.dtype).expand(x.shape[1], 1, -1, -1)
        x = F.conv2d(F.pad(x, (before, after, before, after)), kernel, groups=x.shape[1])
    else:
        last = x.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if last else torch.contiguous_format
        x = _LowPass.apply(x, f * gain, before, after, layout)
    # The filter runs at full rate even so: on CPUs, the gradient of a strided depthwise convolution
    # measured seven times slower.
    return x if down == 1 else x[:, :, ::down, ::down]


def _insert_zeros(x: torch.Tensor, up: int) -> torch.Tensor:
    """Follow every pixel of (N, C, H, W) by zeros: (N, C, up H, up W)."""
    n, c, h, w = x.shape
    zeros = x.new_zeros(n, c, h, up, w, up)
    zeros[:, :, :, 0, :, 0] = x
    return zeros.reshape(n, c, up * h, up * w)


class _LowPass(torch.autograd.Function):
    """A low-pass whose gradient is also a low-pass, and so on, all in one layout.

    torch's own second derivative of such a convolution handles one channel at a time: on an H100 a
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
        # A GPU has a fast kernel only for the default layout: 32x64x256x256 in bf16 on an H100
        # takes 2.6 ms there, and 11.6 ms channels last.
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
