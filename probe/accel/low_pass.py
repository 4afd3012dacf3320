"""The low-pass filter of the StyleGAN networks, with a fast layout and fast gradients."""

from typing import Any

import torch
from torch.nn import functional as F

from probe.accel import enabled


def low_pass(
    x: torch.Tensor, f: torch.Tensor, *, before: int, after: int, gain: float = 1
) -> torch.Tensor:
    """Filter every channel with the symmetric 2-D kernel `f`.

    Args:
        x: (N, C, H, W).
        f: (T, T), symmetric, so correlation and convolution are the same.
        before: zero padding at the top and left; negative crops.
        after: zero padding at the bottom and right; negative crops.
        gain: multiplies the result.
    """
    if not enabled():
        kernel = (f * gain).to(x.dtype).expand(x.shape[1], 1, -1, -1)
        return F.conv2d(F.pad(x, (before, after, before, after)), kernel, groups=x.shape[1])
    last = x.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if last else torch.contiguous_format
    return _LowPass.apply(x, f * gain, before, after, layout)


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
