"""Metrics: distances between two sets of features, one file and one line of `METRICS` each.

Each takes feature tables (N, d) of real and generated images and returns numbers with their
uncertainty. Read first: `frechet`, then `kernel`, `prdc`; none of them knows where features come
from. `measure` does: it takes two image sources and a bank and returns a `Measurement`. Imports no
numpy.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from probe.registry import Place, load

if TYPE_CHECKING:
    import numpy as np

Values = Mapping[str, float | None]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric.

    Attributes:
        values: names of its numbers in every output.
        compute: (real (N, d), generated (M, d), seed) → its numbers by those names.
        columns: of the printed table: heading → cell, computed from all numbers of a row.
    """

    values: tuple[str, ...]
    compute: "Callable[[np.ndarray, np.ndarray, int], Mapping[str, float]]"
    columns: Mapping[str, Callable[[Values], str]]


METRICS: dict[str, Place[Metric]] = {
    "frechet": "probe.metrics.frechet:METRIC",
    "kernel": "probe.metrics.kernel:METRIC",
    "prdc": "probe.metrics.prdc:METRIC",
}


def all_metrics() -> list[Metric]:
    """Return all metrics, in order."""
    return [load(place) for place in METRICS.values()]


def number(value: float | None, form: str) -> str:
    """Return a number for a table, "" if there is none."""
    return "" if value is None else format(value, form)
