"""Find images in a folder, recursively."""

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from probe.errors import BrokenImageError
from probe.events import OnEvent
from probe.images.encoded import LONGEST_MAGIC
from probe.images.files import FileSource
from probe.images.limits import ENCODED
from probe.images.names import Found, is_system, sort_files
from probe.images.places import may_be_folder
from probe.images.remote import THREADS, RemoteBlob, find_remote, is_remote


def find_files(folder: Path) -> Found:
    """Return the files below a folder, as relative paths with forward slashes.

    Symbolic links are followed, to files and to folders. Every folder counts once: under its own
    name if it is below `folder`, else under its link's; loops of links end. A subfolder that cannot
    be listed is itself a candidate, so that it is counted and named among the broken images.

    Raises:
        OSError: if the folder itself cannot be listed.
    """
    names: list[str] = []
    unlisted: list[str] = []
    visited: set[tuple[int, int]] = set()
    own, linked = [""], []  # visit all folders before any link, so that a link never hides a name
    while own or linked:
        below = own.pop() if own else linked.pop(0)
        try:
            status = (folder / below).stat()
            with os.scandir(folder / below) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError:
            if not below:
                raise
            unlisted.append(below)
            continue
        if (status.st_dev, status.st_ino) in visited:
            continue
        visited.add((status.st_dev, status.st_ino))
        for entry in entries:
            name = f"{below}/{entry.name}" if below else entry.name
            if is_system(entry.name):
                continue
            if _is_folder(entry):
                (linked if entry.is_symlink() else own).append(name)
            else:
                names.append(name)
    sorted_out = sort_files(names, lambda name: _start(folder / name))
    return Found(sorted([*sorted_out.images, *unlisted]), sorted_out.labels, sorted_out.left_out)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that points to itself
        return False


def _start(path: Path) -> bytes:
    """Return the first bytes of a regular file, none if it cannot be read."""
    try:
        if not path.is_file():  # reading a pipe would block
            return b""
        with path.open("rb") as file:
            return file.read(LONGEST_MAGIC)
    except OSError:
        return b""


@contextmanager
def read_file(path: Path) -> Iterator[bytes]:
    """Yield a file's bytes while holding memory for them.

    Raises:
        BrokenImageError: if it is too large or not a regular file; a named pipe would block.
        OSError: if it cannot be read.
    """
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise BrokenImageError("folder that cannot be listed")
    if not stat.S_ISREG(status.st_mode):
        raise BrokenImageError("not a regular file")
    if status.st_size > ENCODED.most:
        raise BrokenImageError(f"larger than {ENCODED.most >> 20} MiB")
    with ENCODED.take(status.st_size), path.open("rb") as file:
        yield file.read(status.st_size)  # no more, even if the file has grown


def mark_file(path: str) -> str:
    """Return a file's size and date.

    Raises:
        OSError: there is no such file.
    """
    status = os.stat(path)  # noqa: PTH116 - a Path per file would take longer than this
    return f"{status.st_size}:{status.st_mtime_ns}"


def is_folder(place: str) -> bool:
    """Return whether a path is a folder, or a URL may name one."""
    return may_be_folder(place) if is_remote(place) else Path(place).is_dir()


def open_folder(place: str, name: str, on_event: OnEvent) -> FileSource:
    """Open a folder as an `ImageSource`; classes come from its dataset.json, if there is one.

    Args:
        place: the folder's path or URL.
        name: its name in messages.
        on_event: told nothing, since it opens in one step.

    Raises:
        ImagesError: if there are no candidates.
        OSError: if the folder cannot be read.
    """
    if is_remote(place):
        files = _RemoteFiles(find_remote(place))
        found = sort_files(files.infos, lambda below: b"")
        return FileSource(name, "folder", found, files.read, mark=files.mark, threads=THREADS)
    path = Path(place)
    return FileSource(
        name,
        "folder",
        find_files(path),
        lambda below: read_file(path / below),
        mark=lambda below: mark_file(f"{path}/{below}"),
    )


class _RemoteFiles:
    """Files below a URL by name.

    Args:
        infos: path below it → what the listing says.
    """

    def __init__(self, infos: Mapping[str, Mapping[str, Any]]) -> None:
        self.infos = infos

    @contextmanager
    def read(self, name: str) -> Iterator[bytes]:
        """Yield a file's bytes while holding memory for them.

        Raises:
            BrokenImageError: if it is too large.
            OSError: if it cannot be read.
        """
        blob = RemoteBlob(self.infos[name]["url"], self.infos[name])
        if blob.size > ENCODED.most:
            raise BrokenImageError(f"larger than {ENCODED.most >> 20} MiB")
        with ENCODED.take(blob.size):
            yield blob.read(0, blob.size)

    def mark(self, name: str) -> str:
        """Return what is known of a file without reading it; it changes if the file does."""
        return RemoteBlob(self.infos[name]["url"], self.infos[name]).mark
