"""The low-pass as a Triton kernel: up-sampling, filter and decimation in one pass over memory."""

# Triton's language is not Python's: pyright cannot check kernels.
# pyright: reportArgumentType=false, reportGeneralTypeIssues=false

from typing import Any

import torch
import triton
import triton.language as tl

from probe.accel.kernels import cut, dense, is_last, layout

MOST_TAPS = 12


class Resample(torch.autograd.Function):
    """y = D F U x: insert zeros, correlate with f, take every `down`-th pixel, per channel.

    Its transpose has the same form, with `up` and `down` exchanged and f mirrored; so have all
    further derivatives.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        f: torch.Tensor,
        size: tuple[int, int],
        steps: tuple[int, int],
        before: int,
    ) -> torch.Tensor:
        """Return (N, C, *size), in the dtype and layout of x.

        Args:
            ctx: of autograd.
            x: (N, C, H, W) float32, bfloat16 or float16.
            f: (T, T), T at most 12.
            size: height and width of the result.
            steps: `up` and `down`; pixel k of x lies at k·up, pixel o of the result at o·down.
            before: zeros above and to the left; negative crops.
        """
        x = dense(x)
        last = is_last(x)
        n, c, h, w = x.shape
        ctx.save_for_backward(f)
        ctx.transposed = (h, w), steps[::-1], len(f) - 1 - before
        y = torch.empty(
            (n, c, *size), dtype=x.dtype, device=x.device, memory_format=layout(last)
        )  # fmt: skip
        tiles = cut(y.shape, last)
        _resample[tiles.grid](
            x, f.float().contiguous(), y, c, h, w, *size, before,
            TAPS=len(f), UP=steps[0], DOWN=steps[1], **tiles.options,
        )  # fmt: skip
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradient of x."""
        (f,) = ctx.saved_tensors
        return Resample.apply(gradients[0], f.flip(0, 1), *ctx.transposed), None, None, None, None


# Sizes that are not specialised need no compilation of their own. In the default layout, threads
# then take single pixels and not groups of them: the loads of a warp are as close as its stores.
@triton.jit(do_not_specialize=["before", "height", "width", "high", "wide"])
def _resample(
    x, f, y, channels, height, width, high, wide, before,
    TAPS: tl.constexpr, UP: tl.constexpr, DOWN: tl.constexpr,
    LAST: tl.constexpr, PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)[None, :]
    sample = tl.program_id(2).to(tl.int64) * channels
    inside = (pixel < high * wide)[:, None] & (channel < channels)
    # The first pixel of x at or after the first tap, and the tap that it meets.
    row, tap_row = _first(pixel // wide * DOWN - before, UP)
    column, tap_column = _first(pixel % wide * DOWN - before, UP)
    total = tl.zeros((PIXELS, CHANNELS), tl.float32)
    for i in tl.static_range(0, TAPS, UP):
        for j in tl.static_range(0, TAPS, UP):
            if UP == 1:
                weight = tl.load(f + i * TAPS + j)
            else:
                there = (tap_row + i < TAPS) & (tap_column + j < TAPS)
                at = (tap_row + i) * TAPS + tap_column + j
                weight = tl.load(f + at, mask=there, other=0)[:, None]
            r, c = row + i // UP, column + j // UP
            known = ((r >= 0) & (r < height) & (c >= 0) & (c < width))[:, None] & inside
            place = (r * width + c)[:, None]
            place = place * channels + channel if LAST else channel * (height * width) + place
            values = tl.load(x + sample * height * width + place, mask=known, other=0)
            total += values.to(tl.float32) * weight
    place = pixel[:, None]
    place = place * channels + channel if LAST else channel * (high * wide) + place
    tl.store(y + sample * high * wide + place, total, mask=inside)


@triton.jit
def _first(position, UP: tl.constexpr):
    """Return the first pixel at or after a position between zeros, and how far after."""
    pixel = tl.where(position < 0, -(-position // UP), (position + UP - 1) // UP)
    return pixel, pixel * UP - position
