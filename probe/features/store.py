"""The content-keyed store of features and results on disk.

A feature space is everything that determines a feature besides the image: backbone, weights,
preprocessing, resolution, precision, versions. Its digest names a folder, in which rows are keyed
by the image's content. A changed image, checkpoint, bank entry or library therefore never hits
stale rows, and a changed image costs only that image.

Every file is written atomically under the digest of its own bytes, so a process may be killed at
any moment and processes may share the store without locks.
"""

import hashlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from probe.errors import ProbeError
from probe.features.key_index import KeyIndex
from probe.features.shard import KEY_BYTES, Shard, write_shard
from probe.files import digest_bytes, digest_json, write_json
from probe.stored import read_record
from probe.stored_arrays import read_arrays, recall, write_arrays

FEATURES, RESULTS = "features", "results"  # folders of the cache
REFERENCES = "references"  # the same: copies of references that lie elsewhere
FACTS_FILE, SPACE_FILE = "facts.json", "space.json"
MOST_ROWS = 2**32  # in one file


@dataclass(frozen=True)
class _Facts:
    """A backbone's measurements, with a digest that detects changes."""

    facts: dict[str, Any]
    sha256: str


def digest_keys(keys: Sequence[str]) -> str:
    """Return the digest of a list of content keys, in order."""
    return digest_bytes("\n".join(keys).encode())


def _row_keys(keys: Sequence[str]) -> np.ndarray:
    """Return the 32 bytes that key each image's row, uint8 (n, 32)."""
    digests = b"".join(hashlib.sha256(key.encode()).digest() for key in keys)
    return np.frombuffer(digests, np.uint8).reshape(-1, KEY_BYTES)


def _by_shard(places: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield the number of each shard among places, their positions, and its rows at those.

    Args:
        places: shard * MOST_ROWS + row of each; negative ones are left out.
    """
    order = np.argsort(places, kind="stable")
    order = order[places[order] >= 0]
    shards, rows = np.divmod(places[order], MOST_ROWS)
    numbers, first = np.unique(shards, return_index=True)
    parts = zip(np.split(order, first[1:]), np.split(rows, first[1:]), strict=True)
    for number, (positions, at) in zip(numbers.tolist(), parts, strict=False):
        yield number, positions, at


def read_facts(path: Path) -> dict[str, Any] | None:
    """Return a file's measurements, None if it is missing, damaged or changed."""
    try:
        found = read_record(path, _Facts, "")
    except ProbeError:
        return None
    return found.facts if digest_json(found.facts) == found.sha256 else None


def is_intact(path: Path) -> bool:
    """Return whether a file of the store is usable; a missing file is not damaged."""
    read = read_facts if path.name == FACTS_FILE else read_arrays
    return read(path) is not None or not path.exists()


class FeatureSpace:
    """The rows of one backbone under one preprocessing and precision.

    Opening one reads the keys of the rows; features stay on disk until they are read, and every row
    is checked then.

    Attributes:
        record: everything that determines a feature besides the image; plain values.
        key: its digest, 64 hex digits.
        folder: the folder of the rows.
    """

    def __init__(self, root: Path, record: dict[str, Any]) -> None:
        self.record = record
        self.key = digest_json(record)
        self.folder = root / FEATURES / self.key[:32]
        self._index, self._shards = KeyIndex(), list[Shard]()
        self._sound: list[np.ndarray] = []  # of each shard: which rows have been found whole
        self._known: set[Path] = set()
        self._lock = threading.RLock()  # images are looked up while earlier ones are stored
        self.refresh()

    def __getstate__(self) -> dict[str, Any]:
        """Return what goes to another process: everything but the lock."""
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take what `__getstate__` returned."""
        vars(self).update(state, _lock=threading.RLock())

    def refresh(self) -> None:
        """Find rows that other processes have stored since."""
        with self._lock:
            found = [
                (shard, keys)
                for path in sorted(set(self.folder.glob("*.safetensors")) - self._known)
                if (keys := (shard := Shard(path)).keys()) is not None
            ]
            self._add(found)

    def _add(self, found: Sequence[tuple[Shard, np.ndarray]], *, sound: bool = False) -> None:
        """Add shards and the keys of their rows, uint8 (n, 32)."""
        places = [np.empty(0, np.int64)]
        for shard, keys in found:
            places.append(len(self._shards) * MOST_ROWS + np.arange(len(keys)))
            self._known.add(shard.path)
            self._shards.append(shard)
            self._sound.append(np.full(len(keys), sound))
        if found:
            self._index.add(np.concatenate([keys for _, keys in found]), np.concatenate(places))

    def missing(self, keys: Sequence[str]) -> list[int]:
        """Return the positions in `keys` that have no row, or a damaged one.

        Raises:
            CacheError: if the rows cannot be read.
        """
        wanted = _row_keys(keys)
        with self._lock:
            while True:
                places = self._index.find(wanted)
                damaged = [n for n, _, rows in _by_shard(places) if not self._check(n, rows)]
                if not damaged:
                    return np.flatnonzero(places < 0).tolist()
                for number in damaged:
                    self._index.drop(number * MOST_ROWS, (number + 1) * MOST_ROWS)

    def _check(self, number: int, rows: np.ndarray) -> bool:
        """Return whether some rows of a shard are whole."""
        todo = rows[~self._sound[number][rows]]
        try:
            if len(todo) and self._shards[number].rows(todo.tolist()) is None:
                return False
        except FileNotFoundError:  # pruned by another process
            return False
        self._sound[number][todo] = True
        return True

    def read(self, keys: Sequence[str]) -> np.ndarray:
        """Return the rows of all keys, float32 (n, d).

        Raises:
            KeyError: if a key has no row; call `missing` first.
            ProbeError: if a file was removed or damaged in the meantime.
        """
        with self._lock:
            places = self._index.find(_row_keys(keys))
        if (places < 0).any():
            raise KeyError(keys[int(np.argmin(places))])
        found = np.empty((len(keys), 0), np.float32)
        for number, positions, rows in _by_shard(places):
            shard = self._shards[number]
            try:
                part = shard.rows(rows.tolist())
            except FileNotFoundError as error:  # pruned in the meantime
                raise ProbeError(
                    f"{shard.path} was removed from the cache while it was in use. Repeat the "
                    "command."
                ) from error
            if part is None:
                raise ProbeError(
                    f"{shard.path} was damaged while it was in use. Repeat the command: what it "
                    "held is computed again."
                )
            if not found.shape[1]:
                found = np.empty((len(keys), part.shape[1]), np.float32)
            found[positions] = part
        return found

    def write(self, keys: Sequence[str], features: np.ndarray) -> None:
        """Store rows: features float32 (n, d), one per key. They are on disk on return."""
        self._write(_row_keys(keys), np.ascontiguousarray(features, dtype=np.float32))

    def take(self, row_keys: np.ndarray, features: np.ndarray) -> int:
        """Store the rows of another store that are not here, and return how many they are.

        Args:
            row_keys: uint8 (n, 32), as in the store's files.
            features: float32 (n, d).
        """
        with self._lock:
            new = np.flatnonzero(self._index.find(row_keys) < 0)
        if len(new):
            self._write(row_keys[new], features[new])
        return len(new)

    def _write(self, row_keys: np.ndarray, features: np.ndarray) -> None:
        if not (self.folder / SPACE_FILE).exists():
            write_json(self.folder / SPACE_FILE, self.record)
        path = write_shard(self.folder, row_keys, features)
        with self._lock:
            self._add([(Shard(path), row_keys)], sound=True)

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
        return recall(self.root / RESULTS / digest_json(record)[:32])

    def remember(self, record: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        """Store arrays that are a pure function of `record`."""
        write_arrays(self.root / RESULTS / digest_json(record)[:32], arrays)
