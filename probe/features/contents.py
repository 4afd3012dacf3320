"""The cache folder's contents: list, verify, shrink. No torch here."""

import json
import os
import shutil
import struct
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from probe.features.store import (
    FACTS_FILE,
    FEATURES,
    REFERENCES,
    RESULTS,
    SPACE_FILE,
    is_intact,
)
from probe.files import in_cache
from probe.stored_arrays import INDEXES

# What reading a damaged file may raise.
DAMAGED = (
    OSError, ValueError, LookupError, TypeError, OverflowError, RecursionError, struct.error,
)  # fmt: skip
# Folder → kind of part.
KINDS = {FEATURES: "features", RESULTS: "result", INDEXES: "index", REFERENCES: "reference"}
IN_USE_SECONDS = 3600.0  # anything newer may belong to a running process


@dataclass(frozen=True)
class Part:
    """One folder of the cache.

    Attributes:
        kind: "features" (of one backbone at one resolution and precision), "result" (of a probe
            on such features), "index" (of a tar of images) or "reference" (a copy of a remote one).
        what: a description for people: "timm resnet18 at 64 px, fp32".
        folder: its path.
        rows: number of images it has features of; 0 for the others.
        size: bytes.
        written: time of the last addition, in seconds since 1970.
    """

    kind: str
    what: str
    folder: Path
    rows: int
    size: int
    written: float


def parts(root: Path) -> list[Part]:
    """Return the cache's parts, largest first; other folders in the root are ignored.

    Args:
        root: the cache folder; it may not exist.
    """
    found = []
    for kind, name in KINDS.items():
        for folder in sorted((root / kind).glob("*/")):
            facts = [path.stat() for path in _files(folder)]
            if not facts:
                continue
            rows = 0
            if kind == FEATURES:
                rows = sum(_rows(path) for path in folder.glob("*.safetensors"))
            size, written = sum(f.st_size for f in facts), max(f.st_mtime for f in facts)
            found.append(Part(name, _what(folder, kind), folder, rows, size, written))
    return sorted(found, key=lambda part: (-part.size, str(part.folder)))


def damaged_files(root: Path) -> list[Path]:
    """Return the files whose contents differ from what was written; this reads every file.

    Such files are never used: their contents are computed again.
    """
    return [
        path
        for kind in KINDS
        for pattern in ("*/*.safetensors", f"*/{FACTS_FILE}")
        for path in sorted((root / kind).glob(pattern))
        if not is_intact(path)
    ]


def choose_parts(
    found: Sequence[Part], *, older_than: float | None, larger_than: int | None, now: float
) -> list[Part]:
    """Return the parts to remove, oldest first; never any written within the last hour.

    Args:
        found: all parts.
        older_than: remove parts not written for this many seconds.
        larger_than: remove the oldest parts until at most this many bytes are left.
        now: seconds since 1970.
    """
    oldest = sorted(found, key=lambda part: part.written)
    left = sum(part.size for part in found)
    chosen = []
    for part in oldest:
        age = now - part.written
        old = older_than is not None and age > older_than
        too_large = larger_than is not None and left > larger_than
        if (old or too_large) and age > IN_USE_SECONDS:
            chosen.append(part)
            left -= part.size
    return chosen


def remove(chosen: Sequence[Part]) -> None:
    """Remove parts of the cache; parts that another process has already removed are no error."""
    for part in chosen:
        # Remove the record last, so that a folder interrupted halfway still says what it is.
        remove_files(sorted(_files(part.folder), key=lambda p: p.suffix == ".json"))
        shutil.rmtree(part.folder, ignore_errors=True)


def remove_files(paths: Iterable[Path]) -> None:
    """Remove files of the cache; missing files are no error.

    Raises:
        CacheError: if the cache cannot be written.
    """
    with in_cache():
        for path in paths:
            path.unlink(missing_ok=True)


def incomplete_files(root: Path) -> Iterator[Path]:
    """Yield incomplete files that a killed process left at least an hour ago."""
    for kind in KINDS:
        for path in sorted((root / kind).glob("*/.*")):
            if time.time() - path.stat().st_mtime > IN_USE_SECONDS:
                yield path


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_file()]


def _rows(path: Path) -> int:
    """Return a shard's number of rows, from its header alone; 0 for a damaged one."""
    try:
        with path.open("rb") as f:
            (length,) = struct.unpack("<Q", f.read(8))
            header = json.loads(f.read(min(length, os.fstat(f.fileno()).st_size)))
        return int(header["features"]["shape"][0])
    except DAMAGED:
        return 0


def _what(folder: Path, kind: str) -> str:
    if kind != FEATURES:
        return {RESULTS: "probe", INDEXES: "tar", REFERENCES: "reference"}[kind]
    try:
        record = json.loads((folder / SPACE_FILE).read_text("utf-8"))
        return (
            f"{record['source']} {record['model']} at {record['resolution']} px, "
            f"{record['precision']}, weights {record['weights'][:8]}"
        )
    except DAMAGED:
        return "unknown"
