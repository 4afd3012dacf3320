"""Choose and write the page for a ranking or a training run."""

from collections.abc import Callable, Mapping
from pathlib import Path

from jinja2 import UndefinedError

from probe.errors import ProbeError, printable
from probe.files import near_path, write_text
from probe.reports.rank_page import rank_page
from probe.reports.train_page import train_page
from probe.run_files import LEADERBOARD_FILE, OPTIONS_FILE, REPORT_FILE

# Raised by values of the right type that no real run would write.
DAMAGED = (ArithmeticError, AttributeError, LookupError, TypeError, UndefinedError, ValueError)
PAGES: Mapping[str, Callable[[Path], str]] = {LEADERBOARD_FILE: rank_page, OPTIONS_FILE: train_page}


def write_report(folder: Path, out: Path | None = None) -> Path:
    """Write the page of a ranking or a training run, atomically.

    Args:
        folder: the output folder of `probe rank --out`, or a training run's directory.
        out: the file to write; default report.html in the folder.

    Returns:
        The file's path.

    Raises:
        ProbeError: the folder holds neither, or its files are damaged.
    """
    page = next((page for name, page in PAGES.items() if (folder / name).is_file()), None)
    if page is None:
        runs = sorted(path.parent for path in folder.glob(f"*/{OPTIONS_FILE}"))
        hint = f"Name one of its runs, for example {runs[-1]}." if runs else (
            "Name the folder of `probe rank --out`, or a run directory of `probe train`."
        )  # fmt: skip
        what = "holds no run" if folder.is_dir() else "is not a folder"
        near = "" if folder.exists() else near_path(folder)
        raise ProbeError(f"{folder} {what} ({' or '.join(PAGES)}).{near} {hint}")
    path = folder / REPORT_FILE if out is None else out
    try:
        text = page(folder)
    except DAMAGED as error:
        what = printable(str(error), 200)
        raise ProbeError(f"The files of the run in {folder} are damaged ({what}).") from error
    write_text(path, text)
    return path
