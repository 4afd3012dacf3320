"""A training run's directory stands for its best snapshot."""

import json
import math
import re
from pathlib import Path

from probe.errors import CheckpointError

BEST = "network-snapshot-best.safetensors"
SNAPSHOT = re.compile(r"network-snapshot-(\d+)\.(safetensors|pkl)")
# Metrics of which less is better, the most trusted first: their names begin so.
METRICS = ("frechet", "fid50k_full", "fid", "kernel", "kid")


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
            found: dict[str, float] = {}
            for line in path.read_text(errors="replace").splitlines():
                try:
                    record = json.loads(line)
                    name = record["snapshot_pkl"]
                    value = next(iter(record["results"].values()))
                except (ValueError, KeyError, TypeError, AttributeError, StopIteration):
                    continue  # a kill may have cut the last line
                if (
                    isinstance(name, str)
                    and isinstance(value, int | float)
                    and math.isfinite(value)
                    and SNAPSHOT.fullmatch(Path(name).name)
                ):
                    found[Path(name).name] = float(value)
            if found:
                return found
    return {}
