"""Read images from Parquet files, as Hugging Face `datasets` write them.

A row is an image's encoded bytes, with its path and perhaps a label beside it. Parquet gives rows
in groups, so an image costs its whole group; the last groups are kept in memory.
"""

import io
import json
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import Any

from probe.errors import BrokenImageError, ImagesError, first_line
from probe.events import OnEvent
from probe.images.blob import Blob, BlobFile
from probe.images.files import FileSource
from probe.images.labels import MOST_CLASSES, Labels
from probe.images.lazy import NamesOfParts
from probe.images.limits import ENCODED, Budget, map_threads
from probe.images.meter import Meter
from probe.images.names import Found
from probe.images.places import files_with, open_blobs
from probe.images.recent import Recent

SUFFIXES = (".parquet",)
INSTALL = 'pip install "gan-probe[parquet]"'
GROUP_BYTES = 2**31  # of a group's images, unpacked; of all that are read at the same time
GROUPS = Budget(GROUP_BYTES)
RECENT_BYTES = 2**29
IMAGE_NAMES, LABEL_NAMES = ("image", "img", "jpg", "png"), ("label", "labels", "cls", "class")


class Tables:
    """The images of Parquet files by name: the file and the row.

    Args:
        blobs: name of each file → the file.
        name: of the set, for messages.
        on_event: told of the reading of the files' ends.

    Raises:
        ImagesError: if one is not a Parquet file, is damaged, or has no column of images.
        OSError: if one cannot be read.
    """

    def __init__(self, blobs: Mapping[str, Blob], name: str, on_event: OnEvent) -> None:
        self._blobs, self._titles = list(blobs.values()), list(blobs)
        self._numbers = {title: number for number, title in enumerate(self._titles)}
        self.threads = max(blob.threads for blob in self._blobs)
        meter = Meter(f"opening {name}", sum(blob.size for blob in self._blobs), on_event)
        self._metadata = map_threads(
            lambda blob: _metadata_of(blob, meter), self._blobs, self.threads
        )
        self._column = _image_column(self._metadata[0].schema.to_arrow_schema(), self._blobs[0])
        counts = [metadata.num_rows for metadata in self._metadata]
        self._groups = [
            list(accumulate(m.row_group(i).num_rows for i in range(m.num_row_groups)))
            for m in self._metadata
        ]
        self._recent = Recent[Any](RECENT_BYTES, lambda column: column.nbytes)
        self.images = NamesOfParts(counts, lambda part, row: f"{self._titles[part]}/{row}")

    def _find(self, name: str) -> tuple[int, int]:
        title, _, row = name.rpartition("/")
        return self._numbers[title], int(row)

    @contextmanager
    def read(self, name: str) -> Iterator[bytes]:
        """Yield an image's bytes while holding memory for them.

        Raises:
            BrokenImageError: if the row is empty, or its group is damaged or too large.
            OSError: if the file cannot be read.
        """
        number, row = self._find(name)
        group = bisect_right(self._groups[number], row)
        first = self._groups[number][group - 1] if group else 0
        column = self._recent.get((number, group), lambda: self._read_group(number, group))
        value = column[row - first].as_py()
        data = value["bytes"] if isinstance(value, dict) else value
        if data is None:
            raise BrokenImageError("row without an image's bytes")
        if len(data) > ENCODED.most:
            raise BrokenImageError(f"larger than {ENCODED.most >> 20} MiB")
        with ENCODED.take(len(data)):
            yield data

    def _read_group(self, number: int, group: int) -> Any:
        """Return the images of a group as an Arrow array."""
        metadata = self._metadata[number]
        size = metadata.row_group(group).total_byte_size
        if not 0 <= size <= GROUP_BYTES:
            raise BrokenImageError(
                f"its group of rows is larger than {GROUP_BYTES >> 30} GiB; write the file again "
                "with row_group_size=100"
            )
        with GROUPS.take(size), _opened(self._blobs[number], metadata) as file:
            return file.read_row_group(group, columns=[self._column])[self._column]

    def mark(self, name: str) -> str:
        """Return what is known of an image without reading it; it changes if its file does."""
        number, row = self._find(name)
        return f"{self._blobs[number].mark}:{row}"

    def labels(self, name: str) -> Labels | None:
        """Return the classes in the column of labels; None if there is none.

        Args:
            name: of the set, for messages.

        Raises:
            ImagesError: if a value is not a class.
        """
        column = _label_column(self._metadata[0].schema.to_arrow_schema())
        if column is None:
            return None
        values: list[Any] = []
        for blob, metadata in zip(self._blobs, self._metadata, strict=True):
            with _opened(blob, metadata) as file:
                values += file.read(columns=[column])[column].to_pylist()
        for row, value in enumerate(values):
            if type(value) is not int or not 0 <= value < MOST_CLASSES:
                raise ImagesError(
                    f"{name}: the value of '{column}' for {self.images[row]} is not a "
                    f"class from 0 to {MOST_CLASSES - 1}. Correct it, or leave the column out."
                )
        return Labels(values, None)


@contextmanager
def _opened(blob: Blob, metadata: Any = None) -> Iterator[Any]:
    """Open a Parquet file, once per use, because it is not for several threads.

    Raises:
        BrokenImageError: if it is damaged, here or in the body.
        OSError: if it cannot be read.
    """
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        with io.BufferedReader(BlobFile(blob), blob.window) as file:
            yield ParquetFile(file, metadata=metadata)
    except (ArrowException, ValueError, OverflowError, MemoryError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # not one of Arrow's own
            raise
        raise BrokenImageError(f"damaged Parquet file ({first_line(error)})") from error


def _metadata_of(blob: Blob, meter: Meter) -> Any:
    try:
        with _opened(blob) as file:
            meter.add(blob.size)
            return file.metadata
    except ImportError as error:
        raise ImagesError(f"{blob.place}: Parquet files need a package: {INSTALL}.") from error
    except BrokenImageError as error:
        raise ImagesError(f"{blob.place}: {error}. Copy or download it again.") from error


def _features(schema: Any) -> Mapping[str, Any]:
    """Return what `datasets` notes of each column: {"image": {"_type": "Image"}, …}."""
    try:
        noted = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return noted if isinstance(noted, dict) else {}
    except (ValueError, LookupError, TypeError, RecursionError):
        return {}


def _pick(schema: Any, fits: Callable[[Any], bool], kind: str, names: Sequence[str]) -> list[str]:
    """Return the columns that fit, the most likely ones first."""
    noted, fitting = _features(schema), [f.name for f in schema if fits(f.type)]
    said = [n for n in fitting if isinstance(noted.get(n), dict) and noted[n].get("_type") == kind]
    usual = [name for name in names if name in fitting]
    return said or usual or fitting


def _image_column(schema: Any, blob: Blob) -> str:
    """Return the column of images.

    Raises:
        ImagesError: if there is none, or several may be it.
    """
    from pyarrow import types

    def is_bytes(kind: Any) -> bool:
        return types.is_binary(kind) or types.is_large_binary(kind)

    def fits(kind: Any) -> bool:
        if types.is_struct(kind):
            return any(f.name == "bytes" and is_bytes(f.type) for f in kind)
        return is_bytes(kind)

    found = _pick(schema, fits, "Image", IMAGE_NAMES)
    if len(found) == 1:
        return found[0]
    held = ", ".join(schema.names[:10])
    if found:
        raise ImagesError(
            f"{blob.place}: images may be in {' or '.join(found)}. Keep one of these columns."
        )
    raise ImagesError(
        f"{blob.place}: no column of encoded images among {held}. Write it with `datasets`, with a "
        "column of type Image."
    )


def _label_column(schema: Any) -> str | None:
    """Return the column of classes, if there is one."""
    from pyarrow import types

    found = _pick(schema, types.is_integer, "ClassLabel", LABEL_NAMES)
    noted = _features(schema)
    sure = [name for name in found if name in LABEL_NAMES or name in noted]
    return sure[0] if sure and (len(sure) == 1 or sure[0] in LABEL_NAMES) else None


def is_parquet(place: str) -> bool:
    """Return whether a path or URL is a Parquet file, braces for some, or a folder of them."""
    return bool(files_with(place, SUFFIXES))


def open_parquet(place: str, name: str, on_event: OnEvent) -> FileSource:
    """Open Parquet files as an `ImageSource`; classes come from a column named label.

    Args:
        place: a file, a path with braces, or a folder of such files.
        name: its name in messages.
        on_event: told of the reading of the files' ends.

    Raises:
        ImagesError: if pyarrow is missing, a file is damaged, or has no column of images.
        OSError: if one cannot be read.
    """
    tables = Tables(open_blobs(files_with(place, SUFFIXES), name), name, on_event)
    return FileSource(
        name,
        "parquet",
        Found(tables.images),
        tables.read,
        mark=tables.mark,
        labels=lambda: tables.labels(name),
        threads=tables.threads,
    )
