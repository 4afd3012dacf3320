"""Ratios and rank correlations with their uncertainty."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from probe.metrics.frechet import FrechetReference

GROUPS = 20  # of the jackknife, as of the product's kernel distance
MOST_EXACT = 8  # points up to which all permutations are tried


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval; the ends are None where there is too little to say.

    Attributes:
        value: the estimate.
        low, high: the interval.
        n: how many observations are behind it.
    """

    value: float
    low: float | None
    high: float | None
    n: int


def mean_interval(values: Sequence[float], *, geometric: bool = False) -> Interval:
    """Return the mean and its t-interval; of logarithms under `geometric`."""
    x = np.log(values) if geometric else np.asarray(values, dtype=float)
    back = math.exp if geometric else float
    mean = float(x.mean())
    if len(x) < 2:
        return Interval(back(mean), None, None, len(x))
    reach = float(stats.t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / math.sqrt(len(x)))
    return Interval(back(mean), back(mean - reach), back(mean + reach), len(x))


def image_interval(
    reals: np.ndarray, base: np.ndarray, other: np.ndarray, *, groups: int = GROUPS
) -> Interval:
    """Return how many times the Fréchet distance of `base` is that of `other`, of two runs.

    The interval is a jackknife that leaves out one group of images of all three tables at a time.
    It holds the variation of images, not that of training again.

    Args:
        reals: features (N, d).
        base: features of one generator's samples (M, d).
        other: those of the other's, of the same latents.
        groups: how many.
    """

    def log_ratio(keep: int | None) -> float:
        x, a, b = (
            table if keep is None else table[np.arange(len(table)) % groups != keep]
            for table in (reals, base, other)
        )
        reference = FrechetReference(x)
        return math.log(reference.distance(a) / reference.distance(b))

    whole = log_ratio(None)
    left_out = np.array([log_ratio(g) for g in range(groups)])
    spread = math.sqrt((groups - 1) / groups * np.square(left_out - left_out.mean()).sum())
    reach = float(stats.t.ppf(0.975, groups - 1)) * spread
    return Interval(math.exp(whole), math.exp(whole - reach), math.exp(whole + reach), len(base))


@dataclass(frozen=True)
class Correlation:
    """A rank correlation.

    Attributes:
        rho: Spearman's.
        low, high: 95 % interval by Fisher's z with the variance of Bonett and Wright (2000);
            None for fewer than 4 points.
        p: two-sided, of all permutations (up to 8 points; else of 20 000 random ones).
        n: points.
    """

    rho: float
    low: float | None
    high: float | None
    p: float
    n: int


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> Correlation | None:
    """Return Spearman's rank correlation; None for fewer than 3 points or a constant."""
    n = len(x)
    if n < 3 or len(set(x)) == 1 or len(set(y)) == 1:
        return None
    a, b = stats.rankdata(x), stats.rankdata(y)
    a, b = a - a.mean(), b - b.mean()
    scale = math.sqrt(float((a @ a) * (b @ b)))
    rho = max(-1.0, min(1.0, float(a @ b) / scale))
    if n <= MOST_EXACT:
        orders = np.array(list(itertools.permutations(range(n))))
    else:
        rng = np.random.default_rng(0)
        orders = np.array([np.arange(n), *(rng.permutation(n) for _ in range(20_000))])
    found = b[orders] @ a / scale
    p = float((np.abs(found) >= abs(rho) - 1e-9).mean())
    low = high = None
    if n > 3:
        # Points in perfect order have z infinite: half a step back from it.
        most = 1 - 6 / (n * (n**2 - 1))
        z = math.atanh(max(-most, min(most, rho)))
        reach = 1.96 * math.sqrt((1 + rho**2 / 2) / (n - 3))
        low, high = min(rho, math.tanh(z - reach)), max(rho, math.tanh(z + reach))
    return Correlation(rho, low, high, p, n)
