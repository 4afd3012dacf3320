"""The lock file beside a bank: which bytes each entry's weights had when they were fetched.

A hub's file may change under its name. An entry that names no `sha256` of its own is held to the
one in the lock file, so that a bank that was fetched once means the same weights ever after.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probe.errors import BankError
from probe.files import digest_json, write_json

if TYPE_CHECKING:
    from probe.bank.spec import BackboneSpec

VERSION = 1


def lock_path(bank: Path) -> Path:
    """Return where the lock file of a bank is: modelbank.lock beside modelbank.yaml."""
    return bank.with_suffix(".lock")


def read_lock(bank: Path) -> dict[str, dict[str, Any]]:
    """Return entry name → {"place": digest, "sha256": …, "bytes": …}; empty without a lock file.

    Raises:
        BankError: the file is damaged or of another version.
    """
    path = lock_path(bank)
    if not path.exists():
        return {}
    try:
        record = json.loads(path.read_text("utf-8"))
        entries = record["entries"]
        right = record["version"] == VERSION and all(
            isinstance(e["place"], str) and len(e["sha256"]) == 64 for e in entries.values()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BankError(
            f"{path}: not a lock file ({error}). Remove it and fetch again: probe bank fetch."
        ) from error
    if not right:
        raise BankError(f"{path}: of another version. Remove it and fetch again: probe bank fetch.")
    return entries


def write_lock(bank: Path, found: "Iterable[tuple[BackboneSpec, str, int]]") -> Path:
    """Add entries to the lock file, atomically; those of other entries stay.

    Args:
        bank: the bank file.
        found: entry, SHA-256 and size in bytes of its weight file.

    Returns:
        The lock file's path.
    """
    entries = read_lock(bank)
    for spec, digest, size in found:
        entries[spec.name] = {"place": _place(spec), "sha256": digest, "bytes": size}
    path = lock_path(bank)
    write_json(path, {"version": VERSION, "entries": dict(sorted(entries.items()))})
    return path


def _place(spec: "BackboneSpec") -> str:
    """Return what stands for where an entry's weights come from; another place is another file."""
    return digest_json({k: v for k, v in asdict(spec.weights).items() if v is not None})[:16]


def held(spec: "BackboneSpec", locked: Mapping[str, Mapping[str, Any]]) -> "BackboneSpec":
    """Return an entry with the digest that the lock file has for it, where it names none."""
    entry = locked.get(spec.name)
    if entry is None or spec.sha256 is not None or spec.weights.kind in ("random", "file"):
        return spec
    return replace(spec, sha256=entry["sha256"]) if entry["place"] == _place(spec) else spec
