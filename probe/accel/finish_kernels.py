"""What follows a convolution as Triton kernels: value, first and second derivative, a pass each.

With s per sample and channel, n per pixel and b per channel, all optional:
y = clamp(act(s·x + n + b)), where act is the identity below a factor `slope` for negative numbers.
Piecewise linear, so its derivative is a mask that can be read off y, and derivatives of the mask
are 0. Sums over tiles are written apart and added up later: the result is the same every time.
"""

# Triton's language is not Python's: pyright cannot check kernels.
# pyright: reportArgumentType=false, reportGeneralTypeIssues=false

from typing import Any

import torch
import triton
import triton.language as tl

from probe.accel.kernels import Tiles, cut, dense, is_last

Maybe = torch.Tensor | None
Limits = tuple[float, float]  # slope, clamp
ROW = 64  # pixels per tile of a derivative in the default layout, since it also sums over channels


def fused_finish(x: torch.Tensor, scale: Maybe, noise: Maybe, bias: Maybe, limits: Limits) -> Any:
    """Return clamp(act(x·scale + noise + bias)), in the dtype and layout of x.

    Args:
        x: (N, C, H, W) float32, bfloat16 or float16.
        scale: (N, C) float32, or None for 1.
        noise: (N or 1, 1, H, W) or (H, W) float32, or None for 0.
        bias: (C,) float32, or None for 0.
        limits: the slope of act for negative numbers (1, 0.2 or 0) and the clamp (inf for none).
    """
    if noise is not None:
        noise = noise.reshape(-1, 1, *noise.shape[-2:])
    # Outside the function, since what it saves has to be what it was given: derivatives of the
    # gradients go on from there.
    return _Finish.apply(dense(x), _plain(scale), _plain(noise), _plain(bias), limits)


class _Finish(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, scale: Maybe, noise: Maybe, bias: Maybe, limits: Limits
    ) -> torch.Tensor:
        tiles, sizes = cut(x.shape, is_last(x)), _sizes(x)
        y = torch.empty_like(x)
        step = 0 if noise is None or len(noise) == 1 else sizes[1]
        _forward[tiles.grid](x, scale, noise, bias, y, *sizes, step, *limits, **tiles.options)
        ctx.limits = limits
        ctx.noise = None if noise is None else noise.shape
        ctx.save_for_backward(None if scale is None else x, scale, y)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[Maybe, ...]:
        x, scale, y = ctx.saved_tensors
        g = dense(gradients[0], last=is_last(y))
        needed = tuple(ctx.needs_input_grad[1:4])
        dx, dscale, dnoise, dbias = _Derivative.apply(g, x, scale, y, ctx.limits, needed)
        if dnoise is not None:
            dnoise = dnoise.sum_to_size(ctx.noise)
        return dx, dscale, dnoise, dbias, None


class _Derivative(torch.autograd.Function):
    """The gradients of x, scale, noise and bias: linear in g, and bilinear with x and scale."""

    @staticmethod
    def forward(
        ctx: Any,
        g: torch.Tensor,
        x: Maybe,
        scale: Maybe,
        y: torch.Tensor,
        limits: Limits,
        needed: tuple[bool, ...],
    ) -> tuple[Maybe, ...]:
        n, _, h, w = y.shape
        tiles, sizes = cut(y.shape, is_last(y), wide=ROW), _sizes(y)
        dx = torch.empty_like(y)
        dscale, dnoise, dbias = (
            y.new_empty(shape, dtype=torch.float32) if wanted else None
            for wanted, shape in zip(needed, _parts(tiles, y), strict=True)
        )
        _backward[tiles.grid](
            g, x, scale, y, dx, dscale, dnoise, dbias, *sizes, *limits, **tiles.options
        )
        ctx.set_materialize_grads(False)
        ctx.limits = limits
        ctx.save_for_backward(g, x, scale, y)
        return (
            dx,
            None if dscale is None else dscale.sum(dim=1),
            None if dnoise is None else dnoise.sum(dim=1).view(n, 1, h, w),
            None if dbias is None else dbias.sum(dim=(0, 1)),
        )

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Maybe) -> tuple[Maybe, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        g, x, scale, y = ctx.saved_tensors
        ux, uscale, unoise, ubias = gradients
        if ux is not None:
            ux = dense(ux, last=is_last(y))
        uscale, unoise, ubias = (_plain(t) for t in (uscale, unoise, ubias))
        tiles, sizes = cut(y.shape, is_last(y), wide=ROW), _sizes(y)
        dg = torch.empty_like(y)
        dx = torch.empty_like(y) if uscale is not None else None
        dscale = None
        if scale is not None and ux is not None:
            dscale = y.new_empty(_parts(tiles, y)[0], dtype=torch.float32)
        _second[tiles.grid](
            ux, uscale, unoise, ubias, g, x, scale, y, dg, dx, dscale,
            *sizes, *ctx.limits, **tiles.options,
        )  # fmt: skip
        return dg, dx, None if dscale is None else dscale.sum(dim=1), None, None, None


def _plain(tensor: Maybe) -> Maybe:
    """Return a small tensor as the kernels read it."""
    return None if tensor is None else tensor.float().contiguous()


def _sizes(x: torch.Tensor) -> tuple[int, int]:
    """Return the numbers of channels and pixels."""
    return x.shape[1], x.shape[2] * x.shape[3]


def _parts(tiles: Tiles, y: torch.Tensor) -> tuple[tuple[int, ...], ...]:
    """Return the shapes of the sums per tile, of the gradients of scale, noise and bias."""
    over_pixels, over_channels, n = tiles.grid
    channels, pixels = _sizes(y)
    per_channel = n, over_pixels, channels
    return per_channel, (n, over_channels, pixels), per_channel


@triton.jit
def _places(
    channels, pixels, LAST: tl.constexpr, PIXELS: tl.constexpr, CHANNELS: tl.constexpr
):  # fmt: skip
    """Return the sample, pixels (PIXELS, 1), channels (1, CHANNELS), places and which exist."""
    sample = tl.program_id(2).to(tl.int64)
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)[:, None]
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)[None, :]
    place = pixel * channels + channel if LAST else channel * pixels + pixel
    inside = (pixel < pixels) & (channel < channels)
    return sample, pixel, channel, sample * channels * pixels + place, inside


@triton.jit
def _masked(g, y, slope, clamp):
    """Multiply by the derivative at the result y. A NaN in g stays one."""
    g = tl.where(y > 0, g, g * slope)
    return tl.where(tl.abs(y) >= clamp, 0.0, g)


@triton.jit
def _forward(
    x, scale, noise, bias, y, channels, pixels, noise_step, slope, clamp,
    LAST: tl.constexpr, PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    sample, pixel, channel, at, inside = _places(channels, pixels, LAST, PIXELS, CHANNELS)
    v = tl.load(x + at, mask=inside, other=0).to(tl.float32)
    if scale is not None:
        v *= tl.load(scale + sample * channels + channel, mask=channel < channels, other=0)
    if noise is not None:
        v += tl.load(noise + sample * noise_step + pixel, mask=pixel < pixels, other=0)
    if bias is not None:
        v += tl.load(bias + channel, mask=channel < channels, other=0)
    v = tl.where(v > 0, v, v * slope)
    v = tl.where(v > clamp, clamp, tl.where(v < -clamp, -clamp, v))  # a NaN stays one
    tl.store(y + at, v, mask=inside)


@triton.jit
def _backward(
    g, x, scale, y, dx, dscale, dnoise, dbias, channels, pixels, slope, clamp,
    LAST: tl.constexpr, PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    sample, pixel, channel, at, inside = _places(channels, pixels, LAST, PIXELS, CHANNELS)
    v = tl.load(g + at, mask=inside, other=0).to(tl.float32)
    v = _masked(v, tl.load(y + at, mask=inside, other=0).to(tl.float32), slope, clamp)
    per_channel = (sample * tl.num_programs(0) + tl.program_id(0)) * channels + channel
    if dscale is not None:
        products = v * tl.load(x + at, mask=inside, other=0).to(tl.float32)
        sums = tl.sum(products, axis=0)[None, :]
        tl.store(dscale + per_channel, sums, mask=channel < channels)
    if dbias is not None:
        sums = tl.sum(v, axis=0)[None, :]
        tl.store(dbias + per_channel, sums, mask=channel < channels)
    if dnoise is not None:
        per_pixel = (sample * tl.num_programs(1) + tl.program_id(1)) * pixels + pixel
        sums = tl.sum(v, axis=1)[:, None]
        tl.store(dnoise + per_pixel, sums, mask=pixel < pixels)
    if scale is not None:
        v *= tl.load(scale + sample * channels + channel, mask=channel < channels, other=0)
    tl.store(dx + at, v, mask=inside)


@triton.jit
def _second(
    ux, uscale, unoise, ubias, g, x, scale, y, dg, dx, dscale, channels, pixels, slope, clamp,
    LAST: tl.constexpr, PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Send back the gradients (u) of what `_backward` returned, to g, x and scale."""
    sample, pixel, channel, at, inside = _places(channels, pixels, LAST, PIXELS, CHANNELS)
    known = channel < channels
    result = tl.load(y + at, mask=inside, other=0).to(tl.float32)
    v = tl.load(g + at, mask=inside, other=0).to(tl.float32)
    v = _masked(v, result, slope, clamp)
    back = tl.zeros((PIXELS, CHANNELS), tl.float32)
    if ux is not None:
        u = tl.load(ux + at, mask=inside, other=0).to(tl.float32)
        if scale is not None:
            per_channel = (sample * tl.num_programs(0) + tl.program_id(0)) * channels + channel
            tl.store(dscale + per_channel, tl.sum(u * v, axis=0)[None, :], mask=known)
            u *= tl.load(scale + sample * channels + channel, mask=known, other=0)
        back += u
    if uscale is not None:
        u = tl.load(uscale + sample * channels + channel, mask=known, other=0)
        back += u * tl.load(x + at, mask=inside, other=0).to(tl.float32)
        tl.store(dx + at, u * v, mask=inside)
    if unoise is not None:
        back += tl.load(unoise + sample * pixels + pixel, mask=pixel < pixels, other=0)
    if ubias is not None:
        back += tl.load(ubias + channel, mask=known, other=0)
    tl.store(dg + at, _masked(back, result, slope, clamp), mask=inside)
