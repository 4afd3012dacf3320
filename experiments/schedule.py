"""How long runs take, what fits into a number of minutes, and when to stop."""

import heapq
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from execute import finished_training, run_folder
from plan import Run, Study, read_json
from warmup import shared_warmups

from probe.run_files import PROGRESS_FILE, STATS_FILE

START = 25.0  # seconds for a process to import, open its images and rank


@dataclass(frozen=True)
class Limit:
    """When running processes are stopped, and how long those that wait would take.

    Attributes:
        end: on `time.monotonic`.
        seconds: name → about how long; a process that would not end in time is not started.
    """

    end: float
    seconds: Mapping[str, float]

    def allows(self, name: str) -> bool:
        """Return whether a process that is started now ends in time."""
        return time.monotonic() + self.seconds.get(name, 0.0) <= self.end

    @property
    def over(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() >= self.end


@dataclass(frozen=True)
class Planned:
    """A training in a plan; times are in seconds from the beginning."""

    name: str
    start: float
    end: float


def kimg_done(out: Path, run: Run) -> float:
    """Return how far a run has been trained, in thousands of images."""
    found = [read_json(p) for p in (run_folder(out, run) / "train").glob(f"*/{PROGRESS_FILE}")]
    return max((record["kimg"] for record in found if record), default=0.0)


def seconds_left(study: Study, run: Run, out: Path, pace: float) -> float:
    """Return about how long the training of a run still takes.

    Args:
        study: the configuration.
        run: one of its runs, or a warm-up.
        out: folder of the runs.
        pace: seconds per thousand images, at as many runs at a time as there will be.
    """
    shared = study.warmup_of(run)
    return START + (run.kimg - max(kimg_done(out, run), shared.kimg if shared else 0.0)) * pace


def measured_pace(out: Path) -> float | None:
    """Return the mean seconds per thousand images at the runs' last ticks, None without any."""
    found = []
    for path in sorted(out.glob(f"runs/*/train/*/{STATS_FILE}")):
        lines = path.read_text("utf-8").splitlines()
        if lines:
            found.append(json.loads(lines[-1])["Timing/sec_per_kimg"]["mean"])
    return sum(found) / len(found) if found else None


def parts(study: Study, runs: Sequence[Run], out: Path) -> tuple[list[Run], list[Run]]:
    """Return the warm-ups and the runs that are not trained yet; the warm-ups come first."""
    untrained = [run for run in runs if finished_training(out, study, run) is None]
    warmups = shared_warmups(study, untrained)
    return [w for w in warmups if finished_training(out, study, w) is None], untrained


def plan(study: Study, runs: Sequence[Run], out: Path, *, jobs: int, pace: float) -> list[Planned]:
    """Return when each training would start and end, `jobs` at a time, without a limit."""
    found, begin = [], 0.0
    for part in parts(study, runs, out):
        free = [begin] * jobs
        for run in part:
            start = heapq.heappop(free)
            end = start + seconds_left(study, run, out, pace)
            heapq.heappush(free, end)
            found.append(Planned(run.name, start, end))
        begin = max(free)
    return found
