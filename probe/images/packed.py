"""Millions of names in two arrays."""

from collections.abc import Sequence
from itertools import accumulate
from typing import overload

import numpy as np


class PackedNames(Sequence[str]):
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

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        """Return a name; bytes that are not UTF-8 stay recognisable, as in `os.fsdecode`."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return to_text(self.raw(index))

    def raw(self, index: int) -> bytes:
        """Return a name's bytes."""
        index = range(len(self))[index]
        start = self.ends[index - 1] if index else 0
        return self.text[start : self.ends[index]].tobytes()

    def find(self, name: str) -> int:
        """Return a name's position.

        Raises:
            KeyError: if it is not among them.
        """
        wanted, low, high = to_bytes(name), 0, len(self)
        while low < high:
            middle = (low + high) // 2
            if self.raw(middle) < wanted:
                low = middle + 1
            else:
                high = middle
        if low == len(self) or self.raw(low) != wanted:
            raise KeyError(name)
        return low


def to_text(name: bytes) -> str:
    """Return a name's text."""
    return name.decode("utf-8", "surrogateescape")


def to_bytes(name: str) -> bytes:
    """Return the bytes of a name that `to_text` gave."""
    return name.encode("utf-8", "surrogateescape")
