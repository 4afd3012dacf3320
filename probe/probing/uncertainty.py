"""Uncertainty: bootstrap over images, the same resamples for every backbone."""

from dataclasses import dataclass

import numpy as np

from probe.probing.units import strata
from probe.streams import numpy_stream

RESAMPLES = 2000
CHUNK_BYTES = 64 * 2**20
LEVEL = (0.025, 0.975)


@dataclass(frozen=True)
class Bootstrap:
    """Scores under resampling; intervals are 95 % percentile intervals, nats.

    They say how a score would move with other images from the same two sources. They do not hold
    the variation of refitting the probe.

    Attributes:
        scores: float64 (resamples, B): the score of every backbone under every resample.
    """

    scores: np.ndarray

    def interval(self, i: int) -> tuple[float, float]:
        """Return the interval of backbone i's score."""
        low, high = np.quantile(self.scores[:, i], LEVEL)
        return float(low), float(high)

    def gap(self, i: int, other: int) -> tuple[float, float]:
        """Return the interval of backbone i's score minus the other's, on the same images."""
        low, high = np.quantile(self.scores[:, i] - self.scores[:, other], LEVEL)
        return float(low), float(high)

    def best(self, contenders: np.ndarray) -> np.ndarray:
        """Return each backbone's share of resamples in which no contender scores higher.

        Args:
            contenders: bool (B,), at least one True; the others get 0.

        Returns:
            float64 (B,), sum 1: exact ties share a resample evenly.
        """
        able = np.where(contenders, self.scores, -np.inf)
        top = able == able.max(axis=1, keepdims=True)
        return (top / top.sum(axis=1, keepdims=True)).mean(axis=0)


def bootstrap(
    image_scores: np.ndarray,
    is_real: np.ndarray,
    *,
    seed: int,
    weights: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    resamples: int = RESAMPLES,
) -> Bootstrap:
    """Resample images with replacement within each class, copies of one image together.

    A pure function of its arguments; the resamples depend on `is_real`, `groups`, `seed` and
    `resamples` alone. Memory: 64 MiB of counts at a time.

    Args:
        image_scores: float64 (B, images): held-out log-probabilities, nats; no NaN where the
            weight is positive.
        is_real: bool (images,), both classes present.
        seed: of the resamples.
        weights: (images,), not negative: how much each image counts in a score; all the same
            unless given. An image held out by no split has weight 0.
        groups: int (images,), the same for copies of one image; no copies by default.
        resamples: how many.
    """
    images = image_scores.shape[1]
    weights = np.ones(images) if weights is None else np.asarray(weights, dtype=np.float64)
    # One product gives all sums: a column per backbone, and the weights themselves.
    weighted = np.where(weights > 0, image_scores, 0.0) * weights
    unit, parts = strata(~is_real, np.arange(images) if groups is None else groups)
    units = int(unit.max()) + 1
    columns = np.stack([np.bincount(unit, weights=row) for row in (*weighted, weights)]).T
    rng = numpy_stream(seed, "bootstrap")
    block = max(1, CHUNK_BYTES // (8 * units))
    drawn = []
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        counts = np.empty((rows, units))
        for row in counts:
            for members in parts:
                picks = rng.integers(len(members), size=len(members))
                row[members] = np.bincount(picks, minlength=len(members))
        drawn.append(counts @ columns)
    sums = np.concatenate(drawn)
    with np.errstate(invalid="ignore", divide="ignore"):
        return Bootstrap(sums[:, :-1] / sums[:, -1:])
