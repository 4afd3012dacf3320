"""Choose and write the page for a ranking, a training run or several training runs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from jinja2 import UndefinedError

from probe.errors import ProbeError, printable
from probe.files import near_path, write_text
from probe.reports.compare_page import compare_page, compared
from probe.reports.rank_page import rank_page
from probe.reports.train_page import train_page
from probe.run_files import COMPARISON_FILE, LEADERBOARD_FILE, OPTIONS_FILE, REPORT_FILE

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
    page = PAGES[_kind(folder)]
    path = folder / REPORT_FILE if out is None else out
    with _damage_in(folder):
        text = page(folder)
    write_text(path, text)
    return path


def write_comparison(folders: Sequence[Path], out: Path | None = None) -> Path:
    """Write one page on several training runs, atomically.

    Args:
        folders: two run directories or more.
        out: the file to write; default comparison.html beside the first.

    Returns:
        The file's path.

    Raises:
        ProbeError: a folder holds no training run, one is named twice, or files are damaged.
    """
    for folder in folders:
        if _kind(folder) != OPTIONS_FILE:
            raise ProbeError(
                f"{folder} is a ranking. Only training runs are compared on one page: name run "
                "directories of `probe train`, or this folder alone."
            )
    places = [folder.resolve() for folder in folders]
    twice = next((folder for folder in folders if places.count(folder.resolve()) > 1), None)
    if twice is not None:
        raise ProbeError(f"{twice} is named twice. Name each run once.")
    path = places[0].parent / COMPARISON_FILE if out is None else out
    runs = []
    for folder in folders:
        with _damage_in(folder):
            runs.append(compared(folder))
    write_text(path, compare_page(runs))
    return path


def _kind(folder: Path) -> str:
    """Return the name of the file that tells what a folder holds.

    Raises:
        ProbeError: it holds no run.
    """
    kind = next((name for name in PAGES if (folder / name).is_file()), None)
    if kind is None:
        runs = sorted(path.parent for path in folder.glob(f"*/{OPTIONS_FILE}"))
        hint = f"Name one of its runs, for example {runs[-1]}." if runs else (
            "Name the folder of `probe rank --out`, or a run directory of `probe train`."
        )  # fmt: skip
        what = "holds no run" if folder.is_dir() else "is not a folder"
        near = "" if folder.exists() else near_path(folder)
        raise ProbeError(f"{folder} {what} ({' or '.join(PAGES)}).{near} {hint}")
    return kind


@contextmanager
def _damage_in(folder: Path) -> Iterator[None]:
    """Turn an error of a value that no run writes into one that names the folder."""
    try:
        yield
    except DAMAGED as error:
        what = printable(str(error), 200)
        raise ProbeError(f"The files of the run in {folder} are damaged ({what}).") from error
