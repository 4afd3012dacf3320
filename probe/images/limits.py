"""How many threads read images, and how much memory they may take, all together."""

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

TOO_LARGE = "too large for this machine's memory"
THREADS = min(8, os.cpu_count() or 1)

T = TypeVar("T")
R = TypeVar("R")


def map_threads(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Apply a function to every item with a few threads; results in the items' order.

    Worth it where the work releases the interpreter lock, as Pillow and hashlib do.
    """
    with ThreadPoolExecutor(THREADS) as threads:
        return list(threads.map(function, items))


class Budget:
    """Bytes that threads share: each takes what it needs, and waits until that much is free.

    Args:
        most: bytes in use at any time.
    """

    def __init__(self, most: int) -> None:
        self.most = self._free = most
        self._changed = threading.Condition()

    @contextmanager
    def take(self, count: int) -> Iterator[None]:
        """Hold `count` bytes in the body; no more than `most`, which nobody could wait for."""
        if count > self.most:
            raise ValueError(f"{count} bytes of {self.most}")
        with self._changed:
            self._changed.wait_for(lambda: count <= self._free)
            self._free -= count
        try:
            yield
        finally:
            with self._changed:
                self._free += count
                self._changed.notify_all()


# A thread takes room for a file's bytes first, then room to decode them; one that decodes waits for
# nothing more, so that no two can wait for each other. Constants, whatever the machine has: what is
# decoded, and how, depends on the file alone.
ENCODED = Budget(2**29)
DECODED = Budget(2**30)
