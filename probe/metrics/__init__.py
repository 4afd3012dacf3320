"""Metrics: distances between two sets of features, one file and one line of `METRICS` each.

Each takes feature tables (N, d) of real and generated images, or their moments, and returns numbers
with their uncertainty. Read first: `frechet`, then `kernel`, `prdc`; none of them knows where
features come from. `measure` does: it takes two image sources and a bank and returns a
`Measurement`. Imports no numpy.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from probe.registry import Place, load

if TYPE_CHECKING:
    from probe.metrics.tables import FeatureSet

Values = Mapping[str, float | None]
SAMPLED = 10_000  # images of each set that a metric sees, unless it says otherwise


def first_images(count: int, kind: str, seed: int) -> Sequence[int]:
    """Return the positions of the first images of a set, which is in a random order."""
    return range(min(count, SAMPLED))


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric.

    Attributes:
        values: names of its numbers in every output.
        compute: (real (N, d), generated (M, d), seed) → its numbers by those names.
        columns: of the printed table: heading → cell, computed from all numbers of a row.
        sample: (number of images, "real" or "fake", seed) → the positions of those that `compute`
            gets; by default the first 10 000. None: `compute` gets the `Moments` of all images, in
            place of their features.
    """

    values: tuple[str, ...]
    compute: Callable[[Any, Any, int], Mapping[str, float]]
    columns: Mapping[str, Callable[[Values], str]]
    sample: Callable[[int, str, int], Sequence[int]] | None = first_images

    def measure(self, real: "FeatureSet", fake: "FeatureSet", seed: int) -> Mapping[str, float]:
        """Return the numbers of two sets; only what `compute` gets is in memory."""
        if self.sample is None:
            return self.compute(real.moments, fake.moments, seed)
        tables = [
            features.rows(self.sample(len(features), kind, seed))
            for features, kind in ((real, "real"), (fake, "fake"))
        ]
        return self.compute(tables[0], tables[1], seed)


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
