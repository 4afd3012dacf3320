"""List what a pickle refers to, and what would have run: for inspection, not for loading."""

import io
import pickletools
from pathlib import Path
from typing import Any

from probe.errors import CheckpointError, printable
from probe.generators.files.machine import (
    FREE_BYTES,
    LITERALS,
    MALFORMED,
    MARK,
    MOST_GLOBALS,
    MOST_OPCODES,
    Stream,
    opcodes,
)
from probe.generators.files.records import Global, damaged
from probe.generators.files.torch_file import is_old, opened
from probe.generators.files.unpickle import OLD_PICKLES, Pickle, pickle_file, stream_of
from probe.generators.files.values import dict_key
from probe.generators.files.vocabulary import (
    CALLS,
    CREATE_ARRAY,
    FROM_TYPE,
    GETATTR,
    LOAD_STORAGE,
    LOAD_TYPE,
    PARTIAL,
    attribute,
    canonical,
    is_allowed,
    is_harmless,
)


def globals_in_torch(path: Path) -> list[str]:
    """List every global that a torch file's pickles refer to; see `globals_in`."""
    try:
        if is_old(path):
            with pickle_file(path) as data:
                return globals_in(data, depth=1, pickles=OLD_PICKLES)
        with opened(path) as read:
            pickled = read("data.pkl")
    except (CheckpointError, OSError) as error:
        return [f"(the listing stops: {printable(str(error), 100)})"]
    return globals_in(pickled, depth=1)


def globals_in(data: Pickle, depth: int = 0, pickles: int = 1) -> list[str]:
    """List every global a pickle refers to, for inspection; unlike reading, this refuses nothing.

    The stack is only simulated: names and bytes are kept, everything else is a placeholder. Torch
    files passed to `_load_from_bytes` are listed too, since their pickles would also run.

    Args:
        data: the whole pickle, or the file that holds it.
        depth: 1 for a torch file's pickle, which refers to storages outside it.
        pickles: how many follow each other; with one, any bytes after it are reported.

    Returns:
        Each name once, in order of appearance. A name off the allow-list is followed by
        " (not allowed: would have been called)", or "… imported)" if nothing calls it. Names in
        genuine files are marked too if their own programs would have run something through them:
        " (would have run source text of the file)", " (would have been called)". If the list is
        incomplete, a last entry in parentheses says where it stopped; a damaged pickle still runs
        up to the damaged byte.
    """
    lister = _Lister(2 * len(data) + FREE_BYTES)
    stopped, stream = "", stream_of(data)
    try:
        for _ in range(pickles):
            lister.scan(stream, depth)
        if pickles == 1 and (left := len(data) - stream.tell()):
            stopped = f"({left} bytes after the pickle's end are not listed)"
    except (CheckpointError, *MALFORMED) as error:
        stopped = f"(the listing stops at byte {stream.tell()}: {printable(str(error), 100)})"
    names = [printable(name, 100) + mark for name, mark in lister.found.items()]
    return names + ([stopped] if stopped else [])


# Names whose own programs extract source text from the file and run it.
RUN_SOURCE = {
    "torch_utils.persistence._reconstruct_persistent_obj",
    "dnnlib.tflib.network.Network",
}
IMPORTED = " (not allowed: imported)"
CALLED = " (not allowed: would have been called)"


class _Lister:
    """Tracks what each opcode takes from and leaves on the stack, and nothing more."""

    def __init__(self, budget: int) -> None:
        self.found: dict[str, str] = {}  # name → its mark
        self.opcodes, self.budget = 0, budget

    def scan(self, stream: Stream, depth: int) -> None:
        stack: list[Any] = []
        memo: dict[int, Any] = {}
        for opcode, arg in opcodes(stream):
            self.opcodes += 1
            if self.opcodes > MOST_OPCODES or len(self.found) > MOST_GLOBALS:
                raise damaged("it does not end")
            if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
                memo[len(memo) if arg is None else dict_key(arg)] = stack[-1]
                continue
            if opcode.name in ("GET", "BINGET", "LONG_BINGET"):
                stack.append(memo[arg])
                continue
            if opcode.name == "DUP":
                stack.append(stack[-1])
                continue
            taken = self._take(stack, opcode.stack_before)
            result = self._result(opcode.name, arg, taken, depth)
            stack.extend(
                MARK if kind is pickletools.markobject else result for kind in opcode.stack_after
            )

    def _take(self, stack: list[Any], kinds: list[Any]) -> list[Any]:
        if pickletools.markobject not in kinds:
            count = len(kinds)
            if count > len(stack):
                raise damaged("the stack is empty")
            taken = stack[len(stack) - count :]
            del stack[len(stack) - count :]
            return taken
        at = len(stack) - 1
        while stack[at] is not MARK:
            at -= 1
            if at < 0:
                raise damaged("a mark is missing")
        taken = stack[at + 1 :]
        below = kinds.index(pickletools.markobject)  # the list or dict that receives the items
        del stack[at - below :]
        return taken

    def _result(self, name: str, arg: Any, taken: list[Any], depth: int) -> Any:
        """Record what the opcode refers to; return what it leaves, None if that is irrelevant."""
        if name in ("GLOBAL", "INST", "STACK_GLOBAL"):
            words = taken if name == "STACK_GLOBAL" else arg.split(" ", 1)
            found = Global(*words)
            self.found.setdefault(str(found), "" if is_allowed(found) else IMPORTED)
            if name == "INST":
                self._mark(found, called=True)
            return found
        if name in ("REDUCE", "NEWOBJ", "NEWOBJ_EX", "OBJ") and taken:
            if not isinstance(taken[0], Global):
                self.found["an object of the pickle"] = CALLED
                return None
            self._mark(taken[0], called=name in ("REDUCE", "OBJ"))
            if name == "REDUCE" and isinstance(taken[1], tuple) and taken[1]:
                return self._call(str(canonical(taken[0])), taken[1], depth)
        elif name == "BINPERSID" and depth:  # a torch file's storages and classes
            return taken[0][1] if isinstance(taken[0], tuple) and len(taken[0]) == 4 else None
        elif name.startswith("EXT") or name in ("PERSID", "BINPERSID"):
            self.found[f"opcode {name}"] = CALLED
        elif name in LITERALS and isinstance(arg, str | bytes | bytearray):
            return arg
        elif name.startswith("TUPLE"):
            return tuple(taken) if len(taken) < 8 else None
        return None

    def _mark(self, found: Global, *, called: bool) -> None:
        """Record that a global makes an object; `called` if through its function or constructor."""
        name = str(found)
        if not is_allowed(found, called=called):
            self.found[name] = CALLED
        elif str(canonical(found)) in RUN_SOURCE:
            self.found[name] = " (would have run source text of the file)"
        elif called and not is_harmless(found):
            self.found[name] = " (would have been called)"

    def _call(self, name: str, args: tuple[Any, ...], depth: int) -> Any:
        """Follow the calls that matter: those that name other globals, and files in bytes."""
        argument = args[0]
        if isinstance(argument, Global):
            if name in (*FROM_TYPE, CREATE_ARRAY):
                self._mark(argument, called=True)
            elif name == GETATTR and len(args) > 1:
                return attribute(argument, args[1])
            return argument if name == PARTIAL else None
        if not isinstance(argument, str | bytes | bytearray):
            return None
        if name == LOAD_TYPE:
            return CALLS[name](args)
        if name == "_codecs.encode":
            self._charge(len(argument))
            return argument.encode("latin-1") if isinstance(argument, str) else None
        if name == LOAD_STORAGE and not isinstance(argument, str):
            self._charge(len(argument))
            if depth >= 8:
                raise damaged("files within files within files")
            stream = io.BytesIO(argument)
            for _ in range(OLD_PICKLES):
                try:
                    self.scan(stream, depth + 1)
                except MALFORMED:
                    break  # raw numbers follow
        return None

    def _charge(self, count: int) -> None:
        self.budget -= count
        if self.budget < 0:
            raise damaged("its calls copy more than the file holds")
