"""Images that are files, wherever the bytes come from: the logic of folder and zip alike."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import Any, TypeVar

import numpy as np
import torch

from probe.errors import BrokenImageError, ImagesError, printable
from probe.files import digest_bytes
from probe.images.base import Batch, Broken, Header
from probe.images.decode import decode, read_header
from probe.images.resize import to_square

SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif"))
MOST_BYTES = 2**30  # of one encoded file: more than any image below the limit of pixels needs
THREADS = min(8, os.cpu_count() or 1)  # each may hold one decoded original
HEADERS_LOOKED_AT = 256

T = TypeVar("T")
R = TypeVar("R")


def is_hidden(part: str) -> bool:
    """Return whether one part of a path is hidden, or made by macOS beside the real files."""
    return (part.startswith(".") and part not in (".", "..")) or part == "__MACOSX"


def is_candidate(name: str) -> bool:
    """Return whether a relative path is taken for an image: by suffix, hidden parts excluded."""
    path = PurePosixPath(name)
    return path.suffix.lower() in SUFFIXES and not any(map(is_hidden, path.parts))


def map_threads(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Apply a function to every item with a few threads; results in the items' order.

    Worth it where the work releases the interpreter lock, as Pillow and hashlib do.
    """
    with ThreadPoolExecutor(THREADS) as threads:
        return list(threads.map(function, items))


class FileSource:
    """An `ImageSource` of encoded files.

    Args:
        name: what the user typed.
        kind: "folder" or "zip", for the record.
        names: relative paths of the candidates, sorted.
        read: relative path → bytes, or OSError or BrokenImageError; called from several threads.
        labels: class of every candidate, or None.

    Raises:
        ImagesError: no candidates.
    """

    def __init__(
        self,
        name: str,
        kind: str,
        names: Sequence[str],
        read: Callable[[str], bytes],
        labels: Sequence[int] | None,
    ) -> None:
        if not names:
            raise ImagesError(
                f"{name}: no images found. Put some in, as {', '.join(sorted(SUFFIXES))}, or pass "
                "another path."
            )
        self.name, self.kind, self.labels = name, kind, labels
        self._names, self._read = list(names), read
        self._resolution: int | None = None

    def __len__(self) -> int:
        """Return the number of candidates."""
        return len(self._names)

    @property
    def resolution(self) -> int:
        """Most common short side in pixels of up to 256 evenly spaced candidates; ties: smaller.

        Raises:
            ImagesError: none of those is a readable image.
        """
        if self._resolution is None:
            looked_at = np.linspace(0, len(self) - 1, min(len(self), HEADERS_LOOKED_AT))
            headers = self.headers(looked_at.round().astype(int).tolist())
            sides = Counter(min(h.size) for h in headers if h is not None)
            if not sides:
                raise ImagesError(
                    f"{self.name}: none of {len(headers)} files looked at is a readable image. "
                    "Check that the files are complete."
                )
            self._resolution = min(sides, key=lambda side: (-sides[side], side))
        return self._resolution

    def identity(self) -> dict[str, Any]:
        """Return kind, path and number of candidates."""
        return {"kind": self.kind, "path": self.name, "candidates": len(self)}

    def captions(self, indices: Sequence[int]) -> list[str]:
        """Return the relative paths."""
        return [printable(self._names[i]) for i in indices]

    def keys(self, indices: Sequence[int]) -> list[str]:
        """Return the SHA-256 of each file's bytes; "unreadable:…" for one that cannot be read."""

        def key(index: int) -> str:
            try:
                return digest_bytes(self._bytes(index))
            except BrokenImageError:
                return printable(f"unreadable:{self.name}:{self._names[index]}")

        return map_threads(key, indices)

    def headers(self, indices: Sequence[int]) -> list[Header | None]:
        """Return each file's encoding, None for a broken one."""

        def header(index: int) -> Header | None:
            try:
                return read_header(self._bytes(index))
            except BrokenImageError:
                return None

        return map_threads(header, indices)

    def load(self, indices: Sequence[int], resolution: int) -> Batch:
        """Decode to uint8 (M, 3, resolution, resolution); broken files are noted."""
        images = torch.empty(len(indices), 3, resolution, resolution, dtype=torch.uint8)
        pixels = images.numpy()

        def fill(row: int) -> Broken | None:
            try:
                square = to_square(decode(self._bytes(indices[row])), resolution)
            except BrokenImageError as error:
                return Broken(printable(self._names[indices[row]]), str(error))
            pixels[row] = square.transpose(2, 0, 1)
            return None

        found = map_threads(fill, range(len(indices)))
        broken = {indices[row]: b for row, b in enumerate(found) if b is not None}
        if not broken:
            return Batch(images, list(indices), {})
        good = [row for row, b in enumerate(found) if b is None]
        return Batch(images[good], [indices[row] for row in good], broken)

    def _bytes(self, index: int) -> bytes:
        try:
            return self._read(self._names[index])
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise BrokenImageError(f"cannot be read: {reason}") from error
        except MemoryError as error:
            raise BrokenImageError("too large for this machine's memory") from error
