"""Memory: what is freed stays with the process, and what lacks is known by its error.

No torch here: a command begins with this.
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
LARGE_BYTES = 8 * 2**20  # of a block that `large_blocks_apart` takes from the system by itself

_keeps = False  # what `keep_freed_memory` asked for


def keep_freed_memory() -> None:
    """Let glibc reuse large blocks instead of returning them to the system at once.

    A network on a CPU allocates the same tensors again and again, and every page of a block that
    was given back is zeroed anew by the kernel: a training step through MobileNetV2 took 0.90 s
    without this and 0.37 s with it (batch 16, float32, two cores), and a cold ranking of three
    backbones 77 s and 69 s. One arena for all threads, since what a thread's own keeps is of no use
    to the others: 0.2 GiB of a ranking. Elsewhere than on glibc this does nothing.
    """
    global _keeps
    mallopt = _glibc("mallopt")
    if mallopt is not None:
        _keeps = True
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_ARENA_MAX, 1)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def give_back_freed_memory() -> None:
    """Return to the system what was freed and kept, between two phases of a job.

    Holes that one phase left are of little use to the tables of the next: without this the memory
    of a ranking grew with the number of images. Elsewhere than on glibc this does nothing.
    """
    malloc_trim = _glibc("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


@contextmanager
def large_blocks_apart() -> Iterator[None]:
    """Let large blocks come from the system and go back to it one by one, in the body.

    For tables of many sizes that come and go: in a process that keeps freed memory each leaves a
    hole that the next one does not fit, a tenth of a gibibyte for the probes of 20 000 images.
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
    """Return a function of glibc; None on another system, or if acceleration is off."""
    linux = sys.platform.startswith("linux")
    return getattr(ctypes.CDLL(None), name, None) if linux and enabled() else None


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error of Python or torch, on a CPU or GPU, says that memory is lacking."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error))
    )


@contextmanager
def explain_lack(sentence: str) -> Iterator[None]:
    """Turn lack of memory in the body into a sentence for the user.

    Raises:
        ProbeError: memory was lacking.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise ProbeError(sentence) from error


def in_batches(count: int, batch: int, work: Callable[[slice], None]) -> None:
    """Do the work on all of `count` items, `batch` at a time; lack of memory halves that for good.

    Args:
        count: of items.
        batch: how many to begin with.
        work: is given the part to do, of up to `batch` items. It may be given some of it again.

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
