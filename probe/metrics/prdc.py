"""Fidelity and diversity from nearest neighbours: precision, recall, density, coverage.

Each set's support is the union of balls around its samples; a ball's radius is the distance to the
sample's k-th nearest neighbour in the same set. Precision and recall: Kynkäänniemi et al. 2019,
equation 2; density and coverage: Naeem et al. 2020, equations 3 and 4.

The surface of a ball matters only if there are copies: a copy of the k-th neighbour lies on it.
Density excludes the surface, as its authors' program does, so that copies of the reals have density
1. The other three include it, as the formula of precision and recall does.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields

import numpy as np

from probe.errors import ProbeError
from probe.metrics import Metric, Values, number
from probe.metrics.tables import check_pair

K = 5  # Naeem et al. 2020, section 4
BLOCK = 1024  # rows whose distances to all others are in memory at a time
# Squared distances are differences of squares. If one is closer to a ball's surface than this share
# of those squares, rounding would decide the side.
ROUNDING = 1e-12


@dataclass(frozen=True)
class Neighbourhoods:
    """How well two sets cover each other.

    Attributes:
        precision: share of fakes in the support of the reals.
        recall: share of reals in the support of the fakes.
        density: mean number of balls of reals that contain a fake, divided by k; 1 is expected for
            equal distributions, and it can exceed 1. Unlike in precision, a real outlier adds
            little.
        coverage: share of reals whose ball contains a fake. Unlike in recall, a fake outlier adds
            nothing.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def neighbourhoods(real: np.ndarray, fake: np.ndarray, *, k: int = K) -> Neighbourhoods:
    """Return precision, recall, density and coverage of two feature tables.

    All four depend on the numbers of samples: only compare values at equal numbers.

    Args:
        real: float (N, d), N above k.
        fake: float (M, d), M above k.
        k: rank of the neighbour that gives a ball's radius; the sample itself is not counted.

    Raises:
        ProbeError: different widths, too few rows for k, or values that are not finite.
    """
    check_pair(real, fake)
    if k < 1 or min(len(real), len(fake)) <= k:
        raise ProbeError(
            f"Precision and recall at k = {k} need k of at least 1 and more images than k in each "
            f"set; there are {len(real)} real and {len(fake)} generated ones."
        )
    # All distances are squared. Centre first, since they are differences of large squares.
    centre = real.mean(axis=0, dtype=np.float64)
    x, y = real - centre, fake - centre
    (inner_x, outer_x), (_, outer_y) = _balls(x, k), _balls(y, k)
    balls = np.zeros(len(y), dtype=np.int64)  # balls of reals that contain each fake
    precise = np.zeros(len(y), dtype=bool)
    recalled = np.zeros(len(x), dtype=bool)
    covered = np.zeros(len(x), dtype=bool)
    for start in range(0, len(x), BLOCK):
        part = slice(start, start + BLOCK)
        squares = _squares(x[part], y)
        balls += (squares < inner_x[part, None]).sum(axis=0)
        in_real = squares <= outer_x[part, None]
        precise |= in_real.any(axis=0)
        covered[part] = in_real.any(axis=1)
        recalled[part] = (squares <= outer_y[None, :]).any(axis=1)
    return Neighbourhoods(
        precision=float(precise.mean()),
        recall=float(recalled.mean()),
        density=float(balls.mean() / k),
        coverage=float(covered.mean()),
    )


def _squares(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the squared distances between all pairs of rows, (len(a), len(b))."""
    found = np.square(a).sum(axis=1)[:, None] + np.square(b).sum(axis=1) - 2 * (a @ b.T)
    return np.maximum(found, 0, out=found)


def _balls(x: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return each row's squared radius, (N,), first excluding and then including the surface."""
    reaches = _reaches(x, k)
    surface = ROUNDING * (np.square(x).sum(axis=1) + reaches)
    return reaches - surface, reaches + surface


def _reaches(x: np.ndarray, k: int) -> np.ndarray:
    """Return each row's squared distance to its k-th nearest other row, (N,)."""
    reaches = np.empty(len(x))
    for start in range(0, len(x), BLOCK):
        squares = _squares(x[start : start + BLOCK], x)
        rows = np.arange(len(squares))
        squares[rows, start + rows] = np.inf  # itself
        reaches[start : start + BLOCK] = np.partition(squares, k - 1, axis=1)[:, k - 1]
    return reaches


def _cell(name: str) -> Callable[[Values], str]:
    return lambda values: number(values[name], ".3f")


NAMES = tuple(field.name for field in fields(Neighbourhoods))
METRIC = Metric(
    values=NAMES,
    compute=lambda real, fake, seed: asdict(neighbourhoods(real, fake)),
    columns={name: _cell(name) for name in NAMES},
)
