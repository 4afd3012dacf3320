"""When Triton's kernels run, and how they cut a feature map into tiles. Imports no Triton."""

import functools
import importlib.util
import os
from typing import NamedTuple

import torch
from torch.nn import functional

from probe.accel import enabled

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
TILE = 1024  # values per program


def has_kernels(x: torch.Tensor) -> bool:
    """Return whether Triton's kernels serve a tensor: on a GPU, or anywhere in its interpreter."""
    if not enabled() or x.dtype not in DTYPES or x.numel() == 0:
        return False
    return _compiles(x.device) if x.is_cuda else os.environ.get("TRITON_INTERPRET") == "1"


@functools.cache
def _compiles(device: torch.device) -> bool:
    """Return whether Triton is here, compiles, which takes a C compiler, and computes correctly."""
    if importlib.util.find_spec("triton") is None:
        return False
    x = torch.linspace(-1, 1, 2 * 32, device=device).view(1, 2, 4, 8)
    try:
        from probe.accel.finish_kernels import finish
        from probe.accel.low_pass_kernel import Resample

        found = finish(x, None, None, x[0, :, 0, 0], (0.5, 0.75))
        summed = Resample.apply(x, torch.ones(2, 2, device=device), (3, 7), (1, 1), 0)
    except Exception:  # a compiler fails in many ways, and plain PyTorch does the same work
        return False
    plain = functional.leaky_relu(x + x[:, :, :1, :1], 0.5).clamp(-0.75, 0.75)
    means = functional.avg_pool2d(x, 2, 1)
    return torch.allclose(found, plain) and torch.allclose(summed, 4 * means, atol=1e-5)


class Tiles(NamedTuple):
    """How a dense map (N, C, H, W) is cut up.

    Attributes:
        grid: tiles over pixels, over channels, and samples.
        last: whether channels are last in memory.
        pixels: pixels per tile, a power of two.
        channels: channels per tile, a power of two.
    """

    grid: tuple[int, int, int]
    last: bool
    pixels: int
    channels: int

    @property
    def options(self) -> dict[str, bool | int]:
        """What kernels are compiled for."""
        return {"LAST": self.last, "PIXELS": self.pixels, "CHANNELS": self.channels}


def cut(shape: torch.Size, last: bool, *, wide: int = TILE) -> Tiles:
    """Cut up a dense map so that neighbours in memory are in one tile.

    Args:
        shape: N, C, H, W.
        last: whether channels are last in memory.
        wide: the most pixels per tile if they are not.
    """
    n, c, h, w = shape
    if last:
        channels = min(_power(c), 128)
        pixels = TILE // channels
    else:
        pixels = min(_power(h * w), wide)
        channels = min(_power(c), TILE // pixels)
    return Tiles((-(-h * w // pixels), -(-c // channels), n), last, pixels, channels)


def _power(n: int) -> int:
    """Return the smallest power of two that is not below n."""
    return 1 << (n - 1).bit_length()


def layout(last: bool) -> torch.memory_format:
    """Return torch's name of the layout with the channels last, or of the default one."""
    return torch.channels_last if last else torch.contiguous_format


def is_last(x: torch.Tensor) -> bool:
    """Return whether the channels of a dense map are last in memory."""
    return not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)


def dense(x: torch.Tensor, *, last: bool | None = None) -> torch.Tensor:
    """Return a map in a dense layout: its own if it has one, or the given one."""
    if last is None:
        last = is_last(x)
    return x.contiguous(memory_format=layout(last))
