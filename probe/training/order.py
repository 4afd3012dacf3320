"""The order in which training images are shown: a pure function of the seed and the position.

Position p is the p-th image shown since the run began. Every pass over the images shows each of
them once, in an order of its own.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

import numpy as np

from probe.streams import numpy_stream

BLOCK = 128  # images that lie beside each other
WINDOW = 128  # blocks that are mixed


class Order(Protocol):
    """An endless order of images."""

    def at(self, positions: Sequence[int]) -> list[int]:
        """Return the indices of the images at these positions."""
        ...


class Shuffled:
    """Each pass is a random permutation.

    Args:
        count: number of images.
        seed: of the run.
    """

    def __init__(self, count: int, seed: int) -> None:
        self._count, self._seed = count, seed
        self._pass = lru_cache(maxsize=2)(self._draw)

    def at(self, positions: Sequence[int]) -> list[int]:
        """Return the indices of the images at these positions."""
        return [int(self._pass(p // self._count)[p % self._count]) for p in positions]

    def _draw(self, turn: int) -> np.ndarray:
        return numpy_stream(self._seed, "order", turn).permutation(self._count)


class Blocks:
    """Each pass shuffles blocks of neighbours, and then the images of every window of blocks.

    A pass costs a number per block, and images are read from few places of a shard at a time. Two
    neighbours are shown within a window of each other. The images of a batch come from almost as
    many random places of the set as there are images in it.

    Args:
        count: number of images.
        seed: of the run.
    """

    def __init__(self, count: int, seed: int) -> None:
        self._count, self._seed = count, seed
        self._pass = lru_cache(maxsize=2)(self._draw_pass)
        self._window = lru_cache(maxsize=4)(self._draw_window)

    def at(self, positions: Sequence[int]) -> list[int]:
        """Return the indices of the images at these positions."""
        found = []
        for position in positions:
            turn, place = divmod(position, self._count)
            _, starts = self._pass(turn)
            window = int(np.searchsorted(starts, place, side="right")) - 1
            found.append(int(self._window(turn, window)[place - starts[window]]))
        return found

    def _draw_pass(self, turn: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the order of the blocks, and where in the pass each window starts."""
        blocks = numpy_stream(self._seed, "blocks", turn).permutation(-(-self._count // BLOCK))
        sizes = np.minimum(BLOCK, self._count - blocks * BLOCK)
        starts = np.concatenate([[0], np.cumsum(sizes)])
        return blocks, starts[:-1:WINDOW]

    def _draw_window(self, turn: int, window: int) -> np.ndarray:
        """Return the indices of the images of one window, in the order in which they are shown."""
        blocks = self._pass(turn)[0][window * WINDOW : (window + 1) * WINDOW]
        images = (blocks[:, None] * BLOCK + np.arange(BLOCK)).reshape(-1)
        return numpy_stream(self._seed, "window", turn, window).permutation(
            images[images < self._count]
        )
