"""Write the HTML page of a run, or of several."""

from collections.abc import Sequence
from pathlib import Path

from probe.errors import UsageError
from probe.reports.report import write_comparison, write_report


def report(run: Path | str | Sequence[Path | str], *, out: Path | str | None = None) -> Path:
    """Write the page of a ranking or of training runs: one HTML file that opens offline.

    Args:
        run: the folder passed to `rank` as `out`, or a training run's directory, or a list of
            training runs to compare.
        out: the file to write; default report.html in the run's folder, or comparison.html beside
            the first of several runs.

    Returns:
        The page's path.

    Raises:
        ProbeError: a folder holds no run, its files are damaged, or a ranking is among several.
    """
    folders = [Path(run)] if isinstance(run, str | Path) else [Path(folder) for folder in run]
    if not folders:
        raise UsageError("There is no run to report on: name a folder or more.")
    path = None if out is None else Path(out)
    return write_report(folders[0], path) if len(folders) == 1 else write_comparison(folders, path)
