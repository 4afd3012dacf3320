"""The lock file next to a bank: the digest of each entry's weights when they were fetched.

A file on a hub may change under the same name. An entry without its own `sha256` is checked against
the lock file, so that a bank always means the weights that were fetched first.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from probe.bank.spec import BackboneSpec
from probe.errors import BankError
from probe.files import digest_json, read_small, write_json

VERSION = 1
MOST_BYTES = 2**22


def lock_path(bank: Path) -> Path:
    """Return the path of a bank's lock file: modelbank.lock next to modelbank.yaml.

    Raises:
        BankError: if the bank itself has that name.
    """
    path = bank.with_suffix(".lock")
    if path == bank:
        raise BankError(
            f"{bank}: its lock file would have the same name. Rename the bank to .yaml."
        )
    return path


def read_lock(bank: Path) -> dict[str, dict[str, Any]]:
    """Return entry name → {"place": digest, "sha256": …, "bytes": …}; empty without a lock file.

    Raises:
        BankError: if the file cannot be read, is damaged, or has another version.
    """
    path = lock_path(bank)
    again = "Move it away and fetch again: probe bank fetch"
    try:
        record = json.loads(read_small(path, MOST_BYTES))
        version, entries = record["version"], record["entries"]
        right = all(
            isinstance(entry["place"], str) and re.fullmatch("[0-9a-f]{64}", entry["sha256"])
            for entry in entries.values()
        )
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise BankError(f"{path}: cannot be read ({error.strerror}).") from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise BankError(f"{path}: damaged or not a lock file. {again}.") from error
    if version != VERSION:
        raise BankError(f"{path}: a lock file of another version of probe. {again}.")
    if not right:
        raise BankError(f"{path}: damaged: a checksum is not 64 hexadecimal digits. {again}.")
    return entries


def write_lock(bank: Path, found: Iterable[tuple[BackboneSpec, str, int]]) -> Path:
    """Add entries to the lock file, atomically; other entries stay.

    Args:
        bank: the bank file.
        found: entry, SHA-256, and size in bytes of its weight file.

    Returns:
        The lock file's path.
    """
    entries = read_lock(bank)
    for spec, digest, size in found:
        entries[spec.name] = {"place": _place(spec), "sha256": digest, "bytes": size}
    path = lock_path(bank)
    write_json(path, {"version": VERSION, "entries": dict(sorted(entries.items()))})
    return path


def _place(spec: BackboneSpec) -> str:
    """Return the key of an entry's weight location; another location is another file."""
    return digest_json({k: v for k, v in asdict(spec.weights).items() if v is not None})[:16]


def pinned(spec: BackboneSpec, locked: Mapping[str, Mapping[str, Any]]) -> BackboneSpec:
    """Return an entry with its digest from the lock file, if it names none itself."""
    entry = locked.get(spec.name)
    if entry is None or spec.sha256 is not None or spec.weights.kind in ("random", "file"):
        return spec
    return replace(spec, sha256=entry["sha256"]) if entry["place"] == _place(spec) else spec
