"""Read a file by offset, whether it lies on this machine or elsewhere."""

import io
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

from probe.errors import BrokenImageError
from probe.files import stamp
from probe.images.limits import THREADS

ReadAt = Callable[[int, int], bytes]  # (offset, count) → up to `count` bytes


class Blob(Protocol):
    """A file that is read by offset, from several threads and processes.

    Attributes:
        place: its path or URL.
        size: bytes.
        mark: text that changes if the file does: its size and date.
        window: bytes worth reading at once, because fewer take as long.
        threads: how many reads at the same time are worth it.
    """

    place: str
    size: int
    mark: str
    window: int
    threads: int

    def opened(self) -> AbstractContextManager[ReadAt]:
        """Yield a function that reads; cheaper than `read` if there is much to read.

        Raises:
            BrokenImageError: if the file has changed.
            OSError: if it cannot be read.
        """
        ...

    def read(self, start: int, count: int) -> bytes:
        """Return up to `count` bytes from `start` on; fewer only at the file's end.

        Raises:
            BrokenImageError: if the file has changed.
            OSError: if it cannot be read.
        """
        ...


class LocalBlob:
    """A file on this machine.

    It is opened for each read, so any number of files can be in use.

    Args:
        path: the file.

    Raises:
        OSError: if there is none.
    """

    window, threads = 4096, THREADS

    def __init__(self, path: Path) -> None:
        status = path.stat()
        self.place, self.size = str(path), status.st_size
        self.mark = f"{status.st_size}:{status.st_mtime_ns}"
        self._stamp = stamp(status)

    @contextmanager
    def opened(self) -> Iterator[ReadAt]:
        """Yield a function that reads."""
        with Path(self.place).open("rb", buffering=0) as file:
            if stamp(os.fstat(file.fileno())) != self._stamp:
                raise BrokenImageError(f"{Path(self.place).name} changed while it was in use")

            def read(start: int, count: int) -> bytes:
                file.seek(start)
                data = file.read(count)
                while data and len(data) < min(count, self.size - start):
                    more = file.read(count - len(data))
                    if not more:
                        break
                    data += more
                return data

            yield read

    def read(self, start: int, count: int) -> bytes:
        """Return up to `count` bytes from `start` on."""
        with self.opened() as read:
            return read(start, count)


class BlobFile(io.RawIOBase):
    """A blob as a file object, for libraries that want one."""

    def __init__(self, blob: Blob) -> None:
        self._blob, self._at = blob, 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position, as files do."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._blob.size}[whence]
        if base + offset < 0:
            raise ValueError(f"negative position {base + offset}")
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        """Return the position."""
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        """Fill a buffer with the next bytes."""
        data = self._blob.read(self._at, len(buffer))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
