"""Read images from NumPy files of pixels, as ADM's evaluator takes them: `.npz` and `.npy`.

Pixels are read by offset; the array is never in memory as a whole. There are no files inside to
hash, so an image's key is that of its pixels, as for arrays passed in Python.
"""

import io
import math
import tokenize
import zipfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch

from probe.errors import BrokenImageError, ImagesError, first_line, printable
from probe.events import OnEvent
from probe.images.archive import DAMAGED, member_start
from probe.images.base import Batch, Broken, Header
from probe.images.blob import Blob, BlobFile
from probe.images.labels import MOST_CLASSES
from probe.images.limits import map_threads
from probe.images.places import open_blob
from probe.images.remote import is_remote
from probe.images.resize import squares
from probe.images.tensors import TensorSource

NPZ, NPY = ".npz", ".npy"
IMAGES, LABELS = "arr_0", "arr_1"  # what `np.savez(path, images, labels)` calls them
FEATURES = ("real", "fake")
HEADER_BYTES = 2**16
MOST_LABELS = 2**28  # bytes
# What NumPy's parser of headers raises on damaged or hostile files.
UNREADABLE = (*DAMAGED, tokenize.TokenError, SyntaxError, TypeError, RecursionError, MemoryError)


class ArraySource:
    """The images in a NumPy file.

    Args:
        blob: the file.
        name: for messages.

    Raises:
        ImagesError: if it is damaged, compressed, or holds no images.
        OSError: if it cannot be read.
    """

    classes: int | None = None
    notes: Sequence[str] = ()

    def __init__(self, blob: Blob, name: str) -> None:
        self.name, self._blob = name, blob
        is_npz = PurePosixPath(blob.place).suffix.lower() == NPZ
        try:
            self._members = _members(blob) if is_npz else {IMAGES: (0, blob.size)}
            if IMAGES not in self._members:
                raise ImagesError(f"{name}: {_misses(list(self._members))}")
            self._start, shape, dtype = _header(blob, *self._members[IMAGES])
        except UNREADABLE as error:
            raise ImagesError(
                f"{name}: cannot be read as NumPy's ({first_line(error)}). Save it again."
            ) from error
        given = f"{dtype} {shape}"
        if len(shape) == 2:
            raise ImagesError(
                f"{name}: holds {given}, one row of features per image. Features are given to "
                "`probe rank --features`, with the arrays 'real' and 'fake'."
            )
        if dtype != np.uint8 or len(shape) != 4 or 3 not in (shape[3], shape[1]):
            raise ImagesError(f"{name}: holds {given}; uint8 (N, H, W, 3) is expected.")
        if 0 in shape:
            raise ImagesError(f"{name}: {given} holds no images.")
        self._count, self._shape, self._is_last = shape[0], shape[1:], shape[3] == 3
        self._threads = blob.threads

    def __len__(self) -> int:
        """Return how many images there are."""
        return self._count

    @property
    def labels(self) -> Sequence[int] | None:
        """Class of every image, from the array arr_1; None if there is none.

        Raises:
            ImagesError: if it does not hold one class per image.
        """
        return self._labels

    @cached_property
    def _labels(self) -> list[int] | None:
        if LABELS not in self._members:
            return None
        try:
            start, shape, dtype = _header(self._blob, *self._members[LABELS])
            size = dtype.itemsize * len(self)
            if shape != (len(self),) or dtype.kind not in "iu" or size > MOST_LABELS:
                raise ValueError(f"it is {dtype} {shape}; one integer per image is expected")
            values = np.frombuffer(self._blob.read(start, size), dtype)
            if not 0 <= values.min() <= values.max() < MOST_CLASSES:
                raise ValueError(f"its values are from {values.min()} to {values.max()}")
        except UNREADABLE as error:
            raise ImagesError(f"{self.name}: '{LABELS}' holds no classes: {error}.") from error
        return values.tolist()

    @property
    def resolution(self) -> int:
        """The images' short side."""
        return min(self._side)

    @property
    def _side(self) -> tuple[int, ...]:
        """Height and width in pixels."""
        return self._shape[:2] if self._is_last else self._shape[1:]

    def identity(self) -> dict[str, Any]:
        """Return the kind, path and shape."""
        return {"kind": "array", "path": self.name, "shape": [len(self), *self._shape]}

    def keys(self, indices: Sequence[int]) -> list[str]:
        """Return the digest of each image's pixels; "unreadable:…" for one that cannot be read."""
        good, images, _ = self._read(indices)
        known = dict(
            zip(good, TensorSource(images).keys(range(len(good))) if good else [], strict=True)
        )
        return [known.get(i, printable(f"unreadable:{self.name}:{i}")) for i in indices]

    def marks(self, indices: Sequence[int]) -> list[str]:
        """Return the file's size and date with each image's number."""
        return [f"{i}:{self._blob.mark}" for i in indices]

    def captions(self, indices: Sequence[int]) -> list[str]:
        """Return "image 17"."""
        return [f"image {i}" for i in indices]

    def headers(self, indices: Sequence[int]) -> list[Header | None]:
        """Return a header without a format, because how these images were stored is unknown."""
        height, width = self._side
        return [Header(None, (width, height), "RGB") for _ in indices]

    def load(self, indices: Sequence[int], resolution: int) -> Batch:
        """Return uint8 (M, 3, resolution, resolution); report images that cannot be read."""
        good, images, broken = self._read(indices)
        return Batch(squares(images, resolution), good, broken)

    def _read(self, indices: Sequence[int]) -> tuple[list[int], torch.Tensor, dict[int, Broken]]:
        """Return which images can be read, uint8 (n, 3, H, W), and why the others cannot."""
        size = math.prod(self._shape)

        def read(index: int) -> np.ndarray | Broken:
            try:
                data = self._blob.read(self._start + index * size, size)
                if len(data) < size:
                    raise BrokenImageError("the file is cut off")
            except (OSError, BrokenImageError) as error:
                return Broken(f"image {index}", f"cannot be read: {first_line(error)}")
            pixels = np.frombuffer(data, np.uint8).reshape(self._shape)
            return pixels.transpose(2, 0, 1) if self._is_last else pixels

        read_ones = map_threads(read, indices, self._threads)
        broken = {
            i: why for i, why in zip(indices, read_ones, strict=True) if isinstance(why, Broken)
        }
        good = [i for i in indices if i not in broken]
        images = np.empty((len(good), 3, *self._side), np.uint8)
        for row, image in enumerate(p for p in read_ones if not isinstance(p, Broken)):
            images[row] = image
        return good, torch.from_numpy(images), broken


def _members(blob: Blob) -> dict[str, tuple[int, int]]:
    """Return the arrays of an .npz file: name → offset and bytes.

    Raises:
        ImagesError: if they are compressed.
    """
    archive = zipfile.ZipFile(io.BufferedReader(BlobFile(blob), blob.window))
    found = {}
    for info in archive.infolist():
        name = info.filename.removesuffix(NPY)
        if name in (IMAGES, LABELS) and info.compress_type != zipfile.ZIP_STORED:
            raise ImagesError(
                f"{blob.place}: is compressed, so images cannot be read by index. Save it with "
                "np.savez, not np.savez_compressed."
            )
        found[name] = member_start(blob, info), info.file_size
    return found


def _misses(names: list[str]) -> str:
    if all(name in names for name in FEATURES):
        return (
            "holds features ('real' and 'fake'), not images. Pass it to `probe rank` with "
            "--features."
        )
    held = ", ".join(f"'{name}'" for name in names[:10]) or "nothing"
    return f"has no '{IMAGES}' of images, only {held}. Save them with np.savez(path, images)."


def _header(blob: Blob, start: int, size: int) -> tuple[int, tuple[int, ...], np.dtype]:
    """Return where an array's values begin, its shape and its type.

    Raises:
        ValueError: if it is damaged, holds Python objects, or is in another order; or another of
            `UNREADABLE`.
    """
    head = io.BytesIO(blob.read(start, min(size, HEADER_BYTES)))
    version = np.lib.format.read_magic(head)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"version {version} of the format")
    shape, is_fortran, dtype = readers[version](head)
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    if is_fortran and len(shape) > 1:
        raise ValueError("it is in Fortran's order; save np.ascontiguousarray(array)")
    total = dtype.itemsize
    for length in shape:  # of Python's integers, which do not overflow
        total *= length
    if any(length < 0 for length in shape) or head.tell() + total != size:
        raise ValueError("its size is not what its header says")
    return start + head.tell(), shape, dtype


def is_array(place: str) -> bool:
    """Return whether a path or URL names a NumPy file."""
    path = PurePosixPath(place)
    return path.suffix.lower() in (NPZ, NPY) and (is_remote(place) or Path(place).is_file())


def open_array(place: str, name: str, on_event: OnEvent) -> ArraySource:
    """Open a NumPy file of pixels as an `ImageSource`.

    Args:
        place: its path or URL.
        name: its name in messages.
        on_event: told nothing, since it opens in one step.

    Raises:
        ImagesError: if it holds no images.
        OSError: if it cannot be read.
    """
    return ArraySource(open_blob(place), name)
