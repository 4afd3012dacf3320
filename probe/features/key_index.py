"""Find an image's row by its key, among millions, in 48 bytes a row."""

from typing import NamedTuple

import numpy as np


class _Run(NamedTuple):
    """Keys in the order of their first eight bytes."""

    starts: np.ndarray
    keys: np.ndarray
    places: np.ndarray


class KeyIndex:
    """Keys and where their rows are.

    Sorted runs that are merged as they grow, so that adding a few keys to many is cheap.
    """

    def __init__(self) -> None:
        self._runs: list[_Run] = []

    def add(self, keys: np.ndarray, places: np.ndarray) -> None:
        """Add keys.

        Args:
            keys: uint8 (n, 32).
            places: int64 (n,), not negative.
        """
        runs, new = list(self._runs), (keys, places)
        while runs and len(runs[-1].places) <= 2 * len(new[1]):
            last = runs.pop()
            new = np.concatenate([last.keys, new[0]]), np.concatenate([last.places, new[1]])
        starts = _starts(new[0])
        order = np.argsort(starts, kind="stable")
        self._runs = [*runs, _Run(starts[order], new[0][order], new[1][order])]

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Return the place of each key, int64 (n,); -1 if it is unknown."""
        found = np.full(len(keys), -1, np.int64)
        starts = _starts(keys)
        for run in self._runs:
            at = np.minimum(np.searchsorted(run.starts, starts), len(run.starts) - 1)
            same = (run.keys[at] == keys).all(axis=1)
            found[same] = run.places[at[same]]
        return found

    def drop(self, first: int, last: int) -> None:
        """Forget the keys whose place is from `first` to `last`, without `last`."""
        kept = []
        for run in self._runs:
            stays = (run.places < first) | (run.places >= last)
            if stays.any():
                kept.append(_Run(*(array[stays] for array in run)))
        self._runs = kept


def _starts(keys: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(keys[:, :8]).view(">u8")[:, 0].astype(np.uint64)
