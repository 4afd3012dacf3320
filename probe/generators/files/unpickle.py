"""Read pickles as data, alone or inside torch files from before PyTorch 1.6.

A global is only a name. The names in `vocabulary` have a meaning here (a dict, a tensor, a module's
state); any other ends the reading. No class is looked up and no function that the pickle chooses is
called: `machine` walks the opcodes.

The result is plain containers and numbers, with stand-ins from `records` for everything else.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import torch

from probe.errors import CheckpointError, UnsafeCheckpoint
from probe.generators.files.machine import run
from probe.generators.files.records import Global, Storage, damaged
from probe.generators.files.vocabulary import LOAD_STORAGE, STORAGES, Call

OLD_MAGIC = 0x1950A86A20F9469CFC6C  # start of torch files before PyTorch 1.6
OLD_PICKLES = 5  # in such a file
LARGEST_LITERAL = 2**31  # bytes of one; the largest backbone tensor has a tenth of that


class PickleFile:
    """A pickle in a file, read only as far as it is well-formed, and within the file's length."""

    def __init__(self, file: BinaryIO, length: int) -> None:
        self.file, self.length = file, length
        self.tell = file.tell

    def __len__(self) -> int:
        """Return the file's length in bytes."""
        return self.length

    def read(self, count: int) -> bytes:
        """Return the next bytes, fewer at the end of the file.

        Raises:
            CheckpointError: if more bytes are asked for than any tensor has.
        """
        count = min(count, self.length - self.file.tell())  # before allocating memory for them
        if count > LARGEST_LITERAL:
            raise damaged(f"a value of {count} bytes")
        return self.file.read(count)

    def readline(self) -> bytes:
        """Return the rest of the line, or its beginning if the line is too long."""
        return self.file.readline(LARGEST_LITERAL)


@contextmanager
def pickle_file(path: Path) -> Iterator[PickleFile]:
    """Yield the pickle in a file.

    Raises:
        OSError: if it cannot be read.
    """
    with path.open("rb") as file:
        yield PickleFile(file, path.stat().st_size)


Pickle = bytes | PickleFile
Stream = BytesIO | PickleFile


def stream_of(data: Pickle) -> Stream:
    """Return the stream of a pickle's opcodes."""
    return BytesIO(data) if isinstance(data, bytes) else data


def read_pickle(
    data: Pickle, persistent: Callable[[Any], Any] | None = None
) -> tuple[Any, list[str]]:
    """Read a pickle without running anything of it.

    Args:
        data: the whole pickle, or the file that holds it.
        persistent: resolves persistent ids to data outside the pickle; None refuses them.

    Returns:
        The content, and every global it refers to.

    Raises:
        UnsafeCheckpoint: if it refers to something outside the allow-list; names it.
        CheckpointError: if it is damaged, or something follows it.
    """
    stream = stream_of(data)
    content, names = run(stream, len(data), persistent, FURTHER)
    if stream.tell() != len(data):
        raise UnsafeCheckpoint("more data follows the pickle's end. Nothing of it was run")
    return content, names


def storage_dtype(kind: Any, storage_type: Any, count: Any) -> torch.dtype:
    """Return the dtype of the storage that a persistent id names.

    Raises:
        CheckpointError: if it names no storage, an unknown type, or no number of elements.
    """
    name = str(storage_type) if isinstance(storage_type, Global) else ""
    if kind != "storage" or name not in STORAGES or type(count) is not int or count < 0:
        raise damaged("a storage of unknown type")
    return STORAGES[name]


def read_old_torch(data: Pickle) -> tuple[Any, list[str]]:
    """Read a torch file from before PyTorch 1.6: pickles, then the raw numbers.

    The pickles are a magic number, a version, system facts, the content, and the order of the
    storages. Each storage is a number of elements, then the elements.

    Args:
        data: the whole file as bytes, or the file itself.

    Returns:
        The content, and every global it refers to.

    Raises:
        UnsafeCheckpoint: if it refers to something outside the allow-list; names it.
        CheckpointError: if it is damaged, or has another machine's byte order.
    """
    return _read_old(data, FURTHER)


def _read_old(data: Pickle, further: Mapping[str, Call] | None) -> tuple[Any, list[str]]:
    stream = stream_of(data)
    storages: dict[str, Storage] = {}

    def persistent(pid: Any) -> Any:
        if pid[0] == "module":  # a class, with its source text when it was saved
            return pid[1]
        kind, storage_type, key, _, count, *view = pid
        dtype = storage_dtype(kind, storage_type, count)
        if not isinstance(key, str) or view not in ([], [None]):
            raise damaged("a storage without a name of its own")
        found = storages.setdefault(key, Storage(dtype, count))
        if found.dtype != dtype or found.length != count:
            raise damaged("a storage whose size or type is not what it says")
        return found

    def plain() -> Any:
        return run(stream, len(data))[0]

    if plain() != OLD_MAGIC:
        raise damaged("a torch file that does not begin like one")
    plain()
    system = plain()
    if isinstance(system, dict) and system.get("little_endian") is False:
        raise CheckpointError("it was written on a big-endian machine, which is not supported")
    content, names = run(stream, len(data), persistent, further)
    order = plain()
    are_names = isinstance(order, list) and all(isinstance(key, str) for key in order)
    if not are_names or sorted(order) != sorted(storages):
        raise damaged("storages that are not those it refers to")
    for key in order:
        storages[key].data = _numbers(data, stream, storages[key])
    if stream.tell() != len(data):
        raise damaged("a storage whose size is not what it says")
    return content, names


def _numbers(data: Pickle, stream: Stream, storage: Storage) -> memoryview:
    """Return the next storage's numbers from a stream, without a copy if possible."""
    stored = int.from_bytes(stream.read(8), "little", signed=True)
    size = storage.length * storage.dtype.itemsize
    if stored != storage.length or size > len(data) - stream.tell():
        raise damaged("a storage whose size is not what it says")
    if isinstance(stream, PickleFile) or isinstance(data, PickleFile):
        return memoryview(stream.read(size))
    start = stream.tell()
    stream.seek(start + size)
    return memoryview(data)[start : start + size]


def _embedded_storage(args: tuple[Any, ...]) -> Storage:
    """`torch.storage._load_from_bytes(data)`, where data is a torch file with one storage.

    It uses the same interpreter but allows no further calls. Otherwise a file within a file, and so
    on, could be read again at each level.
    """
    (data,) = args
    if isinstance(data, str):
        data = data.encode("latin-1")
    found, _ = _read_old(bytes(data), None)
    if not isinstance(found, Storage):
        raise damaged("an embedded torch file that is not one storage")
    return found


FURTHER: Mapping[str, Call] = {LOAD_STORAGE: _embedded_storage}
