"""A folder of images, searched recursively."""

import os
import stat
from pathlib import Path

from probe.errors import BrokenImageError, ImagesError
from probe.images.files import MOST_BYTES, FileSource, is_candidate, is_hidden
from probe.images.labels import LABELS_FILE, read_labels


def find_images(folder: Path) -> list[str]:
    """Return the candidates below a folder as sorted relative paths with forward slashes.

    Symbolic links are followed, to files and to folders. Every folder counts once: under its own
    name where it lies below `folder`, else under its link's; a loop of links ends. A subfolder that
    cannot be listed is a candidate itself, so that it is counted and named among the broken images.

    Raises:
        OSError: the folder itself cannot be listed.
    """
    names: list[str] = []
    visited: set[tuple[int, int]] = set()
    own, linked = [""], []  # all folders before any link, so that a link never hides a name
    while own or linked:
        below = own.pop() if own else linked.pop(0)
        try:
            status = (folder / below).stat()
            with os.scandir(folder / below) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError:
            if not below:
                raise
            names.append(below)
            continue
        if (status.st_dev, status.st_ino) in visited:
            continue
        visited.add((status.st_dev, status.st_ino))
        for entry in entries:
            name = f"{below}/{entry.name}" if below else entry.name
            if is_hidden(entry.name):
                continue
            if _is_folder(entry):
                (linked if entry.is_symlink() else own).append(name)
            elif is_candidate(entry.name):
                names.append(name)
    return sorted(names)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that points to itself
        return False


def read_file(path: Path) -> bytes:
    """Return a file's bytes.

    Raises:
        BrokenImageError: too large, or no regular file; opening a named pipe would wait for ever.
        OSError: it cannot be read.
    """
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise BrokenImageError("folder that cannot be listed")
    if not stat.S_ISREG(status.st_mode):
        raise BrokenImageError("not a regular file")
    if status.st_size > MOST_BYTES:
        raise BrokenImageError("larger than 1 GiB")
    return path.read_bytes()


def open_folder(path: Path, name: str) -> FileSource:
    """Open a folder as an `ImageSource`; classes come from its dataset.json, if there is one.

    Args:
        path: the folder.
        name: what to call it in messages.

    Raises:
        ImagesError: no candidates, or a malformed dataset.json.
        OSError: the folder, or its dataset.json, cannot be read.
    """
    names = find_images(path)
    file = path / LABELS_FILE
    try:
        labels = read_labels(file, read_file(file), names) if file.exists() else None
    except BrokenImageError as error:
        raise ImagesError(f"{file}: {error}. Repair or remove it.") from error
    return FileSource(name, "folder", names, lambda below: read_file(path / below), labels)
