"""Write the HTML page of a run."""

from pathlib import Path

from probe.reports.report import write_report


def report(run: Path | str, *, out: Path | str | None = None) -> Path:
    """Write the page of a ranking or a training run: one HTML file that opens offline.

    Args:
        run: the folder passed to `rank` as `out`, or a training run's directory.
        out: the file to write; default report.html in the run's folder.

    Returns:
        The page's path.

    Raises:
        ProbeError: the folder holds no run, or its files are damaged.
    """
    return write_report(Path(run), None if out is None else Path(out))
