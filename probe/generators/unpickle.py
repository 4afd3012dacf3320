"""Pickles read as data: an interpreter that knows what a checkpoint holds and runs none of it.

`read_pickle` walks the opcodes itself. A global is only ever a name; the names of `vocabulary` have
a meaning here (a dict, a tensor, a module's state) and everything else ends the reading. No class
is looked up, no function of the pickle's choosing is called.

What comes out: plain containers and numbers, and the stand-ins of `records` for all else.

A small file must not cost much either. Opcodes are counted; what a call copies is charged to a
budget that grows with the file, since a memo lets one payload be passed to many calls; numbers
are bounded where they become shapes or keys; files within the file may hold data and no calls.
"""

import pickletools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import torch

from probe.errors import UnsafeCheckpoint, kind_of
from probe.generators.records import Global, Record, Storage, damaged
from probe.generators.values import dict_key, entries_of, pairs, refused
from probe.generators.vocabulary import (
    LOAD_STORAGE,
    STORAGES,
    build,
    call,
    canonical,
    is_allowed,
)

MOST_OPCODES = 1_000_000  # a 1024 px StyleGAN2 pickle has about 20 000
OLD_MAGIC = 0x1950A86A20F9469CFC6C  # what torch files before PyTorch 1.6 begin with
OLD_PICKLES = 5  # of such a file
LARGEST_LITERAL = 2**31  # bytes of one; the largest tensor of a backbone has a tenth
MOST_GLOBALS = 10_000  # different ones
FREE_BYTES = 2**20  # that calls may copy beyond what the file itself holds
ITEM_BYTES = 32  # of a container that a call copies


class PickleFile:
    """A pickle in a file, read no further than it makes sense, and no more than there is."""

    def __init__(self, file: BinaryIO, length: int) -> None:
        self.file, self.length = file, length
        self.tell = file.tell

    def __len__(self) -> int:
        """Return the bytes of the file."""
        return self.length

    def read(self, count: int) -> bytes:
        """Return the next bytes, fewer where the file ends.

        Raises:
            CheckpointError: so many that no tensor has them.
        """
        count = min(count, self.length - self.file.tell())  # before memory is taken for them
        if count > LARGEST_LITERAL:
            raise damaged(f"a value of {count} bytes")
        return self.file.read(count)

    def readline(self) -> bytes:
        """Return the rest of a line, or the first of it."""
        return self.file.readline(LARGEST_LITERAL)


@contextmanager
def pickle_file(path: Path) -> Iterator[PickleFile]:
    """Yield the pickle in a file.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        yield PickleFile(file, path.stat().st_size)


Pickle = bytes | PickleFile
Stream = BytesIO | PickleFile


def stream_of(data: Pickle) -> Stream:
    """Return what a pickle's opcodes are read from."""
    return BytesIO(data) if isinstance(data, bytes) else data


class _Mark:
    stands_for = "mark"


MARK = _Mark()


class _Machine:
    """The stack machine of one pickle."""

    def __init__(
        self, stream: Stream, length: int, persistent: Callable[[Any], Any] | None, calls: bool
    ) -> None:
        self.stream, self.length, self.persistent, self.calls = stream, length, persistent, calls
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.globals: dict[str, None] = {}  # in the order of appearance
        self.budget = 2 * length + FREE_BYTES

    def run(self) -> Any:
        count = 0
        for opcode, arg, _ in pickletools.genops(self.stream):
            count += 1
            if count > MOST_OPCODES:
                raise damaged("it does not end")
            if opcode.name == "STOP":
                return self.stack.pop()
            if opcode.name == "FRAME" and arg > self.length - self.stream.tell():
                raise damaged("a frame reaches past its end")
            self._step(opcode.name, arg)
        raise damaged("it ends too early")

    def _step(self, name: str, arg: Any) -> None:
        stack = self.stack
        if name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in LITERALS:
            stack.append(arg)
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in ("PROTO", "FRAME"):
            pass
        elif name == "MARK":
            stack.append(MARK)
        elif name == "POP":
            stack.pop()
        elif name == "POP_MARK":
            self._since_mark()
        elif name == "DUP":
            stack.append(stack[-1])
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[dict_key(arg)] = stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self.memo[arg])
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            n = int(name[-1])
            stack[-n:] = [tuple(stack[-n:])]
        elif name in ("TUPLE", "LIST", "FROZENSET", "DICT"):
            items = self._since_mark()
            stack.append(dict(pairs(_paired(items))) if name == "DICT" else _GATHER[name](items))
        elif name in ("APPEND", "APPENDS"):
            items = [stack.pop()] if name == "APPEND" else self._since_mark()
            self._top(list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = [stack.pop(-2), stack.pop()] if name == "SETITEM" else self._since_mark()
            self._mapping().update(pairs(_paired(items)))
        elif name == "ADDITEMS":
            items = self._since_mark()
            self._top(set).update(map(dict_key, items))
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            self._global(name, arg)
        elif name in ("REDUCE", "NEWOBJ") and self.calls:
            args = stack.pop()
            self._charge(args)
            reduce = name == "REDUCE"
            stack.append(call(stack.pop(), args, reduce=reduce, further=_FURTHER))
        elif name == "BUILD" and self.calls:
            state = stack.pop()
            if isinstance(state, tuple):
                self._charge(state)
            build(stack[-1], state)
        elif name == "BINPERSID" and self.persistent is not None:
            stack.append(self.persistent(stack.pop()))
        else:
            raise refused(f"the opcode {name}" + (f" ({arg})" if isinstance(arg, str) else ""))

    def _charge(self, args: Any) -> None:
        """Pay for what a call or state may copy: texts, bytes, and the items of containers."""
        if not isinstance(args, tuple):
            raise damaged("a call without arguments")
        self.budget -= ITEM_BYTES * len(args)
        for arg in args[:64] if self.budget >= 0 else ():
            if isinstance(arg, str | bytes | bytearray):
                self.budget -= len(arg)
            elif isinstance(arg, list | tuple | dict | set | frozenset):
                self.budget -= ITEM_BYTES * len(arg)
        if self.budget < 0:
            raise damaged("its calls copy more than the file holds")

    def _mapping(self) -> dict[Any, Any]:
        top = self.stack[-1]
        return entries_of(top) if isinstance(top, Record) else self._top(dict)

    def _top(self, kind: type[Any]) -> Any:
        if not isinstance(self.stack[-1], kind):
            raise damaged(f"items for a {kind_of(self.stack[-1])}")
        return self.stack[-1]

    def _since_mark(self) -> list[Any]:
        at = len(self.stack) - 1
        while self.stack[at] is not MARK:
            at -= 1
            if at < 0:
                raise damaged("a mark is missing")
        items = self.stack[at + 1 :]
        del self.stack[at:]
        return items

    def _global(self, opcode: str, arg: Any) -> None:
        if opcode == "GLOBAL":
            module, name = arg.split(" ", 1)
        else:
            name, module = self.stack.pop(), self.stack.pop()
        found = Global(module, name)
        self.globals[str(found)] = None
        if len(self.globals) > MOST_GLOBALS:
            raise damaged("it refers to more names than any network")
        if not is_allowed(found):
            raise refused(found)
        self.stack.append(canonical(found))


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Callable[[], Any]] = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": set,
}
_GATHER: dict[str, Callable[[list[Any]], Any]] = {
    "TUPLE": tuple,
    "LIST": list,
    "FROZENSET": lambda items: frozenset(map(dict_key, items)),
}
LITERALS = frozenset(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING "
    "UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 "
    "BYTEARRAY8".split()
)


def _paired(items: list[Any]) -> Iterator[tuple[Any, Any]]:
    if len(items) % 2:
        raise damaged("a key without a value")
    return zip(items[::2], items[1::2], strict=True)


# What a damaged stream makes the interpreter above raise.
MALFORMED = (
    ValueError, LookupError, TypeError, AttributeError, EOFError, OverflowError, RecursionError
)  # fmt: skip


def _run(
    stream: Stream,
    length: int,
    persistent: Callable[[Any], Any] | None = None,
    *,
    calls: bool = False,
) -> _Machine:
    machine = _Machine(stream, length, persistent, calls)
    try:
        machine.stack = [machine.run()]
    except MALFORMED as error:
        at = stream.tell()
        what = f"it makes no sense at byte {at}" if at < length else "it ends too early"
        raise damaged(what) from error
    return machine


def read_pickle(
    data: Pickle, persistent: Callable[[Any], Any] | None = None
) -> tuple[Any, list[str]]:
    """Read a pickle without running anything of it.

    Args:
        data: the whole pickle, or the file that it is in.
        persistent: gives what lies outside the pickle for its persistent ids; None refuses them.

    Returns:
        What it holds, and every global it refers to.

    Raises:
        UnsafeCheckpoint: it refers to something outside the allow-list, named.
        CheckpointError: it is damaged, or something follows it.
    """
    stream = stream_of(data)
    machine = _run(stream, len(data), persistent, calls=True)
    if stream.tell() != len(data):
        raise UnsafeCheckpoint("more data follows the pickle's end. Nothing of it was run")
    return machine.stack[0], list(machine.globals)


def storage_dtype(kind: Any, storage_type: Any, count: Any) -> torch.dtype:
    """Return the dtype of the storage that a persistent id names.

    Raises:
        CheckpointError: of no storage, of an unknown type, or without a number of elements.
    """
    name = str(storage_type) if isinstance(storage_type, Global) else ""
    if kind != "storage" or name not in STORAGES or type(count) is not int or count < 0:
        raise damaged("a storage of unknown type")
    return STORAGES[name]


def read_old_torch(data: Pickle, *, calls: bool = True) -> tuple[Any, list[str]]:
    """Read a torch file of the form before PyTorch 1.6: pickles, then the raw numbers.

    The pickles are a magic number, a version, facts of the system, the content, and the order of
    the storages, each of which is a number of elements and these.

    Args:
        data: the whole file, or the file itself.
        calls: whether the content may have any. Without, it is a storage: nothing else needs none.

    Returns:
        What it holds, and every global it refers to.

    Raises:
        UnsafeCheckpoint: it refers to something outside the allow-list, named.
        CheckpointError: damaged, or of another machine's byte order.
    """
    stream = stream_of(data)
    storages: dict[str, Storage] = {}

    def persistent(pid: Any) -> Any:
        if pid[0] == "module":  # a class, and the source text that it once had
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
        return _run(stream, len(data)).stack[0]

    if plain() != OLD_MAGIC:
        raise damaged("a torch file that does not begin like one")
    plain()
    system = plain()
    if isinstance(system, dict) and system.get("little_endian") is False:
        raise damaged("numbers of a big-endian machine, which are not read")
    machine = _run(stream, len(data), persistent, calls=calls)
    order = plain()
    if not isinstance(order, list) or sorted(map(str, order)) != sorted(storages):
        raise damaged("storages that are not those it refers to")
    for key in order:
        storages[key].data = _numbers(data, stream, storages[key])
    if stream.tell() != len(data):
        raise damaged("a storage whose size is not what it says")
    return machine.stack[0], list(machine.globals)


def _numbers(data: Pickle, stream: Stream, storage: Storage) -> memoryview:
    """Return what follows in a stream: a storage's numbers, not copied if that can be."""
    stored = int.from_bytes(stream.read(8), "little", signed=True)
    size = storage.length * storage.dtype.itemsize
    if stored != storage.length or size > len(data) - stream.tell():
        raise damaged("a storage whose size is not what it says")
    if isinstance(stream, PickleFile):
        return memoryview(stream.read(size))
    start = stream.tell()
    stream.seek(start + size)
    return memoryview(data)[start : start + size]


def _embedded_storage(args: tuple[Any, ...]) -> Storage:
    """`torch.storage._load_from_bytes(data)`, data being a torch file with one storage.

    It goes through the same interpreter, without calls: a file within this one, and so on, could
    be read again at each level.
    """
    (data,) = args
    if isinstance(data, str):
        data = data.encode("latin-1")
    found, _ = read_old_torch(bytes(data), calls=False)
    if not isinstance(found, Storage):
        raise damaged("an embedded torch file that is not one storage")
    return found


_FURTHER = {LOAD_STORAGE: _embedded_storage}
