"""The features of one set as metrics take them, and the checks that every metric makes on them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from probe.errors import ProbeError
from probe.features.moments import Moments, stored_moments
from probe.features.store import FeatureSpace


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """One backbone's features of one set of images, read from the store when they are needed.

    Attributes:
        space: holds the features.
        keys: of the images, in a random order.
        known: the moments that stand for the set, if they are known: those of more images.
    """

    space: FeatureSpace
    keys: Sequence[str]
    known: Moments | None = None

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.keys)

    @cached_property
    def moments(self) -> Moments:
        """Those of all images."""
        return stored_moments(self.space, self.keys) if self.known is None else self.known

    def rows(self, positions: Sequence[int]) -> np.ndarray:
        """Return the features of some images, float32 (n, d)."""
        return self.space.read([self.keys[position] for position in positions])


def check_pair(real: np.ndarray, fake: np.ndarray) -> None:
    """Check two feature tables (N, d) and (M, d).

    Raises:
        ProbeError: not two tables of equal width, fewer than two rows, or values not finite.
    """
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1] or real.shape[1] == 0:
        raise ProbeError(
            f"Features of reals {real.shape} and fakes {fake.shape} do not go together; two "
            "tables of the same width are needed."
        )
    for name, table in (("real", real), ("generated", fake)):
        _check(name, len(table), table)


def check_moments(real: Moments, fake: Moments) -> None:
    """Check the moments of two sets.

    Raises:
        ProbeError: different widths, fewer than two images, or features that were not finite.
    """
    if real.mean.shape != fake.mean.shape:
        raise ProbeError(
            f"Features of {len(real.mean)} and of {len(fake.mean)} dimensions do not go together; "
            "take both from one backbone."
        )
    for name, found in (("real", real), ("generated", fake)):
        _check(name, found.count, found.mean)


def _check(name: str, count: int, values: np.ndarray) -> None:
    if count < 2:
        raise ProbeError(f"A distance needs two {name} images or more, not {count}.")
    if not np.isfinite(values).all():
        raise ProbeError(f"The features of the {name} images hold NaN or infinite values.")
