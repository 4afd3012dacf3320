"""The files of a run that grow as it goes: statistics and metrics. A tracker gets a copy.

The formats are those that tools for the StyleGAN family parse: `stats.jsonl` has one object per
tick, name → {num, mean, std}; a metric's file has one object per snapshot.
"""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from probe.files import write_text
from probe.probing.leaderboard import Leaderboard
from probe.run_files import PROBES_FILE, STATS_FILE, metric_file
from probe.stored import read_lines
from probe.training.tracking import Tracker

SHOWN = ("rank", "name", "role", "score", "score_low", "score_high", "accuracy")  # of a leaderboard


def _is_beyond(line: Mapping[str, Any], images: int | None) -> bool:
    """Return whether a line is about later images; False if it does not say."""
    kimg = line.get("kimg")
    return isinstance(kimg, int | float) and (images is None or kimg > images / 1000)


def summarise(stats: Mapping[str, Sequence[torch.Tensor]]) -> dict[str, dict[str, float]]:
    """Return {num, mean, std} of each statistic, given as scalars on the device."""
    record = {}
    for name, values in stats.items():
        v = torch.stack(list(values)).double()
        record[name] = {
            "num": len(v),
            "mean": float(v.mean()),
            "std": float(v.std(correction=0)),
        }
    return record


class RunRecords:
    """Appends records to a run directory.

    Lines written after the state being resumed are dropped, since they will be written again. So
    are lines cut short by a kill.

    Args:
        folder: the run directory.
        images: images seen in the state being resumed; None for a new run.
        snapped: images seen at that state's last snapshot; None for a new run.
        tracker: gets a copy of everything; None if there is none.
    """

    def __init__(
        self,
        folder: Path,
        images: int | None,
        snapped: int | None,
        tracker: Tracker | None = None,
    ) -> None:
        self.folder, self._tracker = folder, tracker
        of_snapshots = (folder / PROBES_FILE, *folder.glob(metric_file("*")))
        for path, last in ((folder / STATS_FILE, images), *((p, snapped) for p in of_snapshots)):
            if path.exists():
                lines = [
                    line for line in read_lines(path, dict[str, Any]) if not _is_beyond(line, last)
                ]
                write_text(path, "".join(json.dumps(line) + "\n" for line in lines))

    def stats(self, images: int, record: Mapping[str, Mapping[str, float]]) -> None:
        """Append one tick's statistics."""
        kimg = images / 1000
        self._append(STATS_FILE, {**record, "kimg": kimg})
        self._draw(images, {name: value["mean"] for name, value in record.items()})

    def metric(
        self, name: str, images: int, results: Mapping[str, float], snapshot: str, seconds: float
    ) -> None:
        """Append one snapshot's metric to its own file."""
        record = {
            "results": dict(results),
            "metric": name,
            "total_time": seconds,
            "snapshot": snapshot,
            "snapshot_pkl": snapshot,  # the key that other tools expect
            "kimg": images / 1000,
        }
        self._append(metric_file(name), record)
        self._draw(images, {f"Metrics/{key}": value for key, value in results.items()})

    def probes(self, images: int, snapshot: str, scores: Mapping[str, float]) -> None:
        """Append the probe scores of the bank at one snapshot."""
        self._append(
            PROBES_FILE, {"kimg": images / 1000, "snapshot": snapshot, "scores": dict(scores)}
        )
        self._draw(images, {f"Probe/{name}": score for name, score in scores.items()})

    def samples(self, images: int, path: Path) -> None:
        """Pass on a grid of generated images."""
        if self._tracker is not None:
            self._tracker.picture(images, "Samples", path)

    def leaderboard(self, images: int, stage: int, board: Leaderboard) -> None:
        """Pass on the leaderboard that decided which backbones join at the start of a stage."""
        if self._tracker is not None:
            rows = [[getattr(r, key) for key in SHOWN] for r in board.rows if r.status == "ok"]
            self._tracker.table(images, f"Leaderboard/stage{stage}", SHOWN, rows)

    def close(self) -> None:
        """Close the tracker."""
        if self._tracker is not None:
            self._tracker.close()

    def _append(self, name: str, record: Mapping[str, Any]) -> None:
        with (self.folder / name).open("a", encoding="utf-8") as f:
            f.write(json.dumps({**record, "timestamp": time.time()}) + "\n")

    def _draw(self, images: int, values: Mapping[str, float]) -> None:
        if self._tracker is not None:
            self._tracker.scalars(images, values)
