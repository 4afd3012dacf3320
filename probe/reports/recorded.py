"""What a training run has written so far, as its pages read it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, FiniteFloat

from probe.checks.records import (
    CheckedAccuracies,
    CheckedDistance,
    CheckedProgress,
    CheckedReals,
    CheckedSelection,
    Statistic,
    Stats,
)
from probe.probing.leaderboard import StoredLeaderboard
from probe.run_files import (
    ACCURACY_FILE,
    OPTIONS_FILE,
    PROBES_FILE,
    PROGRESS_FILE,
    SELECTIONS,
    STATS_FILE,
    metric_file,
    metric_name,
)
from probe.stored import read_lines, read_record

OWN = "D"  # the GAN's own discriminator
KINDS = {"train": "training images", "holdout": "held-out images", "fake": "generated images"}


# Fields that the pages read beyond the ones in `probe.checks.records`.
@dataclass(frozen=True)
class RecordedReals(CheckedReals):
    """The training images."""

    training: int


@dataclass(frozen=True)
class Chosen:
    """The options of the run."""

    strategy: str


@dataclass(frozen=True)
class RecordedOptions:
    """training_options.json."""

    real: RecordedReals
    options: Chosen
    resolution: int
    stage_ends_kimg: Annotated[list[FiniteFloat], Field(min_length=1)]


@dataclass(frozen=True)
class RecordedProgress(CheckedProgress):
    """progress.json."""

    discriminators: list[str]


@dataclass(frozen=True)
class RecordedAccuracies(CheckedAccuracies):
    """A line of metric-accuracy.jsonl."""

    kimg: FiniteFloat


@dataclass(frozen=True)
class RecordedDistance(CheckedDistance):
    """A line of another metric's file."""

    snapshot: str


@dataclass(frozen=True)
class RecordedProbes:
    """A line of probes.jsonl."""

    kimg: FiniteFloat
    scores: dict[str, FiniteFloat]


@dataclass(frozen=True)
class RecordedSelection(CheckedSelection):
    """selection-stage*.json."""

    strategy: str
    snapshot: str
    in_use: list[str]
    leaderboard: StoredLeaderboard
    joint: StoredLeaderboard | None


@dataclass(frozen=True)
class Recorded:
    """The records of a run.

    Attributes:
        folder: the run directory.
        options: what the pages need of its options.
        whole: everything in training_options.json.
        progress: None before the first state.
        selections: by stage.
        metrics: name, such as "frechet-dino" → its values, in the order of the snapshots.
        accuracies: of the discriminators, likewise.
        probes: scores of the bank, likewise.
        stats: a line per tick.
    """

    folder: Path
    options: RecordedOptions
    whole: Mapping[str, Any]
    progress: RecordedProgress | None
    selections: Sequence[RecordedSelection]
    metrics: Mapping[str, Sequence[RecordedDistance]]
    accuracies: Sequence[RecordedAccuracies]
    probes: Sequence[RecordedProbes]
    stats: Sequence[Stats]

    @property
    def is_trained(self) -> bool:
        """Whether no step is left; the page is written before the run is marked as finished."""
        return self.progress is not None and self.progress.kimg >= self.progress.total_kimg

    @property
    def joins(self) -> list[tuple[float, RecordedSelection]]:
        """When each selection took place, in kimg, by the log or else by the schedule."""
        began: dict[int, float] = {}
        before = 0.0
        for line in self.stats:
            stage = line.get("Progress/stage")
            if isinstance(stage, Statistic):
                began.setdefault(int(stage.mean), before)
            before = kimg_of_line(line)
        ends = self.options.stage_ends_kimg
        planned = dict(enumerate(ends, start=1))
        return [(began.get(s.stage, planned.get(s.stage, ends[-1])), s) for s in self.selections]

    @property
    def evaluators(self) -> list[str]:
        """The backbones in whose features distances were measured."""
        names = [name.partition("-") for name in self.metrics]
        return [judge for kind, _, judge in names if kind == "frechet" and judge]

    @property
    def best(self) -> tuple[RecordedDistance, RecordedDistance] | None:
        """The least and the last Fréchet distance, None if there is none."""
        for judge in self.evaluators:
            lines = [e for e in self.metrics[f"frechet-{judge}"] if math.isfinite(e.value)]
            if lines:
                return min(lines, key=lambda line: line.value), lines[-1]
        return None

    def members(self, kimg: float) -> list[str]:
        """Return the backbones in use after so many kimg."""
        return [name for at, choice in self.joins if at < kimg for name in choice.added]

    def metric(self, name: str) -> np.ndarray:
        """Return the finite values of a metric over time, float64 (n, 2): kimg, value."""
        found = [(line.kimg, line.value) for line in self.metrics.get(name, ())]
        points = np.array(found).reshape(-1, 2)
        return points[np.isfinite(points[:, 1])]

    def statistics(self, prefix: str) -> dict[str, np.ndarray]:
        """Return the statistics whose names begin with a prefix: discriminator → (n, 2).

        Args:
            prefix: what remains of a name names the discriminator; nothing, or "loss", is `OWN`.
        """
        found: dict[str, list[tuple[float, float]]] = {}
        for line in self.stats:
            for name, value in line.items():
                if name.startswith(prefix) and isinstance(value, Statistic):
                    found.setdefault(name, []).append((kimg_of_line(line), value.mean))
        return {
            name.removeprefix(prefix).strip("/").removesuffix("loss") or OWN: np.array(found[name])
            for name in sorted(found)
        }

    def accuracy(self) -> dict[str, dict[str, np.ndarray]]:
        """Return discriminator → kind of images → its accuracy over time, (n, 2)."""
        found: dict[str, dict[str, list[tuple[float, float]]]] = {}
        for line in self.accuracies:
            for key, value in line.results.items():
                _, name, kind = key.split("/")
                found.setdefault(name, {}).setdefault(kind, []).append((line.kimg, value))
        return {
            name: {kind: np.array(points) for kind, points in kinds.items()}
            for name, kinds in found.items()
        }


def read_run(folder: Path) -> Recorded:
    """Read a training run, finished or not.

    Args:
        folder: the run directory.

    Raises:
        ProbeError: a file in it is damaged; it names the file.
    """
    again = f"Continue the run, which writes it anew: probe train … --resume {folder}"
    path, progress = folder / OPTIONS_FILE, None
    if (folder / PROGRESS_FILE).exists():
        progress = read_record(folder / PROGRESS_FILE, RecordedProgress, again)
    return Recorded(
        folder=folder,
        options=read_record(path, RecordedOptions, again),
        whole=read_record(path, dict[str, Any], again),
        progress=progress,
        selections=[
            read_record(path, RecordedSelection, "Move it away to see the rest.")
            for path in sorted(folder.glob(SELECTIONS))
        ],
        metrics={
            metric_name(path.name): read_lines(path, RecordedDistance)
            for path in sorted(folder.glob(metric_file("*")))
            if path.name != ACCURACY_FILE
        },
        accuracies=read_lines(folder / ACCURACY_FILE, RecordedAccuracies),
        probes=read_lines(folder / PROBES_FILE, RecordedProbes),
        stats=[line for line in read_lines(folder / STATS_FILE, Stats) if "kimg" in line],
    )


def kimg_of_line(line: Stats) -> float:
    """Return the kimg of a line of stats.jsonl."""
    value = line["kimg"]
    return value.mean if isinstance(value, Statistic) else value
