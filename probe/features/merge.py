"""Join other cache folders into this one. No torch here.

What is here stays as it is: of the other stores only what is missing is taken, file by file, so
that other processes may use both, and a merge that was interrupted is finished by repeating it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from probe.errors import CacheError, ProbeError, UsageError
from probe.features.shard import KEY_BYTES
from probe.features.store import (
    FACTS_FILE,
    FEATURES,
    RESULTS,
    SPACE_FILE,
    FeatureStore,
    read_facts,
)
from probe.files import copy_file, digest_json, near_path
from probe.stored import read_record
from probe.stored_arrays import read_arrays


@dataclass
class Merged:
    """What a merge did.

    Attributes:
        rows: number of rows that were taken: features of one image in one backbone.
        present: number of rows that were here already.
        results: number of probe results that were taken.
        damaged: files that were not taken, because their contents are not what was written, or
            cannot be read.
    """

    rows: int = 0
    present: int = 0
    results: int = 0
    damaged: list[Path] = field(default_factory=list)


def check_other(other: Path, root: Path) -> None:
    """Check that a folder is another cache.

    Raises:
        UsageError: it is no folder, holds no features, or is this cache itself.
    """
    if not other.is_dir():
        what = "is not a folder" if other.exists() else "there is no such folder"
        raise UsageError(f"{other}: {what}.{near_path(other)} Name another cache folder.")
    if root.exists() and other.samefile(root):
        raise UsageError(f"{other} is this cache itself. Name another one.")
    if not any((other / kind).is_dir() for kind in (FEATURES, RESULTS)):
        raise UsageError(
            f"{other} is not a cache folder: it has neither {FEATURES}/ nor {RESULTS}/. Name what "
            "PROBE_CACHE_DIR was where the features were computed."
        )


def merge_caches(other: Path, root: Path) -> Merged:
    """Take the features and results of another cache folder that are not in this one.

    Args:
        other: the other folder; only read.
        root: this one.

    Raises:
        CacheError: this one cannot be read or written.
    """
    done, store = Merged(), FeatureStore(root)
    for folder in sorted((other / FEATURES).glob("*/")):
        _merge_space(folder, store, done)
    for folder in sorted((other / RESULTS).glob("*/")):
        _merge_result(folder, root / RESULTS / folder.name, done)
    return done


def _merge_space(folder: Path, store: FeatureStore, done: Merged) -> None:
    shards = sorted(folder.glob("*.safetensors"))
    record = _record(folder)
    if record is None:
        done.damaged += [folder / SPACE_FILE] if shards else []
        return
    space = store.space(record)
    here, there = space.facts(), read_facts(folder / FACTS_FILE)
    if there is None and (folder / FACTS_FILE).exists():
        done.damaged.append(folder / FACTS_FILE)
    width = (here or there or {}).get("dim")
    for path, arrays in _read(shards, done):
        keys, features = arrays.get("keys"), arrays.get("features")
        if keys is None or features is None or not _are_rows(keys, features, width):
            done.damaged.append(path)
            continue
        width = features.shape[1]
        taken = space.take(keys, features)
        if there and not here:  # after rows, because facts say that there are some
            space.write_facts(there)
            here = there
        done.rows += taken
        done.present += len(keys) - taken


def _record(folder: Path) -> dict[str, Any] | None:
    """Return a feature space's record, None if it is not the one that its folder stands for."""
    try:
        record = read_record(folder / SPACE_FILE, dict[str, Any], "")
    except ProbeError:
        return None
    return record if digest_json(record).startswith(folder.name) else None


def _are_rows(keys: np.ndarray, features: np.ndarray, width: int | None) -> bool:
    """Return whether two arrays are rows of a feature space of a width, if that is known."""
    return (
        keys.dtype == np.uint8
        and features.dtype == np.float32
        and keys.ndim == features.ndim == 2
        and keys.shape == (len(features), KEY_BYTES)
        and features.shape[1] == (width or features.shape[1])
        and features.shape[1] > 0
        and bool(np.isfinite(features).all())
    )


def _merge_result(folder: Path, here: Path, done: Merged) -> None:
    """Take the result of one probe, if there is none."""
    if any(here.glob("*.safetensors")):
        return
    for path, _ in _read(sorted(folder.glob("*.safetensors")), done):
        copy_file(path, here / path.name)
        done.results += 1


def _read(paths: list[Path], done: Merged) -> Iterator[tuple[Path, dict[str, np.ndarray]]]:
    """Yield files of a store with their arrays; damaged ones are noted."""
    for path in paths:
        try:
            arrays = read_arrays(path)
        except CacheError:  # of the other folder, not of this one
            arrays = None
        if arrays is not None:
            yield path, arrays
        elif path.exists():  # not removed in the meantime
            done.damaged.append(path)
