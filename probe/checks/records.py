"""The fields of a training run's files that readers rely on. Imports no torch."""

import math
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, FiniteFloat

from probe.stored import Text


@dataclass(frozen=True)
class CheckedReals:
    """The source of a run's images."""

    path: Text


@dataclass(frozen=True)
class CheckedOptions:
    """The fields read from training_options.json."""

    real: CheckedReals


@dataclass(frozen=True)
class CheckedProgress:
    """The fields read from progress.json."""

    kimg: FiniteFloat
    total_kimg: FiniteFloat
    finished: bool


@dataclass(frozen=True)
class Statistic:
    """One statistic in a line of stats.jsonl."""

    mean: FiniteFloat


# A line of stats.jsonl: statistics, and plain numbers such as "kimg".
Stats = dict[str, Statistic | FiniteFloat]


@dataclass(frozen=True)
class CheckedAccuracies:
    """A line of metric-accuracy.jsonl: "Accuracy/<discriminator>/<kind of images>" → share."""

    results: dict[
        Annotated[str, Field(pattern="^Accuracy/[^/]+/(train|holdout|fake)$")], FiniteFloat
    ]


@dataclass(frozen=True)
class CheckedDistance:
    """A line of another metric's file; the interval's ends are NaN if there are too few images."""

    kimg: FiniteFloat
    metric: str
    results: dict[str, float]

    @property
    def value(self) -> float:
        """The metric's value, NaN if the line lacks it."""
        return self.results.get(self.metric, math.nan)


@dataclass(frozen=True)
class CheckedSelection:
    """The fields read from selection-stage*.json."""

    stage: int
    added: list[str]
