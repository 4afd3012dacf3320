"""Read images from an LMDB of encoded images, as LSUN is distributed: key → WebP or JPEG.

The library reads the file as it lies in memory and trusts what it says, so a hostile file can crash
the process; open only what comes from a source that you trust.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from probe.errors import BrokenImageError, ImagesError, first_line
from probe.events import OnEvent
from probe.images.blob import LocalBlob
from probe.images.files import FileSource
from probe.images.limits import ENCODED
from probe.images.names import Found
from probe.images.packed import PackedNames, to_bytes
from probe.images.remote import is_remote

DATA_FILE = "data.mdb"
INSTALL = 'pip install "gan-probe[lmdb]"'


class Database:
    """The images of an LMDB by key.

    Args:
        folder: that holds data.mdb.

    Raises:
        ImagesError: if it is not an LMDB.
        OSError: if it cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._blob = folder, LocalBlob(folder / DATA_FILE)
        with self._reading() as transaction:
            self.images = PackedNames.pack([bytes(key) for key in _keys(transaction)])

    @contextmanager
    def _reading(self) -> Iterator[Any]:
        """Yield a transaction.

        Raises:
            ImagesError: if the file is damaged.
        """
        import lmdb

        try:
            with _environment(str(self._folder), self._blob.mark, os.getpid()).begin(
                buffers=True
            ) as transaction:
                yield transaction
        except lmdb.Error as error:
            raise ImagesError(
                f"{self._folder}: not an LMDB, or a damaged one ({first_line(error)}). Copy or "
                "download it again."
            ) from error

    @contextmanager
    def read(self, name: str) -> Iterator[bytes]:
        """Yield an image's bytes while holding memory for them.

        Raises:
            BrokenImageError: if it is too large, or the file has changed.
            OSError: if the file cannot be read.
        """
        with self._blob.opened(), self._reading() as transaction:
            value = transaction.get(to_bytes(name))
            if value is None:
                raise BrokenImageError("no longer in the database")
            if len(value) > ENCODED.most:
                raise BrokenImageError(f"larger than {ENCODED.most >> 20} MiB")
            with ENCODED.take(len(value)):
                yield bytes(value)

    def mark(self, name: str) -> str:
        """Return what is known of an image without reading it; it changes if its file does."""
        return f"{self._blob.mark}:{name}"


def _keys(transaction: Any) -> Sequence[bytes]:
    return list(transaction.cursor().iternext(keys=True, values=False))


@lru_cache(maxsize=16)
def _environment(folder: str, mark: str, process: int) -> Any:
    """Open an LMDB, once per process: a file may be open once in each, and not across a fork."""
    import lmdb

    return lmdb.open(
        folder, readonly=True, lock=False, readahead=False, create=False, max_readers=1024
    )


def is_database(place: str) -> bool:
    """Return whether a path is the folder of an LMDB."""
    return not is_remote(place) and (Path(place) / DATA_FILE).is_file()


def open_database(place: str, name: str, on_event: OnEvent) -> FileSource:
    """Open an LMDB as an `ImageSource`.

    Args:
        place: the folder that holds data.mdb.
        name: its name in messages.
        on_event: told nothing, since it opens in one step.

    Raises:
        ImagesError: if the package is missing, or it is not an LMDB or holds nothing.
        OSError: if it cannot be read.
    """
    try:
        database = Database(Path(place))
    except ImportError as error:
        raise ImagesError(f"{name}: an LMDB needs a package: {INSTALL}.") from error
    return FileSource(name, "lmdb", Found(database.images), database.read, mark=database.mark)
