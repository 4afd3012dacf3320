"""Inert records of a checkpoint's pickle, and the tensors and arguments made from them.

Records refer to each other as in the pickle, so a small file can hold one record in many places.
Everything that walks or copies them therefore counts.
"""

import functools
import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from probe.errors import CheckpointError, kind_of, shown

SHARED_BYTES = 2**26  # that a network's tensors may take beyond their storages
LARGEST_KEY = 2**60  # larger integers can be chosen to collide, which makes dicts quadratic
NO_DATA = memoryview(b"")
LONGEST_NAME = 200
MOST_TENSORS = 20_000  # or modules, of a network; the largest generators have some hundreds
LONGEST_NAMES = 2**24  # characters of all names, each of which repeats its parent modules' names
MOST_ARGUMENTS = 10_000
LONGEST_TEXT = 1000  # of an argument
DEEPEST = 64  # nesting of modules


@dataclass(frozen=True)
class Global:
    """A name that the pickle refers to. Never imported.

    Raises:
        CheckpointError: if it is not text, or is long enough to make repeated joining expensive.
    """

    module: str
    name: str
    stands_for: ClassVar[str] = "class or function"

    def __post_init__(self) -> None:
        for word in (self.module, self.name):
            if not isinstance(word, str):
                raise damaged("a global without a name")
            if len(word) > LONGEST_NAME:
                raise damaged(f"it refers to a name of {len(word)} characters, {shown(word)}")

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False, slots=True)
class Record:
    """An object from the pickle, inert.

    Attributes:
        type: its class.
        args: the arguments it was made from.
        state: its attributes.
        entries: its items, if its class is a dict.
    """

    type: Global
    args: Any = ()
    state: Any = None
    entries: dict[Any, Any] | None = None
    stands_for: ClassVar[str] = "pickled object"


@dataclass(eq=False)
class Storage:
    """The raw numbers of tensors, as in the file.

    Attributes:
        dtype: of the numbers.
        length: how many.
        data: the numbers; old torch files store them after everything that refers to them.
    """

    dtype: torch.dtype
    length: int
    data: memoryview = NO_DATA
    stands_for: ClassVar[str] = "storage"


@dataclass(frozen=True, eq=False)
class LazyTensor:
    """A tensor from the pickle, not yet created."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    stands_for: ClassVar[str] = "tensor"

    @property
    def nbytes(self) -> int:
        """Size of the copy that `tensor` creates."""
        return math.prod(self.size) * self.storage.dtype.itemsize

    def tensor(self) -> torch.Tensor:
        """Return the tensor on the CPU, a contiguous copy."""
        if math.prod(self.size) == 0:
            return torch.empty(self.size, dtype=self.storage.dtype)
        with warnings.catch_warnings():
            # torch warns that the buffer is read-only, but it is only copied from.
            warnings.simplefilter("ignore", UserWarning)
            flat = torch.frombuffer(self.storage.data, dtype=self.storage.dtype)
        view = torch.as_strided(flat, self.size, self.stride, self.offset)
        return view.clone(memory_format=torch.contiguous_format)


@dataclass(eq=False)
class Array:
    """A numpy array whose content arrives with BUILD."""

    value: np.ndarray | None = None
    stands_for: ClassVar[str] = "numpy array"

    @functools.cached_property
    def tensor(self) -> LazyTensor | None:
        """The same numbers as a tensor, None for text or an array without content.

        All references to the array share one tensor, so its numbers are counted once.
        """
        if self.value is None:
            return None
        native = self.value.astype(self.value.dtype.newbyteorder("="), order="C", copy=False)
        try:
            dtype = torch.from_numpy(np.empty(0, native.dtype)).dtype
        except TypeError:
            return None
        data = native.reshape(-1).data.cast("B") if native.size else NO_DATA
        stride = tuple(step // native.itemsize for step in native.strides)
        return LazyTensor(Storage(dtype, native.size, data), 0, native.shape, stride)


def damaged(what: str) -> CheckpointError:
    """Return the error for a malformed stream."""
    return CheckpointError(f"the pickle is damaged: {what}")


def module_tensors(record: Record) -> dict[str, LazyTensor]:
    """Return a module record's tensors under their dotted names, as `state_dict()` would.

    Raises:
        CheckpointError: if it is not a module, is nested too deeply, or contains itself.
    """
    tensors: dict[str, LazyTensor] = {}
    names = _Names()
    for prefix, state in _modules(record):
        passing = state.get("_non_persistent_buffers_set")
        for group in ("_parameters", "_buffers"):
            for name, value in _dict(state.get(group)).items():
                full = names.counted(prefix, name)
                if isinstance(value, LazyTensor):
                    if not isinstance(passing, set) or name not in passing:
                        tensors[full] = value
                elif value is not None:
                    raise damaged(f"{shown(full)} is not a tensor")
    return tensors


def module_attributes(record: Record) -> dict[str, Any]:
    """Return a module record's text, number and None attributes, under dotted names.

    They determine the constructor's arguments if a file does not store those.

    Raises:
        CheckpointError: as `module_tensors`.
    """
    attributes: dict[str, Any] = {}
    names = _Names()
    for prefix, state in _modules(record):
        for name, value in state.items():
            is_own = isinstance(name, str) and not name.startswith("_")
            if is_own and isinstance(value, str | int | float | None):
                attributes[names.counted(prefix, name)] = value
    return attributes


def _modules(record: Record) -> Iterator[tuple[str, dict[Any, Any]]]:
    """Yield the prefix ("a.b." or "") and state of a module and of each module within it."""
    seen: set[int] = set()
    names = _Names()

    def walk(module: Any, prefix: str, depth: int) -> Iterator[tuple[str, dict[Any, Any]]]:
        if not isinstance(module, Record) or not isinstance(module.state, dict):
            raise damaged(f"{shown(prefix)} is not a module")
        # No generator uses one module in two places; a bomb repeats modules many times.
        if depth > DEEPEST or id(module) in seen:
            raise damaged(f"{shown(prefix)} is nested without end, or twice in the network")
        seen.add(id(module))
        yield prefix, module.state
        for name, child in _dict(module.state.get("_modules")).items():
            full = names.counted(prefix, name)
            if child is not None:
                yield from walk(child, f"{full}.", depth + 1)

    return walk(record, "", 0)


class _Names:
    """Joins names, refusing so many or such long ones that a small file could exhaust memory."""

    def __init__(self) -> None:
        self.left, self.characters = MOST_TENSORS, LONGEST_NAMES

    def counted(self, prefix: str, name: Any) -> str:
        """Return a name with its prefix.

        Raises:
            CheckpointError: if it is not a name, or the limits are exceeded.
        """
        full = prefix + _name(name)
        self.left, self.characters = self.left - 1, self.characters - len(full)
        if self.left < 0 or self.characters < 0:
            raise damaged("more tensors or longer names than any network has")
        return full


def make_tensors(tensors: Mapping[str, LazyTensor]) -> dict[str, torch.Tensor]:
    """Create a network's tensors.

    Raises:
        CheckpointError: if there are more than any network has, or so many share one storage that
            copying them would take much more memory than the file.
    """
    if len(tensors) > MOST_TENSORS:
        raise damaged("more tensors than any network has")
    storages = {id(t.storage): t.storage.data.nbytes for t in tensors.values()}
    if sum(t.nbytes for t in tensors.values()) > sum(storages.values()) + SHARED_BYTES:
        raise damaged("many tensors in one storage")
    return {name: lazy.tensor() for name, lazy in tensors.items()}


def _name(name: Any) -> str:
    # A small file may repeat a name in many places, and each use joins or writes it out.
    if not isinstance(name, str | int) or len(str(name)) > LONGEST_NAME:
        raise damaged("a module, tensor or argument without a proper name")
    return str(name)


def _dict(value: Any) -> dict[Any, Any]:
    if not isinstance(value, dict | None):
        raise damaged("a module's state is not a dict")
    return value or {}


def plain(value: Any) -> Any:
    """Return containers of plain values, for records of constructor arguments.

    Raises:
        CheckpointError: if anything else is in it, or more than arguments ever have.
    """
    left = MOST_ARGUMENTS  # also bounds a small file that shares its branches many times

    def copy(value: Any, depth: int) -> Any:
        nonlocal left
        left -= 1
        if left < 0 or depth > DEEPEST:
            raise damaged("constructor arguments without end")
        if isinstance(value, int) and abs(value) >= LARGEST_KEY:
            raise damaged("a constructor argument that is far too large")
        if isinstance(value, str) and len(value) > LONGEST_TEXT:
            raise damaged("a constructor argument that is far too long")
        if isinstance(value, str | int | float | bool | None):
            return value
        if isinstance(value, dict):
            return {_name(k): copy(v, depth + 1) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [copy(v, depth + 1) for v in value]
        raise damaged(f"a constructor argument of type {kind_of(value)}")

    return copy(value, 0)
