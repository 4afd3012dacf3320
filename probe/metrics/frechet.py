"""Fréchet distance between Gaussians fitted to two sets of features (Heusel et al. 2017).

    |μ₁ - μ₂|² + tr C₁ + tr C₂ - 2 tr (C₁ C₂)^½

With C = RᵀR, the last trace is the sum of the singular values of R₁ R₂ᵀ. This avoids a matrix
square root: the result is real and never negative beyond rounding, and with fewer samples than
dimensions R has only as many rows as there are samples.
"""

import numpy as np
import scipy.linalg

from probe.features.moments import Moments, moments
from probe.metrics import Metric, number
from probe.metrics.tables import check_moments, check_pair


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


def _compute(real: Moments, fake: Moments, seed: int) -> dict[str, float]:
    check_moments(real, fake)
    return {"frechet": max(0.0, frechet_distance(real, fake))}  # a negative value is rounding


METRIC = Metric(
    values=("frechet",),
    compute=_compute,
    columns={"Fréchet": lambda values: number(values["frechet"], ".4g")},
    sample=None,
)
