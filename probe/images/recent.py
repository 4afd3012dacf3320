"""Keep the last things that were read, up to a number of bytes."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class Recent(Generic[T]):
    """What was asked for last. Threads that ask for one thing at the same time make it once.

    Args:
        most: bytes to keep.
        size: thing → its bytes.
    """

    def __init__(self, most: int, size: Callable[[T], int]) -> None:
        self._most, self._size, self._bytes = most, size, 0
        self._kept = OrderedDict[Hashable, Future[T]]()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what is kept under a key, or make it.

        Raises:
            Exception: what `make` raises; nothing is kept then.
        """
        with self._lock:
            found = self._kept.get(key)
            new = Future[T]()
            self._kept.setdefault(key, new)
            self._kept.move_to_end(key)
        if found is not None:
            return found.result()
        try:
            thing = make()
        except BaseException as error:
            with self._lock:
                del self._kept[key]
            new.set_exception(error)
            raise
        new.set_result(thing)
        with self._lock:
            self._bytes += self._size(thing)
            for old in list(self._kept):
                if self._bytes <= self._most:
                    break
                if self._kept[old].done():
                    self._bytes -= self._size(self._kept.pop(old).result())
        return thing
