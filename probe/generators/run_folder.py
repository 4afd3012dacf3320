"""Which file a path stands for: a training run's directory for its best snapshot."""

import json
import math
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from probe.errors import CheckpointError, printable

BEST = "network-snapshot-best.safetensors"
SNAPSHOT = re.compile(r"network-snapshot-(\d+)\.(safetensors|pkl)")
# Metrics of which less is better, the most trusted first: their names begin so.
METRICS = ("frechet", "fid50k_full", "fid", "kernel", "kid")


def checkpoint_file(path: Path) -> Path:
    """Return the file that a path stands for: itself, or a run's best snapshot.

    Raises:
        CheckpointError: a run without a snapshot, another folder, a pipe or device, or nothing that
            can be looked at; with the path.
    """
    try:
        if is_run_folder(path):
            path = best_snapshot(path)
        mode = path.stat().st_mode
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}).") from error
    except ValueError as error:  # a zero byte in its name
        raise CheckpointError(f"{printable(str(path))}: is no path ({error}).") from error
    if stat.S_ISDIR(mode):
        raise CheckpointError(
            f"{path}: is a folder without snapshots; name a checkpoint file in it."
        )
    if not stat.S_ISREG(mode):
        raise CheckpointError(f"{path}: is not a regular file.")
    return path


def is_run_folder(path: Path) -> bool:
    """Return whether a folder is a training run's: ours, or one of the StyleGAN family."""
    return path.is_dir() and (
        (path / "training_options.json").exists() or any(path.glob("network-snapshot-*"))
    )


def best_snapshot(folder: Path) -> Path:
    """Return the snapshot that the run itself found best.

    Our runs keep it under its own name; of others it is the one with the least value in a
    `metric-*.jsonl`, and without metrics the last.

    Raises:
        CheckpointError: the folder holds no snapshot.
    """
    if (folder / BEST).exists():
        return folder / BEST
    files = [p for p in folder.glob("network-snapshot-*") if SNAPSHOT.fullmatch(p.name)]
    if not files:
        raise CheckpointError(
            f"{folder}: is a training run without a snapshot yet (network-snapshot-*). Wait for "
            "the first, or name a checkpoint."
        )
    measured = _measured(folder)
    present = {name: value for name, value in measured.items() if (folder / name).exists()}
    if present:
        return folder / min(present, key=lambda name: (present[name], name))
    return max(files, key=lambda p: (int(SNAPSHOT.fullmatch(p.name)[1]), p.name))  # type: ignore[index]


def _measured(folder: Path) -> dict[str, float]:
    """Return snapshot → value by the most trusted metric that the run has logged."""
    for start in METRICS:
        for path in sorted(folder.glob(f"metric-{start}*.jsonl")):
            if found := dict(_values(path)):
                return found
    return {}


def _values(path: Path) -> Iterator[tuple[str, float]]:
    """Yield snapshot and value of each line that has both."""
    if not path.is_file():
        return
    for line in path.read_text(errors="replace").splitlines():
        try:
            record = json.loads(line)
            name = Path(record["snapshot_pkl"]).name
            value = next(iter(record["results"].values()), math.nan)
            is_number = isinstance(value, int | float) and math.isfinite(value)
        except (ValueError, TypeError, AttributeError, LookupError, OverflowError, RecursionError):
            continue  # a kill may have cut the last line
        if is_number and SNAPSHOT.fullmatch(name):
            yield name, float(value)
