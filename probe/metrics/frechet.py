"""Fréchet distance between Gaussians fitted to two sets of features (Heusel et al. 2017).

    |μ₁ - μ₂|² + tr C₁ + tr C₂ - 2 tr (C₁ C₂)^½

With C = RᵀR, the last trace is the sum of the singular values of R₁ R₂ᵀ. This avoids a matrix
square root: the result is real and never negative beyond rounding, and with fewer samples than
dimensions R has only as many rows as there are samples.
"""

from dataclasses import dataclass

import numpy as np
import scipy.linalg

from probe.metrics import Metric, number
from probe.metrics.tables import check_pair

BLOCK = 4096  # rows to factor at a time


@dataclass(frozen=True)
class Moments:
    """Mean and covariance of a set of features.

    Attributes:
        mean: float64 (d,).
        root: float64 (k, d), k at most d and the number of samples; rootᵀ root is the unbiased
            covariance.
    """

    mean: np.ndarray
    root: np.ndarray

    @property
    def variance(self) -> float:
        """The trace of the covariance."""
        return float(np.square(self.root).sum())


def moments(features: np.ndarray) -> Moments:
    """Return the moments of float features (N, d), N at least 2."""
    mean = features.mean(axis=0, dtype=np.float64)
    root = np.empty((0, features.shape[1]))
    for start in range(0, len(features), BLOCK):
        block = features[start : start + BLOCK] - mean
        stacked = np.concatenate([root, block])
        root = scipy.linalg.qr(stacked, mode="r", overwrite_a=True, check_finite=False)[0]
        root = root[: features.shape[1]]
    return Moments(mean, root / np.sqrt(len(features) - 1))


def frechet_distance(real: Moments, fake: Moments) -> float:
    """Return the Fréchet distance, at least 0 up to rounding."""
    shift = float(np.square(real.mean - fake.mean).sum())
    product = np.asarray(scipy.linalg.svdvals(real.root @ fake.root.T, check_finite=False))
    return shift + real.variance + fake.variance - 2 * float(product.sum())


class FrechetReference:
    """Reals to measure many sets of fakes against; their moments are computed once."""

    def __init__(self, real: np.ndarray) -> None:
        """Take float features (N, d)."""
        check_pair(real, real)
        self._real, self._moments = real, moments(real)

    def distance(self, fake: np.ndarray) -> float:
        """Return the distance to float features (M, d).

        Raises:
            ProbeError: different width, fewer than two rows, or values that are not finite.
        """
        check_pair(self._real, fake)
        return frechet_distance(self._moments, moments(fake))


METRIC = Metric(
    values=("frechet",),
    # A negative value is rounding.
    compute=lambda real, fake, seed: {"frechet": max(0.0, FrechetReference(real).distance(fake))},
    columns={"Fréchet": lambda values: number(values["frechet"], ".4g")},
)
