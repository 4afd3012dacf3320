"""The names that stand for data, abused: calls within calls, absurd numbers, sets that never end.

Whatever of them would have run something is refused, and marked where the file is looked at.
"""

import pickle
import struct
import tracemalloc

import pytest
import torch
from attack.streams import (
    ARRAY,
    CANARY,
    DTYPE,
    PERSISTENT,
    PYTHON,
    TENSOR,
    TOUCH,
    integer,
    legacy,
    proto,
    refused,
    repeated,
    short,
    stack_global,
    storage,
)

from probe.errors import CheckpointError, UnsafeCheckpoint
from probe.generators.files.listing import globals_in, globals_in_torch
from probe.generators.files.unpickle import read_pickle

F4 = DTYPE + short("<f4") + b"\x85R"
PRIME = 2**61 - 1  # every multiple of it has the hash 0


def plain(value) -> bytes:
    """Push a plain value."""
    return pickle.dumps(value, 2)[2:-1].replace(b"q\x00", b"").replace(b"q\x01", b"")


def tuple_of(*parts: bytes) -> bytes:
    return b"(" + b"".join(parts) + b"t"


def call(module: str, name: str, *args: bytes) -> bytes:
    return stack_global(module, name) + tuple_of(*args) + b"R"


def numbers(data: bytes = bytes(8), dtype: bytes | None = None, *rest: bytes) -> bytes:
    data = b"C" + bytes([len(data)]) + data
    return call("numpy.core.numeric", "_frombuffer", data, F4 if dtype is None else dtype, *rest)


def f4(shape, order="C", *axes) -> bytes:
    return numbers(bytes(8), None, plain(shape), short(order), *map(plain, axes))


def of_dtype(text: str) -> bytes:
    return numbers(bytes(8), DTYPE + short(text) + b"\x85R", plain((1,)), short("C"))


RUN = stack_global("training.misc", "run")
MATH = stack_global("torch._C", "_VariableFunctionsClass")
# What would have run something: a name of it is marked.
CALLED = {
    "a call of a torch function": call(
        "builtins", "getattr", MATH, short("from_file")) + tuple_of(short(CANARY)) + b"R",
    "an attribute of something else": call("builtins", "getattr", RUN, short("__globals__")),
    "an attribute of a value": call("builtins", "getattr", short("x"), short("upper")),
    "an attribute of an object's code": call(
        "builtins", "getattr", stack_global("training.x", "Y") + b")\x81", short("__init__")),
    "a method of an object, called": call(
        "builtins", "getattr", stack_global("training.x", "Y") + b")\x81", short("run")) + b")R",
    "a method of a class, called": call(
        "builtins", "getattr", stack_global("training.x", "Y"), short("run")) + b")R",
    "a method of a class by its name, called": stack_global("training.x", "Y.run") + b")R",
    "an attribute of a module": stack_global("training.x", "os.path"),
    "a method of Python's own": stack_global("pathlib", "Path.unlink"),
    "an attribute that is no name": call("builtins", "getattr", MATH, short("a.b")),
    "a partial of a function, called": call("functools", "partial", RUN) + b")R",
    "a partial of a partial, called": call(
        "functools", "partial", call("functools", "partial", RUN)) + b")R",
    "a tensor by a function of its own": call(
        "torch._tensor", "_rebuild_from_type_v2", RUN, stack_global("torch", "Tensor"),
        tuple_of(short(TOUCH)), b"}"),
    "an array by a function of its own": call(
        "dill._dill", "_create_array", RUN, b")", b")", b"N"),
    "a function made by dill": call("dill._dill", "_create_function", b"N"),
    "code made by dill": call("dill._dill", "_create_code", b"N"),
    "a class made by dill": call("dill._dill", "_create_type", b"N"),
    "text run by dill": call("dill._dill", "_eval_repr", short(PYTHON)),
    "a module of dill": call("dill._dill", "_import_module", short("os")),
    "a type of dill's, called": call("dill._dill", "_load_type", short("CodeType")) + b")R",
    "a type made": call("dill._dill", "_load_type", short("type")) + tuple_of(short("X")) + b"R",
    "a function named as a type": call("dill._dill", "_load_type", short("eval"))
    + tuple_of(short(PYTHON)) + b"R",
    "cloudpickle": call("cloudpickle.cloudpickle", "_make_skel_func", b"N"),
    "joblib": call("joblib.numpy_pickle", "load", short(CANARY)),
    "numpy's runstring": call("numpy.testing._private.utils", "runstring", short(PYTHON), b"}"),
    "a file's class": call("argparse", "FileType", short("w")) + tuple_of(short(CANARY)) + b"R",
    "a function of any package": call("some.package", "run", short(TOUCH)),
    "a class of any package": call("some.package", "Thing", short(TOUCH)),
    "a class of torch": call("torch.utils.cpp_extension", "BuildExtension", short(TOUCH)),
    "a function of torch": call("torch.utils.cpp_extension", "load_inline", short(TOUCH)),
    "a function of torch.nn": call("torch.nn.functional", "handle_torch_function", b"N"),
    "a storage of a terabyte": call("torch", "FloatStorage", integer(2**38)),
    "a codec": call("_codecs", "decode", short("x"), short("zip")),
    "Python 2's eval": call("__builtin__", "eval", short(PYTHON)),
    "Python 2's execfile": call("__builtin__", "execfile", short(CANARY)),
    "Python 2's apply": call("__builtin__", "apply", RUN),
    "Python 2's shell": call("commands", "getoutput", short(TOUCH)),
    "a registration": call("copyreg", "add_extension", short("os"), short("system"), b"K\x01"),
    "a text as a number": call("builtins", "int", short("9" * 200)),
    "a list of an iterator": call("builtins", "list", call("builtins", "map", RUN)),
    "Popen without its constructor": call(
        "copyreg", "_reconstructor", stack_global("subprocess", "Popen"),
        stack_global("builtins", "object"), b"N"),
    "a call in a persistent object": PERSISTENT + tuple_of(
        b"}" + short("class_name") + call("posix", "system", short(TOUCH)) + b"s") + b"R",
    "a call in a set": call("builtins", "set", b"]" + call("posix", "system", short(TOUCH)) + b"a"),
    "a call in a shape": TENSOR + tuple_of(
        storage(legacy(4, 4, bytes(16))), b"K\x00", call("posix", "system", short(TOUCH))) + b"R",
    "a call as a dtype": numbers(bytes(8), call("posix", "system", short(TOUCH)), b")", short("C")),
    "a call of an array": ARRAY + tuple_of(b"N") + b"R)R",
    "a call of a record": stack_global("training.x", "Y") + b")\x81)R",
    "a name reached through a package": stack_global("some.package", "os.system"),
    "a module of datetime's": stack_global("datetime", "sys.exit"),
    "a function of pathlib's": stack_global("pathlib", "os"),
    "a module of uuid's": stack_global("uuid", "os.system"),
    "a function of uuid's": call("uuid", "_popen", short(TOUCH)),
    "a number's constructor": call("decimal", "Decimal.from_float", short(TOUCH)),
    "a function of numpy's beside random states": call("numpy.random._pickle", "np.load", RUN),
}  # fmt: skip
# What makes no sense, or would cost.
ABSURD = {
    "a set of lists": call("builtins", "set", b"]]a"),
    "a set of dicts": call("builtins", "frozenset", b"]}a"),
    "a set of sets": call("builtins", "set", b"]\x8fa"),
    "a set of deep tuples": call("builtins", "set", b"])" + b"\x85" * 100_000 + b"a"),
    "a set of long tuples": call("builtins", "set", b"]" + tuple_of(*[b"N"] * 1000) + b"a"),
    "a set of a number": call("builtins", "set", b"J\xff\xff\xff\x7f"),
    "a set of a text": call("builtins", "set", short("abc")),
    "a set of two": call("builtins", "set", b"]", b"]"),
    "a set of a huge integer": call("builtins", "set", b"]" + integer(2**8000) + b"a"),
    "a set of itself": stack_global("builtins", "set") + b"]\x94h\x03a\x85R",
    "items of lists": b"\x8f(]\x90",
    "items for a record": stack_global("training.x", "Y") + b")\x81(N\x90",
    "a frozen set of lists": b"(]\x91",
    "a key of sets": b"}\x8fNs",
    "items of a record by lists": stack_global("some.package", "Box") + b")\x81]Ns",
    "a list's items for a record": stack_global("some.package", "Box") + b")\x81Na",
    "a terabyte of zeros": call("builtins", "bytearray", integer(2**40)),
    "a gigabyte of zeros": call("builtins", "bytes", integer(2**30)),
    "bytes of a list": call("builtins", "bytearray", b"]K\x01a"),
    "bytes of another codec": call("builtins", "bytearray", short("x"), short("utf-16")),
    "a complex of text": call("builtins", "complex", short("1" * 250)),
    "a complex of three": call("builtins", "complex", b"K\x01", b"K\x01", b"K\x01"),
    "a complex without end": call("builtins", "complex", integer(2**100_000), b"K\x00"),
    "a deque of a number": call("collections", "deque", b"J\xff\xff\xff\x7f"),
    "a dict of numbers": call("collections", "Counter", b"]K\x01a"),
    "a shape of text": call("torch", "Size", short("abc")),
    "a shape of huge numbers": call("torch", "Size", b"]" + integer(2**70) + b"a"),
    "an array of another shape": f4((3,)),
    "an array of absurd shape": f4((2**40, 2**40)),
    "an array of negative shape": f4((-1,)),
    "an array of flags": numbers(bytes(8), None, b"\x88\x88\x86", short("C")),
    "an array of 20 axes": f4((1,) * 19 + (2,)),
    "an array without an order": f4((2,), "Z"),
    "an array of an order without axes": f4((2,), "K"),
    "an array of axes without an order": f4((2,), "C", (0,)),
    "an array of wrong axes": f4((2, 1), "K", (0, 0)),
    "an array of axes that are text": f4((2, 1), "K", "ab"),
    "an array of six arguments": numbers(bytes(8), None, plain((2,)), short("C"), b"N", b"N"),
    "an array of two arguments": numbers(),
    "an array of objects": of_dtype("O"),
    "an array of a field": of_dtype("V8"),
    "an array of long texts": of_dtype("U99999"),
    "an array of texts of no length": of_dtype("U0"),
    "an array of a dtype that is text": numbers(bytes(8), short("<f4"), plain((2,)), short("C")),
    "an array of a dtype that is none": numbers(bytes(8), b"N", plain((2,)), short("C")),
    "an array of nothing": call(
        "numpy.core.numeric", "_frombuffer", b"N", F4, plain((2,)), short("C")),
    "an array by dill of text": call(
        "dill._dill", "_create_array", ARRAY, b")",
        tuple_of(b"K\x01", plain((2,)), F4, b"\x89", short("a" * 8)), b"N"),
    "an object of no class": call("copyreg", "_reconstructor", b"N", b"N", b"N"),
    "an object that is a list": call(
        "copyreg", "_reconstructor", stack_global("training.x", "Y"),
        stack_global("builtins", "list"), b"]"),
    "an object of a dict's number": call(
        "copyreg", "_reconstructor", stack_global("dnnlib.util", "EasyDict"),
        stack_global("builtins", "dict"), b"K\x01"),
    "a type that is a number": call("dill._dill", "_load_type", b"K\x01"),
    "state for a set": b"\x8f}b",
    "state for a frozen set": b"(\x91}b",
    "a buffer outside": b"\x97",
    "a buffer outside, read only": b"N\x98",
    "a parameter of nothing": call("torch._utils", "_rebuild_parameter_with_state"),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLED)
def test_calls_in_data_are_refused_and_marked(tmp_path, name, tally):
    data = proto(CALLED[name], b".")
    refused(tmp_path / "x.pkl", data)
    with pytest.raises(UnsafeCheckpoint, match="Nothing of it was run"):
        read_pickle(data)
    marked = [line for line in globals_in(data) if "called)" in line or "imported)" in line]
    assert marked, globals_in(data)
    tally("smuggled calls refused and marked")


@pytest.mark.parametrize("name", ABSURD)
def test_data_that_makes_no_sense_is_refused(tmp_path, name, tally):
    data = proto(ABSURD[name], b".")
    refused(tmp_path / "x.pkl", data)
    with pytest.raises(CheckpointError):
        read_pickle(data)
    globals_in(data)
    tally("absurd data refused")


INTEGERS = b"(" + b"".join(integer(i * PRIME) for i in range(1, 60_000))
MANY = b"](" + b"".join(b"J" + struct.pack("<i", i) for i in range(10**5)) + b"e"
COSTLY = {
    "a set of one hash": lambda: proto(stack_global("builtins", "set"), b"]", INTEGERS, b"e\x85R."),
    "items of one hash": lambda: proto(b"\x8f", INTEGERS, b"\x90."),
    "a frozen set of one hash": lambda: proto(INTEGERS, b"\x91."),
    "a set copied 3000 times": lambda: repeated(stack_global("builtins", "set"), MANY, 3000),
    "a frozen set copied 3000 times": lambda: repeated(
        stack_global("builtins", "frozenset"), MANY, 3000),
    "a deque copied 3000 times": lambda: repeated(stack_global("collections", "deque"), MANY, 3000),
    "a dict copied by its class": lambda: repeated(
        stack_global("dnnlib.util", "EasyDict"), b"}(" + b"".join(
            b"J" + struct.pack("<i", i) + b"N" for i in range(10**5)) + b"u", 3000),
    "bytes copied 3000 times": lambda: repeated(
        stack_global("builtins", "bytearray"), b"B" + struct.pack("<I", 10**6) + bytes(10**6),
        3000,
    ),
    "a long text for each number": lambda: proto(
        stack_global("numpy.core.multiarray", "scalar"), b"q\x000",
        DTYPE, short("U2000"), b"\x85R", b"B" + struct.pack("<I", 8000) + b"a\0\0\0" * 2000,
        b"\x86q\x010", b"](", b"h\x00h\x01R" * 10**5, b"e."),
}  # fmt: skip


@pytest.mark.parametrize("name", COSTLY)
def test_sets_and_bytes_cost_little(tmp_path, name, tally):
    data = COSTLY[name]()
    refused(tmp_path / "x.pkl", data)
    globals_in(data)
    tally("costly data refused")


@pytest.mark.parametrize("function", ["set", "frozenset"])
def test_small_sets_take_little_memory(function):
    """Of one tuple in many places, each of which becomes a record."""
    items = b"](" + plain((1, 2)) + b"q\x05" + b"h\x05" * 10_000 + b"e"
    data = proto(stack_global("builtins", function), items, b"\x85R.")
    tracemalloc.start()
    try:
        found, _ = read_pickle(data)
        assert len(found) == 10_001
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


def test_tuples_of_one_hash_are_keys_all_the_same():
    """Two items for each of which the other can be chosen so that the hashes are equal."""
    keys = b"".join(tuple_of(integer(i), integer(2**59 - i)) + b"N" for i in range(20_000))
    found, _ = read_pickle(proto(b"}(", keys, b"u."))
    assert len(found) == 20_000


def test_attributes_under_endless_names_are_passed_over(tmp_path):
    """A key that is a tuple of a list of lists of … is never written out."""
    endless = b"]\x94" + b"".join(b"](h%ch%ce\x94" % (i, i) for i in range(60))
    one = (
        TENSOR
        + tuple_of(storage(legacy(1, 1, bytes(4))), b"K\x00", plain((1,)), plain((1,)), b"\x89}")
        + b"R"
    )
    buffers = b"}" + short("synthesis.init.x") + one + b"s"
    state = b"}(" + short("_buffers") + buffers + b"h\x3c\x85" + b"K\x01u"
    meta = b"}(" + short("class_name") + short("Generator") + short("state") + state + b"u"
    data = proto(endless, b"}", short("G_ema"), PERSISTENT, meta, b"\x85Rs.")
    assert "lacks tensor 'synthesis.init.conv.weight'" in str(refused(tmp_path / "x.pkl", data))


# --- torch files of the form before PyTorch 1.6


def old_torch(pid=None, keys=("0",), count=4, stored=4, data=bytes(16), after=b"", system=None):
    pid = ("storage", torch.FloatStorage, "0", "cpu", count, None) if pid is None else pid
    buffer = b"".join(pickle.dumps(v, 2) for v in (0x1950A86A20F9469CFC6C, 1001, system or {}))
    body = pickle.dumps(pid, 2).replace(b"ctorch.storage\n", b"ctorch\n")
    return (
        buffer + body[:-1] + b"Q." + pickle.dumps(list(keys), 2) + struct.pack("<q", stored)
        + data + after
    )  # fmt: skip


ENDLESS = ["0"]
for _ in range(30):  # a text of a thousand million
    ENDLESS = [ENDLESS, ENDLESS]
STORAGE = ("storage", torch.FloatStorage, "0", "cpu")
OLD = {
    "another order": {"keys": ("1",)},
    "storages that are not there": {"keys": ("0", "1")},
    "a storage twice": {"keys": ("0", "0")},
    "an order of endless names": {"keys": [ENDLESS]},
    "endless facts": {"system": ENDLESS},
    "another number": {"stored": 3},
    "a negative number": {"count": -4, "stored": -4},
    "a terabyte": {"count": 2**38, "stored": 2**38},
    "too little": {"data": bytes(8)},
    "too much": {"after": bytes(8)},
    "a pickle after it": {"after": pickle.dumps(1)},
    "part of a storage": {"pid": (*STORAGE, 4, ("1", 0, 4))},
    "a storage without a name": {"pid": ("storage", torch.FloatStorage, 0, "cpu", 4, None)},
    "a number that is text": {"pid": (*STORAGE, "4", None)},
    "a storage of a class": {"pid": ("storage", dict, "0", "cpu", 4, None)},
    "a reference that is text": {"pid": "storage"},
    "a reference that is empty": {"pid": ()},
    "another reference": {"pid": ("file", "x", "y", "z", 4)},
    "a big-endian machine": {"system": {"little_endian": False}},
}


@pytest.mark.parametrize("name", OLD)
def test_old_torch_files_that_make_no_sense(tmp_path, name, tally):
    path = tmp_path / "x.pt"
    refused(path, old_torch(**OLD[name]))
    globals_in_torch(path)
    tally("absurd old torch files refused")


def test_old_torch_files_run_nothing(tmp_path):
    path = tmp_path / "x.pt"
    head = b"".join(pickle.dumps(v, 2) for v in (0x1950A86A20F9469CFC6C, 1001, {}))
    body = proto(call("posix", "system", short(TOUCH)), b".")
    for data in (
        head + body + pickle.dumps([], 2),
        head[:-3] + body,
        body + head,
        head + proto(tuple_of(short("module"), stack_global("os", "system"), b"N", b"N"), b"Q)R."),
        head + proto(tuple_of(short("module"), stack_global("training.misc", "run"), b"N", b"N"),
                     b"Q)R.") + pickle.dumps([], 2),
    ):  # fmt: skip
        refused(path, data)
    listed = globals_in_torch(path)
    assert any("training.misc.run (not allowed: would have been called)" in name for name in listed)
