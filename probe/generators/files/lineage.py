"""What a generator was trained against, where its file or its run's directory says so."""

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
    """What is read of a record of a choice."""

    added: list[str]


def trained_against(path: Path) -> frozenset[str] | None:
    """Return the names of the backbones on which a generator's discriminators were built.

    A snapshot of ours says it itself. Of one that does not, the run's directory has the selections,
    all of which are then taken to have counted.

    Args:
        path: a snapshot, a run's directory (its best snapshot), or anything else.

    Returns:
        None where nothing is known: images, functions, other people's checkpoints.
    """
    try:
        path = checkpoint_file(path)
    except CheckpointError:  # a folder of images; what is no file is told by who opens it
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
        return None  # the reader of checkpoints says what is wrong


def _added(path: Path) -> list[str]:
    """Return the backbones that joined by one record of a choice."""
    try:
        return read_record(path, _Choice, "").added
    except ProbeError:
        return []


def _strings(value: object) -> list[str] | None:
    """Return a list of strings as it is, None for anything else."""
    if not isinstance(value, list):
        return None
    names = [name for name in value if isinstance(name, str)]
    return names if len(names) == len(value) else None
