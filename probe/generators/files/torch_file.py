"""Torch files (.pt, .pth) read as data: a zip of one pickle and the raw numbers it refers to.

The pickle goes through `unpickle`; the zip may hold no more bytes than the file has, so that
neither compression nor entries laid over each other can take more memory than that. Files of
PyTorch before 1.6 are no zips, but pickles one after the other, and the numbers.
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
LARGEST_DIRECTORY = 2**24  # bytes of a zip's list of members, which is read whole
OLD_START = OLD_MAGIC.to_bytes(10, "little")


def is_old(path: Path) -> bool:
    """Return whether a file is a torch file of the form before PyTorch 1.6."""
    with path.open("rb") as file:
        head = file.read(32)
    return head[:1] == b"\x80" and OLD_START in head


def zip_kind(path: Path) -> str | None:
    """Return which of torch's zips a file is.

    One that begins with something else is what it begins with, though a zip follows.

    Returns:
        "torch" (tensors and a pickle), "torchscript", "export" (a `torch.export` program), or None
        for everything else, damaged zips and what is not a regular file included.
    """
    try:
        if not path.is_file():  # a pipe would be waited for
            return None
        with path.open("rb") as file:
            if file.read(2) != b"PK":
                return None
        with _zip(path) as archive:
            whole = set(archive.namelist())
        names = {name.partition("/")[2] for name in whole}
    except (*DAMAGED, OSError):
        return None
    # The export programs of early releases have no folder around their members.
    if "archive_format" in names or "serialized_exported_program.json" in names | whole:
        return "export"
    if "constants.pkl" in names and any(name.startswith("code/") for name in names):
        return "torchscript"
    return "torch" if "data.pkl" in names else None


def _zip(path: Path) -> zipfile.ZipFile:
    """Open a zip, whose members are listed by that, at some hundred bytes each.

    Raises:
        zipfile.BadZipFile: it lists more than any network has.
    """
    # Private, in Python 3.11 to 3.14; without it members are counted after they are listed.
    read_end, size = getattr(zipfile, "_EndRecData", None), getattr(zipfile, "_ECD_SIZE", None)
    if read_end is not None and size is not None:
        with path.open("rb") as file:
            end = read_end(file)
        if end and end[size] > LARGEST_DIRECTORY:
            raise zipfile.BadZipFile("far too many members")
    return zipfile.ZipFile(path)


@contextmanager
def opened(path: Path) -> Iterator[Callable[[str], bytes]]:
    """Yield how to read a member by its name below the archive's one folder.

    Raises:
        CheckpointError: damaged, without a member that is read, or holding more than the file.
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
    """Read what `torch.save` wrote, running nothing of it.

    Returns:
        What it holds, tensors as `LazyTensor`, and every global it refers to.

    Raises:
        UnsafeCheckpoint: it refers to something outside the allow-list, named.
        CheckpointError: damaged.
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
        except KeyError:  # files of early releases do not say: they are all little-endian
            order = b"little"
        if order != b"little":
            raise CheckpointError("it was written on a big-endian machine, which is not read")
        return read_pickle(pickled, persistent)
