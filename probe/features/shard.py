"""One file of features: the rows of some images, each with a digest of its own.

The digest covers the image's key and the row, so a few rows are checked without reading the others:
a sample of a large set touches most files, and only some rows of each. Files written before rows
had digests are checked whole, by the digest in their name.
"""

import hashlib
import json
import math
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np

from probe.files import in_cache
from probe.stored_arrays import read_arrays, write_arrays

KEY_BYTES, SUM_BYTES = 32, 16
LENGTH = struct.Struct("<Q")  # of the header, at the start of a safetensors file
MOST_HEADER = 2**16
# Name → type and bytes per value.
EXPECTED = {"keys": ("U8", 1), "features": ("F32", 4), "sums": ("U8", 1)}
# What a damaged header may raise.
DAMAGED = (ValueError, LookupError, TypeError, RecursionError, OverflowError)


def write_shard(folder: Path, keys: np.ndarray, features: np.ndarray) -> Path:
    """Store rows and return the file. They are on disk on return.

    Args:
        folder: of the feature space.
        keys: uint8 (n, 32).
        features: float32 (n, d).

    Raises:
        CacheError: if it cannot be written.
    """
    sums = np.stack([_sum(key, row) for key, row in zip(keys, features, strict=True)])
    return write_arrays(folder, {"keys": keys, "features": features, "sums": sums})


def _sum(key: np.ndarray, row: np.ndarray) -> np.ndarray:
    digest = hashlib.blake2b(key.tobytes(), digest_size=SUM_BYTES)
    digest.update(row.tobytes())
    return np.frombuffer(digest.digest(), np.uint8)


@dataclass(frozen=True)
class _Array:
    """Where an array of the file lies.

    Attributes:
        start: offset of its first byte.
        shape: rows and columns.
        bytes: per value.
    """

    start: int
    shape: tuple[int, int]
    bytes: int


class Shard:
    """A file of rows, read as far as needed.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def keys(self) -> np.ndarray | None:
        """Return the keys of all rows, uint8 (n, 32); None if the file is damaged or gone.

        Raises:
            CacheError: if it cannot be read.
        """
        try:
            with in_cache(), self.path.open("rb") as file:
                layout = _layout(file)
                if layout is None:
                    return None
                count = layout["keys"].shape[0]
                return _read(file, layout["keys"], range(count)).reshape(count, KEY_BYTES)
        except FileNotFoundError:
            return None

    def rows(self, rows: Sequence[int]) -> np.ndarray | None:
        """Return some rows, float32 (n, d), checked; None if one is damaged.

        Raises:
            FileNotFoundError: if the file is gone.
            CacheError: if it cannot be read.
        """
        with in_cache(), self.path.open("rb") as file:
            layout = _layout(file)
            if layout is None:
                return None
            if "sums" in layout:
                keys, found, sums = (_read(file, layout[name], rows) for name in EXPECTED)
                sound = all(map(np.array_equal, map(_sum, keys, found), sums))
                return found.view(np.float32) if sound else None
        whole = read_arrays(self.path)
        return None if whole is None else whole["features"][rows]


def _layout(file: BufferedReader) -> dict[str, _Array] | None:
    """Return where a shard's arrays lie, None if its header is damaged or its end is missing."""
    size = os.fstat(file.fileno()).st_size
    head = file.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack(head)
    if length > min(MOST_HEADER, size):
        return None
    try:
        header = json.loads(file.read(length))
        first, found = LENGTH.size + length, dict[str, _Array]()
        for name in header.keys() & EXPECTED.keys():
            found[name] = _array(header[name], first, *EXPECTED[name])
        end = first + max(header[name]["data_offsets"][1] for name in found)
        counts = {array.shape[0] for array in found.values()}
        widths = {name: found[name].shape[1] for name in found if name != "features"}
        known = {"keys": KEY_BYTES, "sums": SUM_BYTES}
        whole = {"keys", "features"} <= found.keys() and end == size and len(counts) == 1
        return found if whole and widths.items() <= known.items() else None
    except DAMAGED:
        return None


def _array(entry: dict[str, Any], first: int, kind: str, each: int) -> _Array:
    """Return where an array lies, by its entry in the header.

    Raises:
        ValueError: if the entry contradicts itself; another of `DAMAGED` if it is malformed.
    """
    start, end = entry["data_offsets"]
    rows, columns = entry["shape"]
    if (
        entry["dtype"] != kind
        or not 0 <= start <= end
        or math.prod((rows, columns, each)) != (end - start)
    ):
        raise ValueError(entry)
    return _Array(first + start, (rows, columns), each)


def _read(file: BufferedReader, array: _Array, rows: Sequence[int]) -> np.ndarray:
    """Return rows of an array in bytes, uint8 (n, bytes per row)."""
    width = array.shape[1] * array.bytes
    found = np.empty((len(rows), width), np.uint8)
    if rows == range(array.shape[0]):
        file.seek(array.start)
        file.readinto(found.data)
        return found
    for place, row in enumerate(rows):
        file.seek(array.start + row * width)
        file.readinto(found[place].data)
    return found
