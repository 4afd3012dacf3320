"""The lock file of a bank: the digest of each entry's weights when they were first there.

A file on a hub may change under the same name. An entry without its own `sha256` is checked against
the lock file, so that a bank always means the weights that were fetched first. An entry's
fingerprint, taken when its network is first loaded, tells whether a library has changed it since.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from probe.bank.layers import split
from probe.bank.spec import BackboneSpec, Weights
from probe.errors import BankError, ProbeError
from probe.files import digest_json, read_small, write_json

VERSION = 1
MOST_BYTES = 2**22
NUMBERS = 8  # of a fingerprint


@dataclass(frozen=True, kw_only=True)
class Lockable(Weights):
    """Weights from a hub or an address; a bank file itself cannot contain them.

    Attributes:
        lock: the bank's lock file, in which what is not known yet is recorded.
    """

    lock: Path


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


def read_lock(path: Path) -> dict[str, dict[str, Any]]:
    """Return entry name → {"place": digest, "sha256": …, "bytes": …, maybe "fingerprint": …}.

    Args:
        path: the lock file; without one the result is empty.

    Raises:
        BankError: if the file cannot be read, is damaged, or has another version.
    """
    again = "Move it away and fetch again: probe bank fetch"
    try:
        record = json.loads(read_small(path, MOST_BYTES))
        version, entries = record["version"], record["entries"]
        right = all(_is_right(entry) for entry in entries.values())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise BankError(f"{path}: cannot be read ({error.strerror}).") from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise BankError(f"{path}: damaged or not a lock file. {again}.") from error
    if version != VERSION:
        raise BankError(f"{path}: a lock file of another version of probe. {again}.")
    if not right:
        raise BankError(
            f"{path}: damaged: a checksum is not 64 hexadecimal digits, or a fingerprint not "
            f"{NUMBERS} numbers. {again}."
        )
    return entries


def _is_right(entry: Mapping[str, Any]) -> bool:
    numbers = entry.get("fingerprint", [0.0] * NUMBERS)
    return (
        isinstance(entry["place"], str)
        and re.fullmatch("[0-9a-f]{64}", entry["sha256"]) is not None
        and len(numbers) == NUMBERS
        and all(isinstance(n, int | float) and math.isfinite(n) for n in numbers)
    )


def write_lock(path: Path, spec: BackboneSpec, **known: Any) -> None:
    """Record what is known of an entry's weights, atomically; other entries stay.

    Args:
        path: the lock file.
        spec: the entry, or a layer of it.
        known: "sha256" and "bytes", or "fingerprint", which is recorded only beside a checksum.

    Raises:
        ProbeError: if the file cannot be read or written.
    """
    entries, name = read_lock(path), split(spec.name)[0]
    before = entries.get(name, {})
    if before.get("place") != _place(spec):
        before = {}
    digest = known.get("sha256", before.get("sha256"))
    if digest != before.get("sha256") and before:
        if spec.sha256 is None:  # another process was first, with other bytes: they are refused
            return
        before = {}
    entry = {**before, "place": _place(spec), **known}
    if digest is None or entry == before:
        return
    entries[name] = entry
    write_json(path, {"version": VERSION, "entries": dict(sorted(entries.items()))})


def recorded(spec: BackboneSpec, **known: Any) -> bool:
    """Record what is known of an entry's weights if they can be locked.

    Returns:
        Whether it is in the lock file now. A folder that cannot be written is no reason to stop;
        see `unlocked_note`.
    """
    if not isinstance(spec.weights, Lockable):
        return False
    try:
        write_lock(spec.weights.lock, spec, **known)
    except ProbeError:
        return False
    entry = read_lock(spec.weights.lock).get(split(spec.name)[0], {})
    return all(entry.get(key) == value for key, value in known.items())


def first_use_notes(specs: Mapping[str, BackboneSpec]) -> list[str]:
    """Return sentences on entries whose checksum nobody knew before this process.

    Args:
        specs: name → entries that were loaded, as read from the bank before.
    """
    found: dict[tuple[Path, bool], list[str]] = {}
    for spec in specs.values():
        known = spec.sha256 or spec.weights.digits
        if isinstance(spec.weights, Lockable) and not known:
            name, lock = split(spec.name)[0], spec.weights.lock
            names = found.setdefault((lock, name in read_lock(lock)), [])
            names += [] if name in names else [name]
    return [
        f"The checksum of {', '.join(names)} was not known before; it is now in {lock}, and other "
        "bytes will be refused."
        if here
        else f"Warning: the checksum of {', '.join(names)} is not known, and {lock} cannot be "
        "written: a changed file would not be noticed."
        for (lock, here), names in found.items()
    ]


def _place(spec: BackboneSpec) -> str:
    """Return the key of an entry's weight location; another location is another file."""
    known = {f.name for f in fields(Weights)} - {"mirrors"}  # which hold the same file
    place = {k: v for k, v in asdict(spec.weights).items() if k in known and v is not None}
    return digest_json(place)[:16]


def pinned(spec: BackboneSpec, path: Path, locked: Mapping[str, Mapping[str, Any]]) -> BackboneSpec:
    """Return an entry with what its lock file knows and the entry itself does not say.

    Args:
        spec: the entry.
        path: the lock file.
        locked: its entries.
    """
    kind, entry = spec.weights.kind, locked.get(spec.name)
    if kind not in ("hub", "url", "package") or type(spec.weights) is not Weights:
        return spec
    known: dict[str, Any] = {}
    if entry is not None and entry["place"] == _place(spec):
        numbers = entry.get("fingerprint")
        if spec.sha256 in (None, entry["sha256"]):
            known["sha256"] = entry["sha256"]
            if spec.fingerprint is None and numbers is not None:
                known["fingerprint"] = tuple(numbers)
    if kind != "package":
        own = {f.name: getattr(spec.weights, f.name) for f in fields(Weights)}
        known["weights"] = Lockable(**own, lock=path)
    return replace(spec, **known)
