"""Memory management: keep freed memory for reuse, and recognise out-of-memory errors.

Imports no torch, because every command imports this first.
"""

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from probe.accel import enabled
from probe.errors import ProbeError

# glibc's mallopt parameters (malloc.h).
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -3, -4, -8
# What errors say that have no type of their own: torch's on a CPU, CUDA's outside of torch's
# allocator (pinned memory, a context), and its libraries'.
LACKS = (
    "DefaultCPUAllocator", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)  # fmt: skip
LARGE_BYTES = 8 * 2**20  # blocks above this are mapped one by one in `large_blocks_apart`

_keeps = False  # whether `keep_freed_memory` was called


def keep_freed_memory() -> None:
    """Make glibc reuse large blocks instead of returning them to the system at once.

    A network on a CPU allocates the same tensors again and again, and the kernel zeroes every page
    of a block that was returned. A training step through MobileNetV2 took 0.90 s without this and
    0.37 s with it (batch 16, float32, two cores); a cold ranking of three backbones 77 s and 69 s.
    All threads use one arena, because memory kept in one thread's arena is useless to the others:
    this saves 0.2 GiB in a ranking. Does nothing without glibc.
    """
    global _keeps
    mallopt = _glibc("mallopt")
    if mallopt is not None:
        _keeps = True
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_ARENA_MAX, 1)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def give_back_freed_memory() -> None:
    """Return kept memory to the system, between two phases of a job.

    The holes that one phase leaves do not suit the tables of the next: without this, the memory of
    a ranking grew with the number of images. Does nothing without glibc.
    """
    malloc_trim = _glibc("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


@contextmanager
def large_blocks_apart() -> Iterator[None]:
    """Allocate large blocks separately in the body, so each returns to the system when freed.

    For short-lived tables of many sizes. In a process that keeps freed memory, each leaves a hole
    that the next does not fit: 0.1 GiB for the probes of 20 000 images.
    """
    mallopt = _glibc("mallopt")
    if mallopt is None or not _keeps:
        yield
        return
    mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
    mallopt(M_MMAP_MAX, 65536)
    try:
        yield
    finally:
        mallopt(M_MMAP_MAX, 0)


def _glibc(name: str) -> Any:
    """Return a glibc function, or None on another system or if acceleration is off."""
    linux = sys.platform.startswith("linux")
    return getattr(ctypes.CDLL(None), name, None) if linux and enabled() else None


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether a Python or torch error, on a CPU or GPU, means out of memory."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and any(word in str(error) for word in LACKS))
    )


@contextmanager
def explain_lack(sentence: str) -> Iterator[None]:
    """Turn an out-of-memory error in the body into a sentence for the user.

    Raises:
        ProbeError: memory ran out.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise ProbeError(sentence) from error


def in_batches(count: int, batch: int, work: Callable[[slice], None]) -> None:
    """Process `count` items, `batch` at a time; out of memory halves the batch for the rest.

    Args:
        count: number of items.
        batch: initial batch size.
        work: called with a slice of at most `batch` items. May get some items more than once.

    Raises:
        MemoryError: not even one item fits.
    """
    start = 0
    while start < count:
        try:
            work(slice(start, start + batch))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if batch == 1:
                raise MemoryError("out of memory with a single image") from error
            batch //= 2
        else:
            start += batch
