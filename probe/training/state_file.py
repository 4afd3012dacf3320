"""The files of a training state: sealed by their own digest, and the one before it kept.

A kill leaves the new file or the old one under its name, or between the two renames the old one
under the other; a file whose bytes have changed is known, and the one before it stands in.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from probe.accel.memory import is_out_of_memory
from probe.errors import ProbeError, printable
from probe.files import atomic_path
from probe.run_files import DAMAGED_FILE, PREVIOUS_FILE, STATE_FILE

VERSION = 2  # of the record; from 2 on every file is sealed
DIGITS = 64  # of a SHA-256
# A zip archive ends in a record of 22 bytes, the last two of which say how long a comment follows.
END, END_BYTES, LENGTH_BYTES = b"PK\x05\x06", 22, 2
CHUNK = 2**20


@dataclass(frozen=True)
class StoredState:
    """A state that was read.

    Attributes:
        path: its file.
        record: tensors and plain values, on the CPU.
        damaged: why the newer file could not be read, or None.
    """

    path: Path
    record: dict[str, Any]
    damaged: str | None


class _Damaged(Exception):
    """A state file that is not what was written; the message is a clause."""


def has_state(folder: Path) -> bool:
    """Return whether a run directory holds a training state, whole or damaged."""
    return any((folder / name).exists() for name in (STATE_FILE, PREVIOUS_FILE))


def write_state(folder: Path, record: Mapping[str, Any]) -> None:
    """Write a state, and keep the one that was the latest as the previous one.

    Args:
        folder: the run directory.
        record: tensors and plain values.

    Raises:
        ProbeError: the disk is full.
    """
    latest = folder / STATE_FILE
    with atomic_path(latest) as temporary:
        try:
            torch.save({**record, "version": VERSION}, temporary)
        except RuntimeError as error:  # how torch's writer speaks of a full disk
            raise OSError(f"the training state could not be written ({error})") from error
        _seal(temporary)
        if latest.exists():
            latest.replace(folder / PREVIOUS_FILE)


def read_state(folder: Path) -> StoredState | None:
    """Return the latest state that is whole, None where there is none at all.

    Raises:
        ProbeError: every file there is is damaged; names them.
    """
    reasons: list[str] = []
    for path in (folder / STATE_FILE, folder / PREVIOUS_FILE):
        if path.exists():
            try:
                return StoredState(path, _read(path), reasons[0] if reasons else None)
            except _Damaged as error:
                reasons.append(f"{path} is damaged ({error})")
    if reasons:
        raise ProbeError(
            f"{' and '.join(reasons)}: there is no state to go on from. A new run can begin with "
            f"the weights of this one: --init {folder}."
        )
    return None


def set_damaged_aside(folder: Path) -> Path:
    """Give the latest state, which is damaged, a name of its own, and return that path.

    Under the old one it would take the place of the whole one before it at the next write.
    """
    return (folder / STATE_FILE).replace(folder / DAMAGED_FILE)


def _read(path: Path) -> dict[str, Any]:
    """Return the record in a file.

    Raises:
        _Damaged: says how that shows.
        ProbeError: it cannot be read for another reason.
    """
    try:
        sealed = _is_sealed(path)
        if sealed is False:
            raise _Damaged("its bytes are not those that were written")
        record = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ProbeError(f"{path} cannot be read ({error.strerror or error}).") from error
    except _Damaged:
        raise
    except Exception as error:  # torch raises many kinds for a damaged file
        if is_out_of_memory(error):
            raise
        raise _Damaged(printable(str(error).partition("\n")[0], 100)) from error
    if not isinstance(record, dict) or (sealed is None and record.get("version", 1) >= VERSION):
        raise _Damaged("its digest is gone")
    return record


def _seal(path: Path) -> None:
    """Write the digest of a zip archive's bytes into its comment, which no reader minds."""
    end = path.stat().st_size - LENGTH_BYTES
    digest = _digest_of(path, end)
    with path.open("rb+") as file:
        file.seek(end)
        file.write(len(digest).to_bytes(LENGTH_BYTES, "little") + digest)


def _is_sealed(path: Path) -> bool | None:
    """Return whether a file's bytes are those that were sealed, None where there is no seal."""
    end = path.stat().st_size - DIGITS
    if end < END_BYTES:
        return None
    with path.open("rb") as file:
        file.seek(end - END_BYTES)
        record, digest = file.read(END_BYTES), file.read()
    length = int.from_bytes(record[-LENGTH_BYTES:], "little")
    if not record.startswith(END) or length != DIGITS:
        return None
    return digest == _digest_of(path, end - LENGTH_BYTES)


def _digest_of(path: Path, length: int) -> bytes:
    """Return the SHA-256 of a file's first bytes as hex digits."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while length > 0:
            data = file.read(min(CHUNK, length))
            if not data:
                break
            found.update(data)
            length -= len(data)
    return found.hexdigest().encode()
