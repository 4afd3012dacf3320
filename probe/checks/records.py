"""The files of a training run, with the shape that those rely on who read them. No torch here."""

import math
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, FiniteFloat

from probe.stored import Text


@dataclass(frozen=True)
class Source:
    """What a run says of its images."""

    path: Text


@dataclass(frozen=True)
class Options:
    """What is read of training_options.json."""

    real: Source


@dataclass(frozen=True)
class Progress:
    """What is read of progress.json."""

    kimg: FiniteFloat
    total_kimg: FiniteFloat
    finished: bool


@dataclass(frozen=True)
class Statistic:
    """One statistic of a line of stats.jsonl."""

    mean: FiniteFloat


# A line of stats.jsonl: statistics, and plain numbers such as "kimg".
Stats = dict[str, Statistic | FiniteFloat]


@dataclass(frozen=True)
class Accuracies:
    """A line of metric-accuracy.jsonl: "Accuracy/<discriminator>/<kind of images>" → share."""

    results: dict[
        Annotated[str, Field(pattern="^Accuracy/[^/]+/(train|holdout|fake)$")], FiniteFloat
    ]


@dataclass(frozen=True)
class Distance:
    """A line of another metric's file; few images have no interval, whose ends are NaN."""

    kimg: FiniteFloat
    metric: str
    results: dict[str, float]

    @property
    def value(self) -> float:
        """The metric itself, NaN where the line lacks it."""
        return self.results.get(self.metric, math.nan)


@dataclass(frozen=True)
class Choice:
    """What is read of selection-stage*.json."""

    stage: int
    added: list[str]
