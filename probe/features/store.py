"""The content-keyed store of features and results on disk.

A feature space is everything that determines a feature besides the image: backbone, weights,
preprocessing, resolution, precision, versions. Its digest names a folder, in which rows are keyed
by the image's content. A changed image, checkpoint, bank entry or library therefore never hits
stale rows, and a changed image costs only that image.

Every file is written atomically under the digest of its own bytes, so a process may be killed at
any moment and processes may share the store without locks.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from probe.errors import ProbeError
from probe.files import digest_bytes, digest_json, in_cache, write_bytes, write_json
from probe.stored import read_record

FEATURES, RESULTS = "features", "results"  # folders of the cache
FACTS_FILE, SPACE_FILE = "facts.json", "space.json"


@dataclass(frozen=True)
class _Facts:
    """A backbone's measurements, with a digest that detects changes."""

    facts: dict[str, Any]
    sha256: str


def digest_keys(keys: Sequence[str]) -> str:
    """Return the digest of a list of content keys, in order."""
    return digest_bytes("\n".join(keys).encode())


def _row_key(key: str) -> bytes:
    """Return the 32 bytes that key an image's row."""
    return hashlib.sha256(key.encode()).digest()


def read_shard(path: Path) -> dict[str, np.ndarray] | None:
    """Return a file's arrays, or None if it is missing or its bytes do not match its name.

    A damaged file is a miss: its rows are computed again and stored under the correct name.

    Raises:
        CacheError: if it cannot be read.
    """
    try:
        with in_cache():
            data = path.read_bytes()
    except FileNotFoundError:  # pruned by another process
        return None
    if digest_bytes(data)[:32] != path.stem:
        return None
    try:
        return load(data)
    except SafetensorError:
        return None


def read_facts(path: Path) -> dict[str, Any] | None:
    """Return a file's measurements, None if it is missing, damaged or changed."""
    try:
        found = read_record(path, _Facts, "")
    except ProbeError:
        return None
    return found.facts if digest_json(found.facts) == found.sha256 else None


def is_whole(path: Path) -> bool:
    """Return whether a file of the store is usable; a missing file is not damaged."""
    read = read_facts if path.name == FACTS_FILE else read_shard
    return read(path) is not None or not path.exists()


def _write_shard(folder: Path, arrays: dict[str, np.ndarray]) -> Path:
    data = save(arrays)
    path = folder / f"{digest_bytes(data)[:32]}.safetensors"
    write_bytes(path, data)
    return path


class FeatureSpace:
    """The rows of one backbone under one preprocessing and precision.

    Only the index is in memory; features stay on disk until they are read.

    Attributes:
        record: everything that determines a feature besides the image; plain values.
        key: its digest, 64 hex digits.
        folder: the folder of the rows.
    """

    def __init__(self, root: Path, record: dict[str, Any]) -> None:
        self.record = record
        self.key = digest_json(record)
        self.folder = root / FEATURES / self.key[:32]
        # Row digest → (file, row). Loaded here, before any thread can use it.
        self._index: dict[bytes, tuple[Path, int]] = {}
        self._read: set[Path] = set()
        self.refresh()

    def refresh(self) -> None:
        """Find rows that other processes have stored since."""
        for path in sorted(set(self.folder.glob("*.safetensors")) - self._read):
            shard = read_shard(path)
            if shard is not None:
                self._add(path, shard["keys"])

    def _add(self, path: Path, row_keys: np.ndarray) -> None:
        self._read.add(path)
        for i, row_key in enumerate(row_keys):
            self._index[row_key.tobytes()] = (path, i)

    def missing(self, keys: Sequence[str]) -> list[int]:
        """Return the positions in `keys` that have no row."""
        return [i for i, key in enumerate(keys) if _row_key(key) not in self._index]

    def read(self, keys: Sequence[str]) -> np.ndarray:
        """Return the rows of all keys, float32 (n, d).

        Raises:
            KeyError: if a key has no row; call `missing` first.
            ProbeError: if the files were removed in the meantime.
        """
        wanted: dict[Path, list[tuple[int, int]]] = {}
        for position, key in enumerate(keys):
            path, row = self._index[_row_key(key)]
            wanted.setdefault(path, []).append((position, row))
        found = np.empty((len(keys), 0), np.float32)
        for path, places in wanted.items():  # so that not all files are in memory at once
            try:
                with in_cache():
                    shard = load(path.read_bytes())["features"]
            except FileNotFoundError as error:  # pruned in the meantime
                raise ProbeError(
                    f"{error.filename} was removed from the cache while it was in use. Repeat the "
                    "command."
                ) from error
            if not found.shape[1]:
                found = np.empty((len(keys), shard.shape[1]), np.float32)
            positions, rows = map(list, zip(*places, strict=True))
            found[positions] = shard[rows]
        return found

    def write(self, keys: Sequence[str], features: np.ndarray) -> None:
        """Store rows: features float32 (n, d), one per key. They are on disk on return."""
        row_keys = np.stack([np.frombuffer(_row_key(key), np.uint8) for key in keys])
        self._write(row_keys, np.ascontiguousarray(features, dtype=np.float32))

    def take(self, row_keys: np.ndarray, features: np.ndarray) -> int:
        """Store the rows of another store that are not here, and return how many they are.

        Args:
            row_keys: uint8 (n, 32), as in the store's files.
            features: float32 (n, d).
        """
        new = [i for i, key in enumerate(row_keys) if key.tobytes() not in self._index]
        if new:
            self._write(row_keys[new], features[new])
        return len(new)

    def _write(self, row_keys: np.ndarray, features: np.ndarray) -> None:
        if not (self.folder / SPACE_FILE).exists():
            write_json(self.folder / SPACE_FILE, self.record)
        path = _write_shard(self.folder, {"keys": row_keys, "features": features})
        self._add(path, row_keys)

    def facts(self) -> dict[str, Any]:
        """Return the measurements made along with the rows (dim, params, images/s).

        Empty if there are none or they have changed; they are then taken again.
        """
        return read_facts(self.folder / FACTS_FILE) or {}

    def write_facts(self, facts: dict[str, Any]) -> None:
        """Store measurements next to the rows, with their digest."""
        write_json(self.folder / FACTS_FILE, {"facts": facts, "sha256": digest_json(facts)})


class FeatureStore:
    """The store in one cache folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def space(self, record: dict[str, Any]) -> FeatureSpace:
        """Return the feature space of a record, with its stored rows indexed."""
        return FeatureSpace(self.root, record)

    def recall(self, record: dict[str, Any]) -> dict[str, np.ndarray] | None:
        """Return the arrays stored for a record of inputs, or None."""
        folder = self.root / RESULTS / digest_json(record)[:32]
        for path in sorted(folder.glob("*.safetensors")):
            arrays = read_shard(path)
            if arrays is not None:
                return arrays
        return None

    def remember(self, record: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        """Store arrays that are a pure function of `record`."""
        folder = self.root / RESULTS / digest_json(record)[:32]
        _write_shard(folder, {k: np.ascontiguousarray(v) for k, v in arrays.items()})
