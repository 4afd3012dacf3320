"""Metrics: distances between two sets of features, one file and one line of `METRICS` each.

Feature tables (N, d) of real and generated images come in, numbers with their uncertainty go out.
Read first: `frechet`, then `kernel`, `prdc`; none of them knows where features come from. `measure`
does: two image sources and a bank in, a `Measurement` out. No numpy here.
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
        values: what its numbers are called in every output.
        compute: (real (N, d), generated (M, d), seed) → its numbers by those names.
        columns: of the table for people: heading → the cell, made of all numbers of a row.
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
    """Return a number for a table; nothing if there is none."""
    return "" if value is None else format(value, form)
