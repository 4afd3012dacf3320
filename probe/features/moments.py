"""Count, mean and covariance of features, gathered part by part in float64.

Parts are merged as Chan, Golub and LeVeque (1979) add sums of squares. The sums are held as a
triangular factor and merged by a QR step, because adding the matrices themselves would square the
features and lose half of their digits.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg

from probe.features.store import FeatureSpace

BLOCK = 4096  # rows to factor at a time
PART = 4 * BLOCK  # rows in memory at a time while all are read


@dataclass(frozen=True, eq=False)
class Moments:
    """Count, mean and covariance of a set of features.

    Attributes:
        count: number of images.
        mean: float64 (d,).
        scatter: float64 (k, d), k at most d; scatterᵀ scatter is the sum of the outer products of
            the deviations from the mean.
    """

    count: int
    mean: np.ndarray
    scatter: np.ndarray

    @property
    def root(self) -> np.ndarray:
        """Float64 (k, d); rootᵀ root is the unbiased covariance of at least 2 images."""
        return self.scatter / np.sqrt(self.count - 1)

    @property
    def variance(self) -> float:
        """The trace of the covariance."""
        return float(np.square(self.root).sum())

    def merged(self, other: "Moments") -> "Moments":
        """Return the moments of both sets together."""
        count, shift = self.count + other.count, other.mean - self.mean
        rows = [self.scatter, other.scatter]
        if self.count and other.count:
            rows.append(shift[None] * np.sqrt(self.count * other.count / count))
        stacked = np.concatenate(rows)
        found = scipy.linalg.qr(stacked, mode="r", overwrite_a=True, check_finite=False)
        factor = np.asarray(found[0])[: len(shift)]
        return Moments(count, self.mean + shift * (other.count / count), factor)


def moments(features: np.ndarray | Iterable[np.ndarray]) -> Moments:
    """Return the moments of features.

    Args:
        features: float (N, d), or a sequence of such tables; one is in memory at a time.
    """
    tables = [features] if isinstance(features, np.ndarray) else features
    found = None
    for table in tables:
        if found is None:
            found = Moments(0, np.zeros(table.shape[1]), np.empty((0, table.shape[1])))
        for start in range(0, len(table), BLOCK):
            block = table[start : start + BLOCK]
            mean = block.mean(axis=0, dtype=np.float64)
            found = found.merged(Moments(len(block), mean, block - mean))
    assert found is not None  # there is a table
    return found


def stored_moments(space: FeatureSpace, keys: Sequence[str]) -> Moments:
    """Return the moments of images whose features are stored; few of them are in memory at once."""
    starts = range(0, len(keys), PART)
    return moments(space.read(keys[start : start + PART]) for start in starts)
