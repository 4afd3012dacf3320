"""Read images from tars, one or thousands, by an index that is built once.

A tar has no list of its members, so its headers are read the first time, one after the other; what
they say is kept in the cache for as long as the tar's size and date stay. Images are then read by
offset, in any order.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from probe.errors import BrokenImageError, ImagesError, printable
from probe.events import OnEvent
from probe.files import cache_root, digest_json
from probe.images.blob import Blob
from probe.images.files import FileSource
from probe.images.labels import Labels
from probe.images.lazy import NamesOfParts
from probe.images.limits import ENCODED, map_threads
from probe.images.meter import Meter
from probe.images.names import Found
from probe.images.places import files_with, open_blobs
from probe.images.remote import RemoteBlob
from probe.images.tar import (
    BAD_LABEL,
    BLOCK,
    NO_LABEL,
    REASONS,
    TarIndex,
    header_sum,
    index_tar,
)
from probe.images.wids import disagreements, is_listing, read_listing
from probe.stored_arrays import INDEXES, recall, write_arrays
from probe.workers import Workers, usable_cores

INDEX_VERSION = 1  # increased if an index holds something else
# Compressed ones are taken too, to say what to do about them.
SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
FEW = 16  # tars that are indexed before processes would have started


class Shards:
    """The images of tars by name: path of the member, after that of its tar if there are several.

    Args:
        blobs: name of each tar → the tar.
        name: of the set, for messages.
        on_event: told of the reading of tars that have no index yet.

    Raises:
        ImagesError: if one is not a tar, or damaged.
        OSError: if one cannot be read.
    """

    def __init__(self, blobs: dict[str, Blob], name: str, on_event: OnEvent) -> None:
        self._blobs, self._titles = list(blobs.values()), list(blobs)
        self._numbers = {title: number for number, title in enumerate(self._titles)}
        threads = max(blob.threads for blob in self._blobs)
        self._indexes = _indexes_of(self._blobs, threads, f"indexing {name}", on_event)
        self.images = NamesOfParts((index.images for index in self._indexes), self.title)
        self.threads = threads

    def found(self) -> Found:
        """Return the images, and how many other files there are."""
        left_out = sum((index.left_out for index in self._indexes), Counter[str]())
        labels = list(self._indexes[0].names[self._indexes[0].images :]) if self._is_one else []
        return Found(self.images, labels, left_out)

    def samples(self, expected: Iterable[int]) -> list[int]:
        """Return the number of samples with an image in each tar.

        Args:
            expected: those numbers according to a list. A tar of so many images is not counted,
                since that would take a second for each million.
        """
        pairs = zip(self._indexes, expected, strict=True)
        return [index.images if index.images == n else index.samples() for index, n in pairs]

    @property
    def _is_one(self) -> bool:
        return len(self._blobs) == 1

    def title(self, number: int, row: int) -> str:
        """Return the name of a row of a tar's index."""
        name = self._indexes[number].names[row]
        return name if self._is_one else f"{self._titles[number]}/{name}"

    def _find(self, name: str) -> tuple[Blob, TarIndex, int]:
        """Return a member's tar, that tar's index, and its row."""
        if self._is_one:
            return self._blobs[0], self._indexes[0], self._indexes[0].names.find(name)
        end = name.find("/")
        while name[:end] not in self._numbers:
            end = name.find("/", end + 1)
            if end < 0:
                raise KeyError(name)
        number = self._numbers[name[:end]]
        index = self._indexes[number]
        return self._blobs[number], index, index.names.find(name[end + 1 :])

    @contextmanager
    def read(self, name: str) -> Iterator[bytes]:
        """Yield a member's bytes while holding memory for them.

        Raises:
            BrokenImageError: if it cannot be read as a file, or its tar has changed.
            OSError: if the tar cannot be read.
        """
        blob, index, row = self._find(name)
        size = int(index.sizes[row])
        if size in REASONS:
            raise BrokenImageError(REASONS[size])
        with ENCODED.take(min(size + BLOCK, ENCODED.most)):
            data = blob.read(int(index.starts[row]) - BLOCK, BLOCK + size)
            if len(data) < BLOCK + size or header_sum(data[:BLOCK]) != index.sums[row]:
                raise BrokenImageError("its tar changed after it was indexed")
            yield data[BLOCK:]

    def mark(self, name: str) -> str:
        """Return what is known of a member without reading it; it changes if its tar does."""
        blob, index, row = self._find(name)
        return f"{blob.mark}:{index.starts[row]}:{index.sizes[row]}:{index.sums[row]}"

    def labels(self, name: str) -> Labels | None:
        """Return the classes that lie beside the images; None if there are none.

        Args:
            name: of the set, for messages.

        Raises:
            ImagesError: if an image has none and others do, or one is not a class.
        """
        labels = np.concatenate([index.labels for index in self._indexes])
        if not len(labels) or (labels == NO_LABEL).all():
            return None
        for state, what, remedy in (
            (BAD_LABEL, "a .cls or .json beside it that holds no class", "Write 0, 1, 2, …"),
            (NO_LABEL, "no .cls and no 'label' in a .json beside it", "Label all or none"),
        ):
            wrong = np.flatnonzero(labels == state)
            if len(wrong):
                first = printable(self.images[int(wrong[0])])
                raise ImagesError(
                    f"{name}: {len(wrong)} of {len(labels)} images have no usable label; {first} "
                    f"has {what}. {remedy}."
                )
        return Labels(labels.tolist(), None)


def _indexes_of(
    blobs: Sequence[Blob], threads: int, what: str, on_event: OnEvent
) -> list[TarIndex]:
    """Return the index of each tar: the one in the cache, or a new one, which is put there."""
    stored = dict(zip(blobs, map_threads(_recall, blobs, threads), strict=True))
    new = [blob for blob, index in stored.items() if index is None]
    if new:
        meter = Meter(what, sum(blob.size for blob in new), on_event)
        stored |= zip(new, _make_all(new, threads, meter), strict=True)
    return [index for index in stored.values() if index is not None]


def _make_all(new: Sequence[Blob], threads: int, meter: Meter) -> list[TarIndex]:
    """Make the index of each tar."""
    local = len(new) > FEW and not any(isinstance(blob, RemoteBlob) for blob in new)
    if not local or usable_cores() == 1:
        return map_threads(lambda blob: _make(blob, meter.add), new, threads)
    made = []
    with Workers() as workers:  # threads would wait for Python's lock
        calls = [partial(_make, blob) for blob in new]
        for blob, index in zip(new, workers.run(calls, usable_cores()), strict=True):
            made.append(index)
            meter.add(blob.size)
    return made


def _recall(blob: Blob) -> TarIndex | None:
    arrays = recall(_folder(blob))
    return None if arrays is None else TarIndex.from_arrays(arrays)


def _make(blob: Blob, passed: Callable[[int], None] = lambda count: None) -> TarIndex:
    index = index_tar(blob, passed)
    write_arrays(_folder(blob), index.to_arrays())
    return index


def _folder(blob: Blob) -> Path:
    """Return the folder of the cache for a tar of this place, size and date."""
    is_here = not isinstance(blob, RemoteBlob)
    place = str(Path(blob.place).absolute()) if is_here else blob.place
    record = {"version": INDEX_VERSION, "place": place, "mark": blob.mark}
    return cache_root() / INDEXES / digest_json(record)[:32]


def is_shards(place: str) -> bool:
    """Return whether a path or URL is a tar, braces or a list that name tars, or their folder."""
    return is_listing(place) or bool(files_with(place, SUFFIXES))


def open_shards(place: str, name: str, on_event: OnEvent) -> FileSource:
    """Open tars as an `ImageSource`.

    Classes come from a dataset.json in a single tar, or from the .cls and .json files beside the
    images, named as webdataset does.

    Args:
        place: a tar, a path with braces, a list of tars, or a folder of them.
        name: its name in messages.
        on_event: told of the reading of tars that have no index yet.

    Raises:
        ImagesError: if one is missing, not a tar or damaged, or there are no candidates.
        OSError: if one cannot be read.
    """
    listed = read_listing(place) if is_listing(place) else {}
    paths = list(listed) or files_with(place, SUFFIXES)
    shards = Shards(open_blobs(paths, name), name, on_event)
    notes = disagreements(name, listed, shards.samples(listed.values())) if listed else []
    return FileSource(
        name,
        "tar",
        replace(shards.found(), notes=notes),
        shards.read,
        mark=shards.mark,
        labels=lambda: shards.labels(name),
        threads=shards.threads,
    )
