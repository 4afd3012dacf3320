"""Pickles read as data: an interpreter that knows what a checkpoint holds and runs none of it.

`read_pickle` walks the opcodes itself. A global is only ever a name; the few names of the
allow-list have a meaning here (a dict, a tensor, a module's state) and everything else ends the
reading. No class is looked up, no function of the pickle's choosing is called.

What comes out: plain containers and numbers, and the stand-ins of `records` for all else.

A small file must not cost much either. Opcodes are counted; what a call copies is charged to a
budget that grows with the file, since a memo lets one payload be passed to many calls; numbers
are bounded where they become shapes or keys; files within the file may hold data and no calls.
"""

import math
import pickletools
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np
import torch

from probe.errors import UnsafeCheckpoint, kind_of, printable
from probe.generators.records import (
    LARGEST_KEY,
    Array,
    Global,
    LazyTensor,
    Record,
    Storage,
    damaged,
)

MOST_OPCODES = 1_000_000  # a 1024 px StyleGAN2 pickle has about 20 000
LARGEST_LITERAL = 2**31  # bytes of one; the largest tensor of a backbone has a tenth
MOST_GLOBALS = 10_000  # different ones
FREE_BYTES = 2**20  # that calls may copy beyond what the file itself holds
LARGEST_COUNT = 2**48  # elements of a tensor; keeps the products of sizes small
LARGEST_AXIS = 2**31  # also of a tensor without elements, whose shape no storage bounds


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


@dataclass(eq=False)
class _Dtype:
    text: str
    stands_for: ClassVar[str] = "dtype"


class _Mark:
    stands_for = "mark"


MARK = _Mark()

# Names whose objects are kept as inert records: modules of the known families, of torch.nn (whose
# hooks keep spectral norms), and of the libraries whose backbones stand beside a vision-aided GAN.
INERT = re.compile(
    r"(torch\.nn\.(modules|utils|parameter)\.|torch_utils\.|training\.|dnnlib\.tflib\.|pg_modules\."
    r"|R3GAN\.|networks\.|vision_aided_loss\.|timm\.|torchvision\.|open_clip\.|clip\.|lpips\."
    r"|antialiased_cnns\.)[\w.]*\w|functools\.partial"
    r"|torch\.(device|Size|dtype|float16|float32|float64|bfloat16|int32|int64|uint8|bool)"
)
DICTS = {"collections.OrderedDict", "dnnlib.util.EasyDict", "dnnlib.EasyDict", "builtins.dict"}
STORAGES = {
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.DoubleStorage": torch.float64,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}
# Of the inert ones, what a call runs nothing by. Of the others only classes may be called, as those
# of enumerations are: functions of these libraries write files, fetch addresses, call by name.
HARMLESS = {"functools.partial", "torch.device", "torch.Size"}
CLASS = re.compile(r"_*[A-Z]\w*")
NUMPY_DTYPES = re.compile(r"[<>|=]?[biuf][1248]")


def is_harmless(name: str) -> bool:
    """Return whether to call a global is to make a container, a tensor or the like."""
    return name in CALLS or name in DICTS or name in STORAGES or name in HARMLESS


def is_allowed(found: Global, *, called: bool = False) -> bool:
    """Return whether a global has a meaning to this reader.

    Args:
        found: the global.
        called: by REDUCE, which would have run a function or a class's constructor.
    """
    name = str(found)
    if is_harmless(name):
        return True
    # Dots in the name itself reach through attributes: from a module to all that it imports.
    path = found.name.split(".")
    is_class = all(map(CLASS.fullmatch, path))
    return bool(INERT.fullmatch(name)) and (is_class or (len(path) == 1 and not called))


def _refuse(name: object) -> UnsafeCheckpoint:
    return UnsafeCheckpoint(
        f"the pickle refers to {printable(str(name), 120)}, which is not on the list of what a "
        "generator needs. Nothing of it was run"
    )


def _persistent_object(args: tuple[Any, ...]) -> Record:
    """`_reconstruct_persistent_obj(meta)`: the class's source text in it is not looked at."""
    (meta,) = args
    if not isinstance(meta, dict) or "class_name" not in meta:
        raise damaged("a module without a class name")
    return Record(Global("persistent", meta["class_name"]), (), meta.get("state"))


def _rebuild_tensor(args: tuple[Any, ...]) -> LazyTensor:
    storage, offset, size, stride = args[:4]
    if isinstance(size, Record):  # torch.Size((…))
        size = size.args[0]
    if len(size) != len(stride) or len(size) > 16:
        raise damaged("a tensor whose shape and strides differ in length")
    size, stride = tuple(size), tuple(stride)
    if not isinstance(storage, Storage) or not _are_counts((offset, *size, *stride)):
        raise damaged("a tensor without a storage or shape")
    if math.prod(max(n, 1) for n in size) > LARGEST_COUNT or max(size, default=0) > LARGEST_AXIS:
        raise damaged(f"a tensor of shape {size}")
    count = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if count > storage.length or (count and last >= storage.length):
        raise damaged(f"a tensor of shape {size} reaches outside its storage")
    return LazyTensor(storage, offset, size, stride)


def _are_counts(numbers: Any) -> bool:
    return all(type(n) is int and 0 <= n <= LARGEST_COUNT for n in numbers)


def _numpy_dtype(args: tuple[Any, ...]) -> _Dtype:
    text = args[0]
    if not isinstance(text, str):  # whose text could be without end
        raise _refuse(f"a numpy dtype that is a {kind_of(text)}")
    if not NUMPY_DTYPES.fullmatch(text):
        raise _refuse(f"numpy dtype {text}")
    return _Dtype(text)


def _numpy_scalar(args: tuple[Any, ...]) -> Any:
    dtype, data = args
    value = np.frombuffer(_as_bytes(data), dtype=np.dtype(dtype.text))
    if len(value) != 1:
        raise damaged("a number of the wrong size")
    return value[0].item()


def _as_bytes(data: Any) -> bytes:
    # Protocol 2 and below write bytes as latin-1 text through _codecs.encode.
    if isinstance(data, str):
        return data.encode("latin-1")
    if not isinstance(data, bytes):
        raise damaged("numbers that are not bytes")
    return data


def _encode(args: tuple[Any, ...]) -> bytes:
    text, codec = args
    if codec != "latin1" or not isinstance(text, str):
        raise _refuse("_codecs.encode with another codec")
    return text.encode("latin-1")


CALLS: dict[str, Callable[[tuple[Any, ...]], Any]] = {
    "torch_utils.persistence._reconstruct_persistent_obj": _persistent_object,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": lambda args: args[0],
    "torch.storage._load_from_bytes": lambda args: read_legacy_storage(_as_bytes(args[0])),
    "numpy.dtype": _numpy_dtype,
    "numpy.core.multiarray.scalar": _numpy_scalar,
    "numpy._core.multiarray.scalar": _numpy_scalar,
    "numpy.core.multiarray._reconstruct": lambda args: Array(),
    "numpy._core.multiarray._reconstruct": lambda args: Array(),
    "numpy.ndarray": lambda args: Array(),
    "_codecs.encode": _encode,
}


def _call(function: Any, args: Any, *, reduce: bool) -> Any:
    """Give a REDUCE or NEWOBJ its meaning."""
    if not isinstance(function, Global):
        raise _refuse(f"a call of a {kind_of(function)}")
    if not isinstance(args, tuple):
        raise damaged("a call without arguments")
    name = str(function)
    if name in DICTS:
        return dict(_pairs(args[0])) if args else {}
    if name in CALLS:
        return CALLS[name](args)
    if is_allowed(function, called=reduce) and name not in STORAGES:
        return Record(function, args)
    raise _refuse(f"a call of {name}")


def _pairs(items: Any) -> Iterator[tuple[Any, Any]]:
    for key, value in items.items() if isinstance(items, dict) else items:
        yield dict_key(key), value


def dict_key(key: Any) -> Any:
    """Return a value that may be a dict's key or a set's item.

    Raises:
        CheckpointError: it is no text or number, or an integer chosen to collide with others.
    """
    # A deeply nested tuple as a key would overflow the C stack when it is hashed.
    if isinstance(key, str | float | bytes | None):
        return key
    if isinstance(key, int) and -LARGEST_KEY < key < LARGEST_KEY:
        return key
    raise damaged("a dict key that is no text or number")


def _build(target: Any, state: Any) -> None:
    """Give a BUILD its meaning: state for a record or an array, nothing else."""
    if isinstance(target, Record):
        if str(target.type) == "functools.partial" and isinstance(state, tuple):
            state = dict(zip(("func", "args", "keywords"), state, strict=False))
        if not isinstance(state, dict):
            raise _refuse(f"a state of {target.type} that is not a dict")
        target.state = state
    elif isinstance(target, Array):
        if not isinstance(state, tuple):  # whose copy is not paid for
            raise damaged("a numpy array without content")
        _, shape, dtype, fortran, data = state
        if not isinstance(dtype, _Dtype) or len(shape) > 16 or not _are_counts(shape):
            raise damaged("a numpy array without a type or shape")
        flat = np.frombuffer(_as_bytes(data), dtype=np.dtype(dtype.text))
        if flat.size != math.prod(shape):
            raise damaged("a numpy array of the wrong size")
        target.value = flat.reshape(shape, order="F" if fortran else "C")
    elif isinstance(target, _Dtype):
        byte_order = state[1]
        if byte_order in ("<", ">"):
            target.text = byte_order + target.text.lstrip("<>|=")
    elif not isinstance(target, dict) or not isinstance(state, dict):
        # An OrderedDict's attributes (a state dict's `_metadata`) are dropped.
        raise _refuse(f"a state for a {kind_of(target)}")


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
            stack.append(dict(_pairs(_paired(items))) if name == "DICT" else _GATHER[name](items))
        elif name in ("APPEND", "APPENDS"):
            items = [stack.pop()] if name == "APPEND" else self._since_mark()
            self._top(list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = [stack.pop(-2), stack.pop()] if name == "SETITEM" else self._since_mark()
            self._top(dict).update(_pairs(_paired(items)))
        elif name == "ADDITEMS":
            self._top(set).update(map(dict_key, self._since_mark()))
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            self._global(name, arg)
        elif name in ("REDUCE", "NEWOBJ") and self.calls:
            args = stack.pop()
            self._charge(args)
            stack.append(_call(stack.pop(), args, reduce=name == "REDUCE"))
        elif name == "BUILD" and self.calls:
            state = stack.pop()
            if isinstance(state, tuple):
                self._charge(state)
            _build(stack[-1], state)
        elif name == "BINPERSID" and self.persistent is not None:
            stack.append(self.persistent(stack.pop()))
        else:
            raise _refuse(f"the opcode {name}" + (f" ({arg})" if isinstance(arg, str) else ""))

    def _charge(self, args: Any) -> None:
        """Pay for what a call or state may copy: texts and bytes, and 8 bytes for each item."""
        if not isinstance(args, tuple):
            raise damaged("a call without arguments")
        self.budget -= 8 * len(args)
        for arg in args[:64] if self.budget >= 0 else ():
            if isinstance(arg, str | bytes):
                self.budget -= len(arg)
            elif isinstance(arg, list | tuple | dict | set):
                self.budget -= 8 * len(arg)
        if self.budget < 0:
            raise damaged("its calls copy more than the file holds")

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
            raise _refuse(found)
        self.stack.append(found)


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
    if kind != "storage" or name not in STORAGES or type(count) is not int:
        raise damaged("a storage of unknown type")
    return STORAGES[name]


def read_legacy_storage(data: bytes) -> Storage:
    """Read the bytes that `torch.storage._load_from_bytes` would be given.

    A torch file of the old form with one storage: magic number, version, system, object and key
    pickles, then the number of elements and the raw numbers. Each pickle goes through the same
    interpreter, without calls: a file within this one, and so on, could be read again at each
    level. The numbers are not copied.

    Raises:
        CheckpointError: another form, or damaged.
    """
    stream = BytesIO(data)
    described: list[tuple[torch.dtype, int]] = []

    def persistent(pid: Any) -> str:
        kind, storage_type, _, _, count, *_ = pid
        described.append((storage_dtype(kind, storage_type, count), count))
        return "storage"

    for _ in range(3):  # magic number, protocol version, system information
        _run(stream, len(data))
    if _run(stream, len(data), persistent).stack[0] != "storage" or len(described) != 1:
        raise damaged("an embedded torch file that is not one storage")
    _run(stream, len(data))  # the list of keys
    dtype, count = described[0]
    start = stream.tell() + 8
    stored = int.from_bytes(data[start - 8 : start], "little", signed=True)
    if stored != count or len(data) - start != count * dtype.itemsize:
        raise damaged("a storage whose size is not what it says")
    return Storage(dtype, memoryview(data)[start:])
