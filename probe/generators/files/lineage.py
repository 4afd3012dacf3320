"""Find what a generator was trained against, if its file or its run's directory says so."""

import json
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from probe.errors import CheckpointError, ProbeError
from probe.files import utf8_path
from probe.generators.files.run_folder import checkpoint_file
from probe.run_files import SELECTIONS
from probe.stored import read_record


@dataclass(frozen=True)
class _Choice:
    """The fields to read from a record of a choice."""

    added: list[str]


def trained_against(path: Path) -> frozenset[str] | None:
    """Return the names of the backbones behind a generator's discriminators.

    Our own snapshots record them. If a snapshot does not, the run's directory has the selections,
    and all of them are assumed to have been used.

    Args:
        path: a snapshot, a run's directory (for its best snapshot), or anything else.

    Returns:
        None if nothing is known: images, functions, other people's checkpoints.
    """
    try:
        path = checkpoint_file(path)
    except CheckpointError:  # a folder of images; opening a missing file reports it elsewhere
        return None
    names = _in_snapshot(path)
    if names is None and (found := sorted(path.parent.glob(SELECTIONS))):
        names = [name for file in found for name in _added(file)]
    return None if names is None else frozenset(names)


def _in_snapshot(path: Path) -> list[str] | None:
    if path.suffix != ".safetensors":
        return None
    try:
        with utf8_path(path) as known, safe_open(known, framework="np") as file:
            header = json.loads((file.metadata() or {})["probe"])
        return _strings(header["discriminators"])
    except (SafetensorError, OSError, ValueError, LookupError, TypeError, RecursionError):
        return None  # the checkpoint reader reports the problem


def _added(path: Path) -> list[str]:
    """Return the backbones that one record of a choice added."""
    try:
        return read_record(path, _Choice, "").added
    except ProbeError:
        return []


def _strings(value: object) -> list[str] | None:
    """Return a list of strings unchanged, None for anything else."""
    if not isinstance(value, list):
        return None
    names = [name for name in value if isinstance(name, str)]
    return names if len(names) == len(value) else None
