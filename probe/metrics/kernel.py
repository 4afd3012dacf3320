"""Kernel distance: unbiased squared maximum mean discrepancy (Bińkowski et al. 2018).

The kernel is (x·y / d + 1)³. Unlike the Fréchet distance, its expectation does not depend on the
number of samples. Identical distributions give 0 on average, and a negative value half of the time.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from probe.metrics import Metric, Values
from probe.metrics.tables import check_pair
from probe.streams import numpy_stream

MOST = 5000  # samples per set; the cost is quadratic
GROUPS = 20  # in the jackknife
LEAST_FOR_INTERVAL = 2 * GROUPS


@dataclass(frozen=True)
class KernelDistance:
    """A kernel distance with its uncertainty.

    Attributes:
        value: the unbiased estimate.
        low, high: 95 % interval, from a jackknife that leaves out one of 20 groups of images of
            both sets at a time. It covers the variation of images, not of retraining. NaN for
            fewer than 40 images in a set.
    """

    value: float
    low: float
    high: float


def kernel_distance(real: np.ndarray, fake: np.ndarray, *, seed: int) -> KernelDistance:
    """Return the kernel distance of two feature tables.

    Args:
        real: float (N, d); a random 5 000 are used if there are more.
        fake: float (M, d); likewise.
        seed: of the random choice and the groups.

    Raises:
        ProbeError: different widths, fewer than two rows, or values that are not finite.
    """
    check_pair(real, fake)
    return _distance(real[_chosen(len(real), "real", seed)], fake[_chosen(len(fake), "fake", seed)])


def _chosen(count: int, kind: str, seed: int) -> list[int]:
    """Return which images of a set are used, in the order in which they are grouped."""
    return numpy_stream(seed, "kernel", kind).permutation(count)[:MOST].tolist()


def _distance(real: np.ndarray, fake: np.ndarray) -> KernelDistance:
    """Return the kernel distance of two tables with at most `MOST` rows in a random order."""
    x, y = real.astype(np.float64), fake.astype(np.float64)
    groups = GROUPS if min(len(x), len(y)) >= LEAST_FOR_INTERVAL else 1
    sums = {
        "xx": _group_sums(x, x, groups, without_diagonal=True),
        "yy": _group_sums(y, y, groups, without_diagonal=True),
        "xy": _group_sums(x, y, groups, without_diagonal=False),
    }
    sizes_x, sizes_y = (np.array([len(g) for g in np.array_split(t, groups)]) for t in (x, y))
    value = _estimate(sums, sizes_x, sizes_y, np.ones(groups, dtype=bool))
    if groups == 1:
        return KernelDistance(value, float("nan"), float("nan"))
    left_out = np.array(
        [_estimate(sums, sizes_x, sizes_y, np.arange(groups) != g) for g in range(groups)]
    )
    spread = (groups - 1) / groups * np.square(left_out - left_out.mean()).sum()
    reach = float(stdtrit(groups - 1, 0.975) * np.sqrt(spread))
    return KernelDistance(value, value - reach, value + reach)


def _group_sums(a: np.ndarray, b: np.ndarray, groups: int, *, without_diagonal: bool) -> np.ndarray:
    """Return the sums of the kernel over pairs of groups, (groups, groups)."""
    sums = np.empty((groups, groups))
    parts_a, parts_b = np.array_split(a, groups), np.array_split(b, groups)
    for i, part_a in enumerate(parts_a):
        for j, part_b in enumerate(parts_b):
            kernel = (part_a @ part_b.T / a.shape[1] + 1) ** 3
            sums[i, j] = kernel.sum()
            if without_diagonal and i == j:
                sums[i, j] -= np.trace(kernel)
    return sums


def _estimate(
    sums: dict[str, np.ndarray], sizes_x: np.ndarray, sizes_y: np.ndarray, kept: np.ndarray
) -> float:
    """Return the unbiased estimate from the kept groups."""
    n, m = int(sizes_x[kept].sum()), int(sizes_y[kept].sum())
    pairs = np.ix_(kept, kept)
    within_x = sums["xx"][pairs].sum() / (n * (n - 1))
    within_y = sums["yy"][pairs].sum() / (m * (m - 1))
    return float(within_x + within_y - 2 * sums["xy"][pairs].sum() / (n * m))


def _compute(real: np.ndarray, fake: np.ndarray, seed: int) -> dict[str, float]:
    check_pair(real, fake)
    found = _distance(real, fake)
    return {"kernel": found.value, "kernel_low": found.low, "kernel_high": found.high}


def _cell(values: Values) -> str:
    value, low, high = (values[name] for name in METRIC.values)
    if value is None:
        return ""
    if low is None or high is None:
        return f"{1000 * value:.3f}"
    return f"{1000 * value:.3f} [{1000 * low:.3f}, {1000 * high:.3f}]"


METRIC = Metric(
    values=("kernel", "kernel_low", "kernel_high"),
    compute=_compute,
    columns={"kernel x 1000 [95 %]": _cell},
    sample=_chosen,
)
