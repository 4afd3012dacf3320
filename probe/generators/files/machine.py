"""The stack machine of pickles: walks the opcodes and builds data, but runs nothing.

A small file must stay cheap to read. Opcodes are counted. Whatever a call copies is charged to a
budget that grows with the file, since the memo lets many calls share one payload. Numbers are
bounded when they become shapes or keys.
"""

import pickletools
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any, Protocol, cast

from probe.errors import kind_of
from probe.generators.files.records import Global, Record, damaged
from probe.generators.files.values import dict_key, entries_of, pairs, refused
from probe.generators.files.vocabulary import Call, canonical, handle_build, handle_call, is_allowed

MOST_OPCODES = 1_000_000  # a 1024 px StyleGAN2 pickle has about 20 000
MOST_GLOBALS = 10_000  # distinct ones
FREE_BYTES = 2**20  # that calls may copy beyond the file's own size
ITEM_BYTES = 32  # cost of each item of a list, dict or set that a call copies


class Stream(Protocol):
    """The source of opcodes."""

    def read(self, count: int, /) -> bytes:
        """Return the next bytes, fewer at the end."""
        ...

    def readline(self) -> bytes:
        """Return the rest of the line."""
        ...

    def tell(self) -> int:
        """Return the number of bytes read."""
        ...


def opcodes(stream: Stream) -> Iterator[tuple[pickletools.OpcodeInfo, Any]]:
    """Yield a pickle's opcodes with their arguments, up to the first malformed one."""
    # genops uses only the part of a file's interface that `Stream` has.
    for opcode, arg, _ in pickletools.genops(cast(IO[bytes], stream)):
        yield opcode, arg


class _Mark:
    stands_for = "mark"


MARK = _Mark()


class _Machine:
    """The stack machine for one pickle."""

    def __init__(
        self,
        stream: Stream,
        length: int,
        persistent: Callable[[Any], Any] | None,
        further: Mapping[str, Call] | None,
    ) -> None:
        self.stream, self.length = stream, length
        self.persistent, self.further = persistent, further
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.globals: dict[str, None] = {}  # in the order of appearance
        self.budget = 2 * length + FREE_BYTES

    def run(self) -> Any:
        count = 0
        for opcode, arg in opcodes(self.stream):
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
        elif name in ("REDUCE", "NEWOBJ") and self.further is not None:
            args = stack.pop()
            self._charge(args)
            reduce = name == "REDUCE"
            stack.append(handle_call(stack.pop(), args, reduce=reduce, further=self.further))
        elif name == "BUILD" and self.further is not None:
            state = stack.pop()
            if isinstance(state, tuple):
                self._charge(state)
            handle_build(stack[-1], state)
        elif name == "BINPERSID" and self.persistent is not None:
            stack.append(self.persistent(stack.pop()))
        else:
            raise refused(f"the opcode {name}" + (f" ({arg})" if isinstance(arg, str) else ""))

    def _charge(self, args: Any) -> None:
        """Charge for what a call or state may copy: text, bytes, and items of containers."""
        if not isinstance(args, tuple):
            raise damaged("a call without arguments")
        self.budget -= 8 * len(args)
        for arg in args[:64] if self.budget >= 0 else ():
            if isinstance(arg, str | bytes | bytearray):
                self.budget -= len(arg)
            elif isinstance(arg, tuple):
                self.budget -= 8 * len(arg)
            elif isinstance(arg, list | dict | set | frozenset):
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


# What a damaged stream makes the machine above raise.
MALFORMED = (
    ValueError, LookupError, TypeError, AttributeError, EOFError, OverflowError, RecursionError
)  # fmt: skip


def run(
    stream: Stream,
    length: int,
    persistent: Callable[[Any], Any] | None = None,
    further: Mapping[str, Call] | None = None,
) -> tuple[Any, list[str]]:
    """Read one pickle from a stream, up to its end.

    Args:
        stream: positioned at the pickle's first byte.
        length: of the whole stream, in bytes.
        persistent: resolves persistent ids to data outside the pickle; None refuses them.
        further: calls accepted in addition to `vocabulary`'s; None refuses all calls.

    Returns:
        The content, and every global it refers to, in order of appearance.

    Raises:
        UnsafeCheckpoint: if it refers to something outside the allow-list; names it.
        CheckpointError: if it is damaged.
    """
    machine = _Machine(stream, length, persistent, further)
    try:
        return machine.run(), list(machine.globals)
    except MALFORMED as error:
        at = stream.tell()
        what = f"it makes no sense at byte {at}" if at < length else "it ends too early"
        raise damaged(what) from error
