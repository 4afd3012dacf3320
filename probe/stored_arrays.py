"""Arrays on disk, in files named after the digest of their own bytes.

Every file is written atomically, so a process may be killed at any moment and processes may share a
folder without locks. A damaged file is a miss: what it held is computed again.
"""

from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from probe.files import digest_bytes, in_cache, write_bytes

INDEXES = "indexes"  # folder of the cache: where the images of tars are
NAME_DIGITS = 32  # of the digest, in a file's name


def write_arrays(folder: Path, arrays: dict[str, np.ndarray]) -> Path:
    """Store arrays in a new file of a folder, and return its path. They are on disk on return.

    Raises:
        ProbeError: if it cannot be written.
    """
    data = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    path = folder / f"{digest_bytes(data)[:NAME_DIGITS]}.safetensors"
    write_bytes(path, data)
    return path


def read_arrays(path: Path) -> dict[str, np.ndarray] | None:
    """Return a file's arrays, or None if it is missing or its bytes do not match its name.

    Raises:
        CacheError: if it cannot be read.
    """
    try:
        with in_cache():
            data = path.read_bytes()
    except FileNotFoundError:  # pruned by another process
        return None
    if digest_bytes(data)[:NAME_DIGITS] != path.stem:
        return None
    try:
        return load(data)
    except SafetensorError:
        return None


def recall(folder: Path) -> dict[str, np.ndarray] | None:
    """Return the arrays of a whole file in a folder, or None if there is none.

    Raises:
        CacheError: if one cannot be read.
    """
    for path in sorted(folder.glob("*.safetensors")):
        arrays = read_arrays(path)
        if arrays is not None:
            return arrays
    return None
