"""Names of millions of images, made when they are asked for."""

from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import overload


class LazyNames(Sequence[str]):
    """Names that are not kept as Python strings, which would take 100 bytes each."""

    @abstractmethod
    def name(self, index: int) -> str:
        """Return the name at an index from 0 to `len(self) - 1`."""

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        """Return a name, or a list of names.

        Raises:
            IndexError: there is no such name.
        """
        if isinstance(index, slice):
            return [self.name(i) for i in range(*index.indices(len(self)))]
        return self.name(range(len(self))[index])


class NamesOfParts(LazyNames):
    """Names of images that lie in several files, one file after the other.

    Args:
        counts: number of images in each file.
        name: (number of the file, place in it) → name, both from 0.
    """

    def __init__(self, counts: Iterable[int], name: Callable[[int, int], str]) -> None:
        self._ends, self._name = list(accumulate(counts)), name

    def __len__(self) -> int:
        """Return the number of images."""
        return self._ends[-1] if self._ends else 0

    def name(self, index: int) -> str:
        """Return the name at an index from 0 to `len(self) - 1`."""
        part = bisect_right(self._ends, index)
        return self._name(part, index - (self._ends[part - 1] if part else 0))
