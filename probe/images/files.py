"""Images that are files, from any source of bytes: what folder, zip, tar and others share."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np
import torch

from probe.errors import BrokenImageError, ImagesError, printable
from probe.files import digest_bytes
from probe.images.base import Batch, Broken, Header
from probe.images.decode import decode_square, name_broken
from probe.images.depth import key_suffix
from probe.images.encoded import FORMATS
from probe.images.header import read_header
from probe.images.labels import Labels, find_labels
from probe.images.limits import TOO_LARGE, map_threads
from probe.images.names import Found
from probe.images.survey import Survey, survey

SURVEYED = 256  # files
MARKED = 512  # files whose marks a thread reads at a time
PACKED = (".tar", ".parquet", ".zip", ".npz")  # files that hold images

Read = Callable[[str], AbstractContextManager[bytes]]


class FileSource:
    """An `ImageSource` of encoded files.

    A file stays what it was when first read: if it has changed since, it counts as broken.

    Args:
        name: what the user typed.
        kind: "folder", "zip", "tar", …, for the record.
        found: the files.
        read: relative path → its bytes, or OSError or BrokenImageError; called from several
            threads.
        mark: relative path → what is known of the file without reading it (size and date, or
            checksum), or OSError; called from several threads.
        labels: gives the classes if there is no dataset.json.
        threads: how many files to read at the same time; by default one per core.

    Raises:
        ImagesError: if there are no candidates.
    """

    def __init__(
        self,
        name: str,
        kind: str,
        found: Found,
        read: Read,
        *,
        mark: Callable[[str], str],
        labels: Callable[[], Labels | None] = lambda: None,
        threads: int | None = None,
    ) -> None:
        if not found.images:
            others = f" among {found.left_out.total()} files ({_suffixes(found.left_out)})"
            remedy = f"Put some in, as {', '.join(FORMATS)}, or pass another path."
            packed = next((suffix for suffix in PACKED if suffix in found.left_out), None)
            if packed is not None:
                remedy = f"Name the folder of the {packed} files itself, or the files."
            raise ImagesError(
                f"{name}: no images found{others if found.left_out else ''}. {remedy}"
            )
        self.name, self.kind = name, kind
        self._found, self._read, self._mark = found, read, mark
        self._beside, self._threads = labels, threads
        self._digests = FirstDigests(len(found.images))
        self._refused: dict[int, str] = {}  # file → why it is unusable

    def __len__(self) -> int:
        """Return the number of candidates."""
        return len(self.names)

    @property
    def names(self) -> Sequence[str]:
        """Relative paths of the candidates, sorted, as the file system has them."""
        return self._found.images

    @property
    def labels(self) -> Sequence[int] | None:
        """Class of every candidate, None if there are no labels.

        Raises:
            ImagesError: if they are invalid.
        """
        return None if self._labels is None else self._labels.indices

    @property
    def classes(self) -> int | None:
        """Length of the one-hot lists in dataset.json; None if there are no lists.

        Raises:
            ImagesError: if the dataset.json is invalid.
        """
        return None if self._labels is None else self._labels.classes

    @cached_property
    def _labels(self) -> Labels | None:
        found = find_labels(self.names, self._found.labels, self._read, self.name)
        return self._beside() if found is None else found

    @property
    def resolution(self) -> int:
        """Most common short side in pixels of up to 256 evenly spaced candidates; ties: smaller.

        Raises:
            ImagesError: if none of those is a readable image.
        """
        sides = self._survey.sides
        if not sides:
            raise ImagesError(
                f"{self.name}: none of {self._survey.looked_at} files looked at is a readable "
                f"image: {name_broken(self._survey.broken)}."
            )
        return min(sides, key=lambda side: (-sides[side], side))

    @property
    def notes(self) -> list[str]:
        """What is odd, which files were skipped, and how values of more than 8 bits were read."""
        left_out, notes = self._found.left_out, [*self._found.notes]
        if left_out:
            count = "1 file" if left_out.total() == 1 else f"{left_out.total()} files"
            notes.append(
                f"{self.name}: {count} left out because of the suffix: {_suffixes(left_out)}."
            )
        return notes + self._survey.notes(self.name)

    @cached_property
    def _survey(self) -> Survey:
        looked_at = np.linspace(0, len(self) - 1, min(len(self), SURVEYED)).round().astype(int)
        return survey(looked_at.tolist(), self._bytes, self._caption)

    def identity(self) -> dict[str, Any]:
        """Return the kind, path and number of candidates."""
        return {"kind": self.kind, "path": self.name, "candidates": len(self)}

    def captions(self, indices: Sequence[int]) -> list[str]:
        """Return the relative paths."""
        return [self._caption(i) for i in indices]

    def _caption(self, index: int) -> str:
        return printable(self.names[index])

    def keys(self, indices: Sequence[int]) -> list[str]:
        """Return the SHA-256 of each file's bytes; "unreadable:…" for an unusable one.

        The key of an image of more than 8 bits also includes its scaling, which the set determines.
        """
        spans = self._survey.spans

        def key(index: int) -> str:
            try:
                with self._bytes(index) as data:
                    return self._digests.of(index) + key_suffix(data, spans)
            except BrokenImageError:
                return printable(f"unreadable:{self.name}:{self.names[index]}")

        return map_threads(key, indices, self._threads)

    def marks(self, indices: Sequence[int]) -> list[str]:
        """Return each file's name with its size and date or its checksum, without reading it."""

        def mark(index: int) -> str:
            name = self.names[index]
            try:
                return f"{name}:{self._mark(name)}"
            except OSError:
                return f"{name}:unreadable"

        # In parts, because handing a file to a thread costs more than asking for its date.
        parts = [indices[start : start + MARKED] for start in range(0, len(indices), MARKED)]
        return [m for part in map_threads(lambda p: list(map(mark, p)), parts) for m in part]

    def headers(self, indices: Sequence[int]) -> list[Header | None]:
        """Return each file's encoding, None for a broken one."""

        def header(index: int) -> Header | None:
            try:
                with self._bytes(index) as data:
                    return read_header(data)
            except BrokenImageError:
                return None

        return map_threads(header, indices, self._threads)

    def load(self, indices: Sequence[int], resolution: int) -> Batch:
        """Decode to uint8 (M, 3, resolution, resolution); report broken files."""
        images = torch.empty(len(indices), 3, resolution, resolution, dtype=torch.uint8)
        pixels, spans = images.numpy(), self._survey.spans

        def fill(row: int) -> Broken | None:
            try:
                with self._bytes(indices[row]) as data:
                    square = decode_square(data, resolution, spans)
            except BrokenImageError as error:
                return Broken(self._caption(indices[row]), str(error))
            pixels[row] = square.transpose(2, 0, 1)
            return None

        found = map_threads(fill, range(len(indices)), self._threads)
        broken = {indices[row]: b for row, b in enumerate(found) if b is not None}
        if not broken:
            return Batch(images, list(indices), {})
        good = [row for row, b in enumerate(found) if b is None]
        return Batch(images[good], [indices[row] for row in good], broken)

    @contextmanager
    def _bytes(self, index: int) -> Iterator[bytes]:
        """Yield a file's bytes, guaranteed to be the same on every read.

        Raises:
            BrokenImageError: if it cannot be read or has changed; from then on, always.
        """
        with ExitStack() as stack:
            try:
                if index in self._refused:
                    raise BrokenImageError(self._refused[index])
                data = stack.enter_context(self._read(self.names[index]))
                # Features are stored under the requested key, so they must come from its bytes.
                if not self._digests.agree(index, digest_bytes(data)):
                    raise BrokenImageError("changed since it was first read")
            except (OSError, MemoryError, BrokenImageError) as error:
                self._refused[index] = _why(error)
                raise BrokenImageError(self._refused[index]) from error
            yield data


class FirstDigests:
    """What every file's digest was when it was first read; 32 bytes for each of many millions.

    Args:
        count: how many files.
    """

    def __init__(self, count: int) -> None:
        self._rows = np.zeros((count, 32), np.uint8)  # takes no memory before it is written to
        self._lock = Lock()

    def of(self, index: int) -> str:
        """Return the digest of a file that was read, 64 hex digits."""
        return self._rows[index].tobytes().hex()

    def agree(self, index: int, digest: str) -> bool:
        """Return whether a file has the digest that it had first, which it has if it is new."""
        with self._lock:
            if not self._rows[index].any():
                self._rows[index] = np.frombuffer(bytes.fromhex(digest), np.uint8)
            return self.of(index) == digest


def _why(error: Exception) -> str:
    """Return the reason why a file is unusable."""
    if isinstance(error, OSError):
        return f"cannot be read: {(error.strerror or str(error)).lower()}"
    return str(error) if isinstance(error, BrokenImageError) else TOO_LARGE


def _suffixes(left_out: Counter[str], most: int = 5) -> str:
    """Return text that counts the files per suffix."""
    order = sorted(left_out.items(), key=lambda found: (-found[1], found[0]))
    named = [f"{n} {printable(suffix, 12) or 'without a suffix'}" for suffix, n in order[:most]]
    return ", ".join(named) + (", …" if len(order) > most else "")
