"""Run directories: numbered, locked, resumed by repeating the command."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probe.errors import ProbeError, UsageError
from probe.files import leftovers, lock
from probe.images.base import ImageSource
from probe.run_files import LOCK_FILE, OPTIONS_FILE, PROGRESS_FILE, STATE_FILE
from probe.stored import read_record
from probe.training.state_file import has_state

if TYPE_CHECKING:
    from filelock import BaseFileLock


@dataclass(frozen=True)
class _Options:
    """The part of training_options.json that identifies a run."""

    digest: str
    length: list[Any]


@dataclass(frozen=True)
class _Images:
    """The part of training_options.json that describes the images."""

    real: dict[str, Any]


@dataclass(frozen=True)
class _Progress:
    finished: bool


def choose_folder(
    outdir: Path, name: str, record: dict[str, Any], resume: Path | str | None
) -> tuple[Path, "BaseFileLock"]:
    """Return the run directory to use, and its lock.

    Args:
        outdir: folder in which run directories are created.
        name: suffix of a new one, after its number.
        record: the content of `training_options.json`; "digest" and "length" identify the run.
        resume: None continues an unfinished run with the same record, or else starts a new run;
            "latest" continues the newest run in `outdir`; a path continues that run.

    Raises:
        UsageError: `outdir` is itself a run directory, there is nothing to resume, or another
            process is training there.
        ProbeError: a run has a state but does not say which run it is.
    """
    if (outdir / OPTIONS_FILE).exists():
        raise UsageError(
            f"--outdir: {outdir} is a run directory itself. Name the folder that holds the runs, "
            f"or --resume {outdir}."
        )
    runs = sorted(p for p in outdir.glob("[0-9]" * 5 + "-*") if p.is_dir())
    if resume is not None:
        found = [p for p in runs if has_state(p)]
        folder = Path(resume)
        if str(resume) == "latest":
            if not found:
                raise UsageError(f"--resume latest: no run in {outdir} has a training state yet.")
            folder = found[-1]
        elif not has_state(folder):
            example = found[-1] if found else outdir / f"00000-{name}"
            raise UsageError(
                f"--resume: {folder} holds no {STATE_FILE}. Name a run directory, for example "
                f"{example}, or latest."
            )
        held = lock(folder / LOCK_FILE)
        if held is None:
            raise UsageError(f"--resume: another process is training in {folder}.")
        _clean(folder)
        return folder, held
    for folder in reversed(runs):
        if _is_unfinished(folder, record) or _is_empty(folder, name):
            held = lock(folder / LOCK_FILE)
            if held is not None:
                _clean(folder)
                return folder, held
    number = max((int(p.name[:5]) for p in runs), default=-1)
    while True:  # another process may take numbers at the same time
        number += 1
        folder = outdir / f"{number:05d}-{name}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        held = lock(folder / LOCK_FILE)
        if held is not None:
            return folder, held


def has_examined(source: ImageSource, outdir: Path, resume: Path | str | None) -> bool:
    """Return whether a run that may go on here has examined every one of its images.

    Runs of earlier releases did, and go on alike only if it is done again. A run on another path,
    or one that is finished, does not count unless `resume` names it.
    """
    folders = [p for p in outdir.glob("[0-9]" * 5 + "-*") if has_state(p)]
    if resume is not None:
        folders = sorted(folders)[-1:] if str(resume) == "latest" else [Path(resume)]
    for folder in folders:
        try:
            real = read_record(folder / OPTIONS_FILE, _Images, "").real
            if real.get("known_by", "contents") != "contents":
                continue
            if resume is not None:
                return True
            ours = source.identity()
            is_same = all(real.get(key) == ours.get(key) for key in ("path", "candidates"))
            if is_same and not read_record(folder / PROGRESS_FILE, _Progress, "").finished:
                return True
        except ProbeError:  # a damaged record: `choose_folder` says so
            continue
    return False


def _is_unfinished(folder: Path, record: dict[str, Any]) -> bool:
    """Return whether a folder holds the same run, unfinished.

    Raises:
        ProbeError: it has a state but does not say of which run.
    """
    try:
        theirs = read_record(
            folder / OPTIONS_FILE,
            _Options,
            "So it cannot be told whether this command belongs to that run: continue it with "
            f"--resume {folder}, or begin a new one in another --outdir.",
        )
    except ProbeError:
        if has_state(folder):
            raise
        return False
    if [theirs.digest, theirs.length] != [record["digest"], record["length"]]:
        return False
    try:
        return not read_record(folder / PROGRESS_FILE, _Progress, "").finished
    except ProbeError:  # progress.json is rewritten with the next state
        return True


def _is_empty(folder: Path, name: str) -> bool:
    """Return whether a process was killed right after it created a folder for such a run."""
    unfinished = set(leftovers(folder))  # it may have been writing the first file
    held = [path for path in folder.iterdir() if path not in unfinished]
    return folder.name[6:] == name and all(path.name == LOCK_FILE for path in held)


def _clean(folder: Path) -> None:
    """Remove partial files of a killed process; this process holds the folder's lock."""
    for path in leftovers(folder):
        path.unlink(missing_ok=True)
