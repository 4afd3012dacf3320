"""When Triton's kernels run, and how they cut a feature map into tiles. Imports no Triton."""

import functools
import importlib.util
import os
from collections.abc import Callable, Iterator
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
    try:
        with torch.inference_mode(False), torch.enable_grad():
            return is_right(device)
    except Exception:  # a compiler fails in many ways, and plain PyTorch does the same work
        return False


def is_right(device: torch.device) -> bool:
    """Return whether the kernels give PyTorch's values, first and second derivatives."""
    from probe.accel.finish_kernels import fused_finish
    from probe.accel.low_pass_kernel import Resample

    def given() -> tuple[torch.Tensor, ...]:
        x = torch.linspace(-1, 1, 64, device=device).view(1, 2, 4, 8)
        scale, bias = (torch.tensor(v, device=device) for v in ([[0.7, 1.3]], [0.1, -0.2]))
        return tuple(tensor.requires_grad_() for tensor in (x, scale, bias))

    def plain(x: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        x = x * scale[:, :, None, None] + bias[:, None, None]
        return functional.leaky_relu(functional.avg_pool2d(x, 2, 1), 0.5).clamp(-0.75, 0.75)

    def ours(x: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        kernel = torch.full((2, 2), 0.25, device=device)
        low = Resample.apply(x, kernel, (3, 7), (1, 1), 0)
        return fused_finish(low, scale, None, bias, (0.5, 0.75))

    found = [torch.cat([part.flatten() for part in _derivatives(f, given())])
             for f in (ours, plain)]  # fmt: skip
    return torch.allclose(*found, rtol=1e-4, atol=1e-5)


def _derivatives(
    f: Callable[..., torch.Tensor], given: tuple[torch.Tensor, ...]
) -> Iterator[torch.Tensor]:
    """Yield a function's value, its gradients, and those of the squares of its gradients."""
    y = f(*given)
    yield y.detach()
    first = torch.autograd.grad(y.square().sum(), given, create_graph=True)
    yield from (gradient.detach() for gradient in first)
    yield from torch.autograd.grad(torch.stack([g.square().sum() for g in first]).sum(), given)


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
