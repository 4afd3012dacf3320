"""Training state files: each is sealed with its own digest, and the previous one is kept.

A kill leaves either the new or the old file in place; between the two renames, the old file has
only its other name. A file whose bytes have changed is detected, and the previous one is used.
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

VERSION = 2  # of the record; files are sealed since 2
DIGITS = 64  # of a SHA-256
# A zip archive ends with a 22-byte record; its last two bytes give the length of a comment.
END, END_BYTES, LENGTH_BYTES = b"PK\x05\x06", 22, 2
CHUNK = 2**20


@dataclass(frozen=True)
class StoredState:
    """A state read from disk.

    Attributes:
        path: its file.
        record: tensors and plain values, on the CPU.
        damaged: why the newer file could not be read, or None.
    """

    path: Path
    record: dict[str, Any]
    damaged: str | None


class _Damaged(Exception):
    """A state file differs from what was written; the message is a clause."""


def has_state(folder: Path) -> bool:
    """Return whether a run directory holds a training state, whole or damaged."""
    return any((folder / name).exists() for name in (STATE_FILE, PREVIOUS_FILE))


def write_state(folder: Path, record: Mapping[str, Any]) -> None:
    """Write a state, and keep the latest one so far as the previous one.

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
        except RuntimeError as error:  # torch's zip writer raises this for a full disk
            raise OSError(f"the training state could not be written ({error})") from error
        _seal(temporary)
        if latest.exists():
            latest.replace(folder / PREVIOUS_FILE)


def read_state(folder: Path) -> StoredState | None:
    """Return the latest undamaged state, or None if there is no state at all.

    Raises:
        ProbeError: every state file is damaged; it names them.
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
    """Rename the latest state, which is damaged, and return its new path.

    Otherwise the next write would replace the undamaged previous state with it.
    """
    return (folder / STATE_FILE).replace(folder / DAMAGED_FILE)


def _read(path: Path) -> dict[str, Any]:
    """Return the record in a file.

    Raises:
        _Damaged: the file is damaged; says how.
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
    except Exception as error:  # torch raises many types for a damaged file
        if is_out_of_memory(error):
            raise
        raise _Damaged(printable(str(error).partition("\n")[0], 100)) from error
    if not isinstance(record, dict) or (sealed is None and record.get("version", 1) >= VERSION):
        raise _Damaged("its digest is gone")
    return record


def _seal(path: Path) -> None:
    """Write the digest of a zip archive's bytes into its comment, which readers ignore."""
    end = path.stat().st_size - LENGTH_BYTES
    digest = _digest_of(path, end)
    with path.open("rb+") as file:
        file.seek(end)
        file.write(len(digest).to_bytes(LENGTH_BYTES, "little") + digest)


def _is_sealed(path: Path) -> bool | None:
    """Return whether a file's bytes match its seal, or None if it has no seal."""
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
    """Return the SHA-256 of a file's first `length` bytes as hex digits."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while length > 0:
            data = file.read(min(CHUNK, length))
            if not data:
                break
            found.update(data)
            length -= len(data)
    return found.hexdigest().encode()
