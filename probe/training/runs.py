"""Run directories: numbered, never mixed up, continued by repeating the command."""

import fcntl
import json
from pathlib import Path
from typing import Any, BinaryIO

from probe.errors import UsageError
from probe.training.loop import PROGRESS_FILE
from probe.training.state import STATE_FILE

OPTIONS_FILE = "training_options.json"
LOCK_FILE = ".lock"


def choose_folder(
    outdir: Path, name: str, record: dict[str, Any], resume: Path | str | None
) -> tuple[Path, BinaryIO]:
    """Return the run directory to use, locked for as long as the file handle lives.

    Args:
        outdir: where run directories are made.
        name: what a new one is called after its number.
        record: what `training_options.json` will hold; "digest" and "length" identify the run.
        resume: None continues an unfinished run of the same record, if there is one, else begins a
            new run; "latest" continues the newest run in `outdir`; a path continues that run.

    Raises:
        UsageError: `outdir` is a run directory itself, or there is nothing to resume, or another
            process is at it.
    """
    if (outdir / OPTIONS_FILE).exists():
        raise UsageError(
            f"--outdir: {outdir} is a run directory itself. Name the folder that holds the runs, "
            f"or --resume {outdir}."
        )
    runs = sorted(p for p in outdir.glob("[0-9]" * 5 + "-*") if p.is_dir())
    if resume is not None:
        found = [p for p in runs if (p / STATE_FILE).exists()]
        folder = Path(resume)
        if str(resume) == "latest":
            if not found:
                raise UsageError(f"--resume latest: no run in {outdir} has a training state yet.")
            folder = found[-1]
        elif not (folder / STATE_FILE).exists():
            example = found[-1] if found else outdir / f"00000-{name}"
            raise UsageError(
                f"--resume: {folder} holds no {STATE_FILE}. Name a run directory, for example "
                f"{example}, or latest."
            )
        handle = _lock(folder)
        if handle is None:
            raise UsageError(f"--resume: another process is training in {folder}.")
        return folder, handle
    for folder in reversed(runs):
        if _is_unfinished(folder, record):
            handle = _lock(folder)
            if handle is not None:
                return folder, handle
    taken = [int(p.name[:5]) for p in runs]
    folder = outdir / f"{max(taken, default=-1) + 1:05d}-{name}"
    folder.mkdir(parents=True)
    handle = _lock(folder)
    assert handle is not None
    return folder, handle


def _is_unfinished(folder: Path, record: dict[str, Any]) -> bool:
    """Return whether a folder holds the very same run, not at its end."""
    try:
        theirs = json.loads((folder / OPTIONS_FILE).read_text("utf-8"))
    except (OSError, ValueError):
        return False
    if any(theirs.get(key) != record[key] for key in ("digest", "length")):
        return False
    try:
        return not json.loads((folder / PROGRESS_FILE).read_text("utf-8"))["finished"]
    except FileNotFoundError:
        return True


def _lock(folder: Path) -> BinaryIO | None:
    """Return an open file that holds the folder's lock, None where another process does."""
    handle = (folder / LOCK_FILE).open("wb")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        handle.close()
        return None
    return handle
