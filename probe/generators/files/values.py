"""Turn the calls of a checkpoint's pickle into data, from their arguments alone.

Each function receives the arguments of one call as the pickle has them, of any type and number.
Bad arguments raise, either as damage or as an ordinary Python error; the reader turns both into a
message.
"""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeGuard

import numpy as np

from probe.errors import UnsafeCheckpoint, kind_of, printable
from probe.generators.files.records import (
    LARGEST_KEY,
    Array,
    Global,
    LazyTensor,
    Record,
    Storage,
    damaged,
)

LARGEST_COUNT = 2**48  # elements of a tensor; keeps products of sizes small
LARGEST_AXIS = 2**31  # needed for empty tensors too, whose shape no storage bounds
MOST_AXES = 16
NUMPY_DTYPES = re.compile(r"[<>|=]?([biuf][1248]|c8|c16|[SU]\d{1,4})", re.ASCII)
TUPLE = Global("builtins", "tuple")

Arguments = tuple[Any, ...]


@dataclass(eq=False)
class Dtype:
    """A numpy dtype, in numpy's text form."""

    text: str
    stands_for: ClassVar[str] = "dtype"


def refused(name: object) -> UnsafeCheckpoint:
    """Return the error for a name that is not on the allow-list."""
    return UnsafeCheckpoint(
        f"the pickle refers to {printable(str(name), 120)}, which is not on the list of what a "
        "generator needs. Nothing of it was run. If you trust the file, save the generator's "
        "tensors alone where it was made: torch.save(G.state_dict(), 'G.pt')"
    )


# --- containers


def dict_key(key: Any) -> Any:
    """Return the stand-in for a dict key or set item.

    A file must not choose what is hashed, since colliding keys make a dict quadratic. So a tuple
    becomes a record, which is hashed by identity.

    Raises:
        CheckpointError: if it is not text, a number, a name or a flat tuple of these, or a number
            is far too large.
    """
    if isinstance(key, tuple | frozenset):
        if len(key) > MOST_AXES or any(isinstance(item, tuple | frozenset) for item in key):
            raise damaged("a dict key that is a long or nested tuple")
        return Record(TUPLE, tuple(key))
    if isinstance(key, str | float | bytes | None | Global | Record | LazyTensor):
        return key
    if isinstance(key, int) and -LARGEST_KEY < key < LARGEST_KEY:
        return key
    raise damaged("a dict key that is neither text nor a number")


def pairs(items: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the items of a dict or of a sequence of pairs."""
    for key, value in items.items() if isinstance(items, dict) else items:
        yield dict_key(key), value


def entries_of(record: Record) -> dict[Any, Any]:
    """Return the items of an object whose class is a dict."""
    if record.entries is None:
        record.entries = {}
    return record.entries


def make_dict(args: Arguments) -> dict[Any, Any]:
    """`dict(items)`, and classes that are dicts."""
    return dict(pairs(*args)) if args else {}


def make_set(args: Arguments) -> set[Any]:
    """`set(items)`."""
    return set(map(dict_key, _sequence(args)))


def make_frozenset(args: Arguments) -> frozenset[Any]:
    """`frozenset(items)`."""
    return frozenset(map(dict_key, _sequence(args)))


def make_list(args: Arguments) -> list[Any]:
    """`collections.deque(items, longest)`."""
    return list(_sequence(args[:1]))


def _sequence(args: Arguments) -> Iterable[Any]:
    (items,) = args or ((),)
    if not isinstance(items, list | tuple | set | frozenset):  # some would read a number as length
        raise damaged(f"a set of the items of a {kind_of(items)}")
    return items


def make_size(args: Arguments) -> tuple[int, ...]:
    """`torch.Size(lengths)`."""
    (lengths,) = args
    if not _are_counts(lengths):
        raise damaged("a shape that is not whole numbers")
    return tuple(lengths)


# --- bytes and numbers


def make_bytes(args: Arguments) -> bytes | bytearray:
    """`bytes()` and `bytearray(data)`, from bytes or from text that represents them."""
    if len(args) == 2:
        return encode(args)
    (data,) = args or (b"",)
    if not isinstance(data, bytes | bytearray):  # a number would make that many zeros
        raise refused(f"bytes made of a {kind_of(data)}")
    return data


def encode(args: Arguments) -> bytes:
    """`_codecs.encode(text, "latin1")`, which protocols up to 2 use for bytes."""
    text, codec = args
    if codec not in ("latin1", "latin-1") or not isinstance(text, str):
        raise refused("_codecs.encode with another codec")
    return text.encode("latin-1")


def make_complex(args: Arguments) -> complex:
    """`complex(real, imaginary)`."""
    if not all(isinstance(part, float | int) for part in args):
        raise damaged("a complex number that is not two numbers")
    return complex(*args)


def _as_bytes(data: Any) -> bytes | bytearray:
    if isinstance(data, str):  # Python 2 text is bytes
        return data.encode("latin-1")
    if not isinstance(data, bytes | bytearray):
        raise damaged("numbers that are not bytes")
    return data


# --- numpy


def numpy_dtype(args: Arguments) -> Dtype:
    """`numpy.dtype(text, …)`."""
    text = args[0]
    if not isinstance(text, str):  # its text could be endless
        raise refused(f"a numpy dtype that is a {kind_of(text)}")
    if not NUMPY_DTYPES.fullmatch(text):
        raise refused(f"numpy dtype {text}")
    return Dtype(text)


def numpy_scalar(args: Arguments) -> Any:
    """`numpy.core.multiarray.scalar(dtype, data)`: a Python number or text."""
    dtype, data = args
    value = np.frombuffer(_as_bytes(data), dtype=np.dtype(dtype.text))
    if len(value) != 1:
        raise damaged("a number of the wrong size")
    return value[0].item()


def numpy_buffer(args: Arguments) -> Array:
    """`numpy.core.numeric._frombuffer(data, dtype, shape, order, axes)`; `axes` is optional."""
    data, dtype, shape, order, axes = (*args, None)[:5]
    if order not in ("C", "F", "K") or len(args) not in (4, 5) or (order == "K") != bool(axes):
        raise damaged("a numpy array of unknown order")
    if order != "K":
        return Array(_array(data, dtype, shape, "F" if order == "F" else "C"))
    if not _are_counts(axes) or sorted(axes) != list(range(len(shape or ()))):
        raise damaged("a numpy array of unknown order")
    return Array(_array(data, dtype, shape, "C").transpose(axes))


def fill_array(array: Array, state: Any) -> None:
    """Fill an array from (version, shape, dtype, is Fortran order, data)."""
    if not isinstance(state, tuple):  # copying it would escape the budget
        raise damaged("a numpy array without content")
    _, shape, dtype, fortran, data = state
    array.value = _array(data, dtype, shape, "F" if fortran else "C")


def _array(data: Any, dtype: Any, shape: Any, order: Literal["C", "F"]) -> np.ndarray:
    if not isinstance(dtype, Dtype) or not _are_counts(shape):
        raise damaged("a numpy array without a type or shape")
    flat = np.frombuffer(_as_bytes(data), dtype=np.dtype(dtype.text))
    if flat.size != math.prod(shape):
        raise damaged("a numpy array of the wrong size")
    return flat.reshape(shape, order=order)


# --- torch


def persistent_object(args: Arguments) -> Record:
    """`_reconstruct_persistent_obj(meta)`; the class's source text in it is ignored."""
    (meta,) = args
    if not isinstance(meta, dict) or "class_name" not in meta:
        raise damaged("a module without a class name")
    return Record(Global("persistent", meta["class_name"]), (), meta.get("state"))


def rebuild_tensor(args: Arguments) -> LazyTensor:
    """`torch._utils._rebuild_tensor_v2(storage, offset, size, stride, …)`."""
    storage, offset, size, stride = args[:4]
    if not isinstance(storage, Storage) or not _are_counts(size) or not _are_counts(stride):
        raise damaged("a tensor without a storage or shape")
    if len(size) != len(stride) or not _are_counts((offset,)):
        raise damaged("a tensor whose shape and strides differ in length")
    if math.prod(max(n, 1) for n in size) > LARGEST_COUNT or max(size, default=0) > LARGEST_AXIS:
        raise damaged(f"a tensor of shape {tuple(size)}")
    count = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if count > storage.length or (count and last >= storage.length):
        raise damaged(f"a tensor of shape {tuple(size)} reaches outside its storage")
    return LazyTensor(storage, offset, tuple(size), tuple(stride))


def rebuild_parameter(args: Arguments) -> Any:
    """`torch._utils._rebuild_parameter(tensor, …)`: returns the tensor."""
    return args[0]


def _are_counts(numbers: Any) -> TypeGuard[Sequence[int]]:
    return (
        isinstance(numbers, list | tuple)
        and len(numbers) <= MOST_AXES
        and all(type(n) is int and 0 <= n <= LARGEST_COUNT for n in numbers)
    )
