"""A training run as it stands, read from its directory."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

from probe.checks.records import CheckedDistance, CheckedProgress, CheckedSelection
from probe.errors import ProbeError
from probe.files import near_path
from probe.run_files import OPTIONS_FILE, PROGRESS_FILE, SELECTIONS, metric_file
from probe.shown import Shown
from probe.stored import read_lines, read_record

if TYPE_CHECKING:
    import pandas as pd


class Run(Shown):
    """A training run as it stood when this was made; make another one to see it later.

    Args:
        folder: the run directory of `probe train`.

    Attributes:
        folder: the same.
        kimg, total_kimg: thousands of images shown so far and in all; 0 before the first state.
        finished: whether it has ended.
        metrics: kimg of each snapshot → name of a metric → value; NaN if it has none.
        added: stage → names of the backbones that joined.

    Raises:
        ProbeError: it is not a run directory, or a file in it is damaged.
    """

    as_text = "probe.reports.run_table:as_table"
    as_html = "probe.reports.run_table:as_html"

    def __init__(self, folder: Path | str) -> None:
        self.folder = folder = Path(folder)
        if not (folder / OPTIONS_FILE).is_file():
            near = "" if folder.exists() else near_path(folder)
            raise ProbeError(f"{folder} is not a run directory of `probe train`.{near}")
        again = f"Its command, or probe train … --resume {folder}, writes it again."
        self.kimg = self.total_kimg = 0.0
        self.finished = False
        if (folder / PROGRESS_FILE).exists():
            progress = read_record(folder / PROGRESS_FILE, CheckedProgress, again)
            self.kimg, self.total_kimg = progress.kimg, progress.total_kimg
            self.finished = progress.finished
        self.metrics: dict[float, dict[str, float]] = {}
        for path in sorted(folder.glob(metric_file("*-*"))):
            for line in read_lines(path, CheckedDistance):
                self.metrics.setdefault(line.kimg, {})[line.metric] = line.value
        choices = [read_record(p, CheckedSelection, again) for p in sorted(folder.glob(SELECTIONS))]
        self.added = {choice.stage: list(choice.added) for choice in choices}

    @property
    def best(self) -> float | None:
        """The kimg of the snapshot with the least Fréchet distance, None if none was measured."""
        found = {
            kimg: value
            for kimg, values in self.metrics.items()
            for name, value in values.items()
            if name.startswith("frechet-") and math.isfinite(value)
        }
        return min(found, key=lambda kimg: found[kimg], default=None)

    def to_frame(self) -> "pd.DataFrame":
        """Return one row per snapshot that was measured, its columns the metrics."""
        import pandas as pd

        return pd.DataFrame.from_dict(self.metrics, orient="index").rename_axis("kimg").sort_index()
