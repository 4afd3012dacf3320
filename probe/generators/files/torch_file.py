"""Read torch files (.pt, .pth) as data: a zip of one pickle and the raw numbers it refers to.

The pickle goes through `unpickle`. The zip's members may not total more bytes than the file, so
neither compression nor overlapping entries can exhaust memory. Files from before PyTorch 1.6 are
not zips but consecutive pickles, followed by the numbers.
"""

import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from probe.errors import CheckpointError
from probe.generators.files.records import Storage, damaged
from probe.generators.files.unpickle import (
    OLD_MAGIC,
    pickle_file,
    read_old_torch,
    read_pickle,
    storage_dtype,
)
from probe.images.archive import DAMAGED

MOST_MEMBERS = 100_000
LARGEST_DIRECTORY = 2**24  # bytes of a zip's member list, which is read whole
OLD_START = OLD_MAGIC.to_bytes(10, "little")


def is_old(path: Path) -> bool:
    """Return whether a file is a torch file from before PyTorch 1.6."""
    with path.open("rb") as file:
        head = file.read(32)
    return head[:1] == b"\x80" and OLD_START in head


def zip_kind(path: Path) -> str | None:
    """Return which kind of torch zip a file is.

    Only the file's beginning counts: data with a zip appended is not a zip.

    Returns:
        "torch" (tensors and a pickle), "torchscript", "export" (a `torch.export` program), or None
        for everything else, including damaged zips and anything that is not a regular file.
    """
    try:
        if not path.is_file():  # reading a pipe would block
            return None
        with path.open("rb") as file:
            if file.read(2) != b"PK":
                return None
        with _zip(path) as archive:
            whole = set(archive.namelist())
        names = {name.partition("/")[2] for name in whole}
    except (*DAMAGED, OSError):
        return None
    # Export programs from early releases have no folder around their members.
    if "archive_format" in names or "serialized_exported_program.json" in names | whole:
        return "export"
    if "constants.pkl" in names and any(name.startswith("code/") for name in names):
        return "torchscript"
    return "torch" if "data.pkl" in names else None


def _zip(path: Path) -> zipfile.ZipFile:
    """Open a zip, which lists its members, at some hundred bytes each.

    Raises:
        zipfile.BadZipFile: if it lists more members than any network has.
    """
    # Private, in Python 3.11 to 3.14. Without it, members are counted only after they are listed.
    read_end, size = getattr(zipfile, "_EndRecData", None), getattr(zipfile, "_ECD_SIZE", None)
    if read_end is not None and size is not None:
        with path.open("rb") as file:
            end = read_end(file)
        if end and end[size] > LARGEST_DIRECTORY:
            raise zipfile.BadZipFile("far too many members")
    return zipfile.ZipFile(path)


@contextmanager
def opened(path: Path) -> Iterator[Callable[[str], bytes]]:
    """Yield a function that reads a member by its name below the archive's one folder.

    Raises:
        CheckpointError: if it is damaged, lacks a requested member, or holds more than the file.
    """
    try:
        with _zip(path) as archive:
            members = archive.infolist()
            if len(members) > MOST_MEMBERS:
                raise damaged("a zip of more members than any network")
            if any(m.compress_type != zipfile.ZIP_STORED for m in members):
                raise damaged("a compressed member, which torch does not write")
            if sum(m.file_size for m in members) > path.stat().st_size:
                raise damaged("a zip that holds more than the file")
            by_name = {m.filename.partition("/")[2]: m for m in members}
            if len(by_name) != len(members):
                raise damaged("a zip with two members of one name")
            yield lambda name: archive.read(by_name[name])
    except KeyError as error:
        raise damaged(f"a zip without {error}") from error
    except DAMAGED as error:
        raise CheckpointError(f"it is a damaged zip ({error})") from error


def read_torch_file(path: Path) -> tuple[Any, list[str]]:
    """Read a file from `torch.save` without running any of it.

    Returns:
        The content, with tensors as `LazyTensor`, and every global it refers to.

    Raises:
        UnsafeCheckpoint: if it refers to something outside the allow-list; names it.
        CheckpointError: if it is damaged.
    """
    if is_old(path):
        with pickle_file(path) as data:
            return read_old_torch(data)
    with opened(path) as read:
        storages: dict[str, Storage] = {}

        def persistent(pid: Any) -> Storage:
            kind, storage_type, name, _, count = pid
            dtype = storage_dtype(kind, storage_type, count)
            if not isinstance(name, str) or not re.fullmatch(r"\w{1,20}", name):
                raise damaged("a storage without a proper name")
            if name not in storages:
                data = memoryview(read(f"data/{name}"))
                storages[name] = Storage(dtype, data.nbytes // dtype.itemsize, data)
            found = storages[name]
            if found.dtype != dtype or found.data.nbytes != count * dtype.itemsize:
                raise damaged("a storage whose size or type is not what it says")
            return found

        pickled = read("data.pkl")
        try:
            order = read("byteorder")
        except KeyError:  # files from early releases do not say, but are all little-endian
            order = b"little"
        if order != b"little":
            raise CheckpointError("it was written on a big-endian machine, which is not supported")
        return read_pickle(pickled, persistent)
