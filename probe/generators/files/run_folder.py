"""Resolve a path to a checkpoint file: a training run's directory to its best snapshot.

Any other folder with checkpoints resolves to neither its checkpoints nor its images, since those
images are often samples from a training run: the user is asked which file they mean.
"""

import json
import math
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from probe.errors import CheckpointError, printable
from probe.files import why_not
from probe.run_files import BEST, OPTIONS_FILE, SNAPSHOT, SNAPSHOTS, kimg_of, metric_file

# Projected GAN saves its best under another name, and overwrites one file without a number.
ITS_BEST, ITS_LAST = "best_model.pkl", "network-snapshot.pkl"
LARGEST = 2**33  # bytes of a checkpoint
LARGEST_LOG = 2**24  # bytes to read of a metric's log: some hundred thousand lines
CHECKPOINTS = frozenset((".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pt2", ".pth", ".safetensors"))
PIPELINE = "model_index.json"  # in a diffusers pipeline's folder
DEEPEST = 4  # levels of subfolders searched for checkpoints
MOST_NAMED = 5
# Prefixes of metrics for which lower is better, most trusted first.
METRICS = ("frechet", "fid50k_full", "fid", "kernel", "kid")


def checkpoint_file(path: Path) -> Path:
    """Return the file that a path refers to: itself, or a run's best snapshot.

    Raises:
        CheckpointError: if it is a run without a snapshot, another folder (names its contents), a
            pipe or device, or cannot be examined; with the path.
    """
    try:
        if is_run_folder(path):
            path = best_snapshot(path)
        found = path.stat()
        mode, size = found.st_mode, found.st_size
    except OSError as error:
        raise CheckpointError(f"{path}: {why_not(error, path)}") from error
    except ValueError as error:  # a null byte in its name
        raise CheckpointError(f"{printable(str(path))}: is not a valid path ({error}).") from error
    if stat.S_ISDIR(mode):
        refuse_checkpoints(path)
        raise CheckpointError(f"{path}: is a folder without snapshots or other checkpoints.")
    if not stat.S_ISREG(mode):
        raise CheckpointError(f"{path}: is not a regular file.")
    if size > LARGEST:
        raise CheckpointError(
            f"{path}: has {size / 2**30:.0f} GiB; up to {LARGEST >> 30} GiB are read."
        )
    return path


def refuse_checkpoints(folder: Path, remedy: str = "Name one of them") -> None:
    """Refuse a folder that holds checkpoints or training runs, and name them.

    Args:
        folder: a folder that is not itself a run.
        remedy: what to do.

    Raises:
        CheckpointError: if it holds any; with the path.
        OSError: if it cannot be listed.
    """
    if (folder / PIPELINE).is_file():
        raise CheckpointError(
            f"{folder}: is a diffusers pipeline, which is not supported. Draw images with a "
            "function of your own (--gen module:function)."
        )
    runs, files = _checkpoints_below(folder)
    held = [named for kind, found in (("training runs", runs), ("checkpoints", files))
            if (named := in_short(kind, found))]  # fmt: skip
    if held:
        raise CheckpointError(f"{folder}: holds {' and '.join(held)}. {remedy}.")


def in_short(kind: str, names: Iterable[str]) -> str:
    """Return "kind (a, b, c and 7 more)", "" for no names."""
    found = sorted(names)
    if not found:
        return ""
    more = len(found) - MOST_NAMED
    shown = ", ".join(printable(name, 100) for name in found[:MOST_NAMED])
    return f"{kind} ({shown}{f' and {more} more' if more > 0 else ''})"


def _checkpoints_below(folder: Path) -> tuple[list[str], list[str]]:
    """Return, as relative paths, the runs below a folder and the checkpoints outside them."""
    runs: list[str] = []
    files: list[str] = []
    for place, folders, names in os.walk(folder):
        below = Path(place).relative_to(folder)
        deeper = [name for name in folders if not name.startswith(".")]
        found = [name for name in deeper if is_run_folder(Path(place, name))]
        runs += [str(below / name) for name in found]
        files += [str(below / name) for name in names if is_checkpoint(name)]
        folders[:] = sorted(set(deeper) - set(found)) if len(below.parts) < DEEPEST else []
    return runs, files


def is_checkpoint(name: str) -> bool:
    """Return whether a file name has a checkpoint's suffix; hidden files do not count."""
    path = Path(name)
    return path.suffix.lower() in CHECKPOINTS and not path.name.startswith(".")


def kimg_in_name(path: Path) -> float | None:
    """Return the thousands of images in a snapshot's name, None if it has none."""
    named = SNAPSHOT.fullmatch(path.name)
    return kimg_of(named[1]) if named and named[1] else None


def is_run_folder(path: Path) -> bool:
    """Return whether a folder is a training run: ours, or one from the StyleGAN family."""
    return path.is_dir() and (
        (path / OPTIONS_FILE).exists() or (path / ITS_LAST).exists() or any(path.glob(SNAPSHOTS))
    )


def best_snapshot(folder: Path) -> Path:
    """Return the snapshot that the run itself found best.

    Our runs and Projected GAN's save it under its own name. For others it is the one with the
    lowest value in a `metric-*.jsonl` or, without metrics, the last.

    Raises:
        CheckpointError: if the folder holds no snapshot.
    """
    files = {p.name: p for p in folder.iterdir() if p.is_file()}
    for name in (BEST, ITS_BEST):
        if name in files:
            return files[name]
    snapshots = {name for name in files if SNAPSHOT.fullmatch(name)}
    if not snapshots:
        raise CheckpointError(
            f"{folder}: is a training run without a snapshot yet ({SNAPSHOTS}). Wait for "
            "the first, or name a checkpoint."
        )
    measured = {n: value for n, value in _measured(folder).items() if n in snapshots}
    if measured:
        return files[min(measured, key=lambda name: (measured[name], name))]
    return files[max(snapshots, key=lambda name: (kimg_in_name(files[name]) or 0.0, name))]


def _measured(folder: Path) -> dict[str, float]:
    """Return snapshot → value for the most trusted metric in the run's logs."""
    for start in METRICS:
        for path in sorted(folder.glob(metric_file(f"{start}*"))):
            if found := dict(_values(path)):
                return found
    return {}


def _values(path: Path) -> Iterator[tuple[str, float]]:
    """Yield the snapshot and value of each line that has both."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        text = file.read(LARGEST_LOG).decode(errors="replace")
    for line in text.splitlines():
        try:
            record = json.loads(line)
            name = Path(record["snapshot_pkl"]).name
            value = next(iter(record["results"].values()), math.nan)
            is_number = type(value) in (int, float) and math.isfinite(value)
        except (ValueError, TypeError, AttributeError, LookupError, OverflowError, RecursionError):
            continue  # a killed process may have left the last line incomplete
        if is_number and SNAPSHOT.fullmatch(name):
            yield name, float(value)
