"""Millions of names in two arrays."""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from probe.images.lazy import LazyNames


class PackedNames(LazyNames):
    """Sorted names in their bytes and where each ends, about 8 bytes more than the text.

    Args:
        text: the names' bytes one after the other, uint8.
        ends: int64 (N,), where each ends in `text`.
    """

    def __init__(self, text: np.ndarray, ends: np.ndarray) -> None:
        self.text, self.ends = text, ends

    @classmethod
    def pack(cls, names: Sequence[bytes]) -> "PackedNames":
        """Return names that are already sorted."""
        ends = np.fromiter(accumulate(map(len, names)), np.int64, len(names))
        return cls(np.frombuffer(b"".join(names), np.uint8), ends)

    def __len__(self) -> int:
        """Return the number of names."""
        return len(self.ends)

    def name(self, index: int) -> str:
        """Return a name; bytes that are not UTF-8 stay recognisable, as in `os.fsdecode`."""
        return to_text(self.raw(index))

    def raw(self, index: int) -> bytes:
        """Return the bytes of the name at an index from 0 to `len(self) - 1`."""
        start = self.ends[index - 1] if index else 0
        return self.text[start : self.ends[index]].tobytes()

    def find(self, name: str) -> int:
        """Return a name's position.

        Raises:
            KeyError: if it is not among them.
        """
        wanted = to_bytes(name)
        place = bisect_left(range(len(self)), wanted, key=self.raw)
        if place == len(self) or self.raw(place) != wanted:
            raise KeyError(name)
        return place


def to_text(name: bytes) -> str:
    """Return a name's text."""
    return name.decode("utf-8", "surrogateescape")


def to_bytes(name: str) -> bytes:
    """Return the bytes of a name that `to_text` gave."""
    return name.encode("utf-8", "surrogateescape")
