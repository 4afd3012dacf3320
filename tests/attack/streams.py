"""Pickles and torch files built opcode by opcode, and a check that one is refused cheaply."""

import io
import json
import operator
import os
import pickle
import resource
import struct
import time
import zipfile

import pytest

from probe.errors import CheckpointError
from probe.generators.files.formats import load_generator

CANARY = "/tmp/probe-canary"


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return (self.function, self.arguments)


class StateCall(Call):
    def __reduce__(self):
        return (dict, (), {"x": 1}, None, None, operator.setitem)


TOUCH = f"touch {CANARY}"
PYTHON = f"open({CANARY!r}, 'w')"
SYSTEM = Call(os.system, TOUCH)


def text(module, name, argument):
    """A protocol-0 call."""
    return f"c{module}\n{name}\n(V{argument}\ntR.".encode()


def inst(module, name, argument):
    return f"(V{argument}\ni{module}\n{name}\n.".encode()


def obj(module, name, argument):
    return f"(c{module}\n{name}\nV{argument}\no.".encode()


def short(value: str) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value.encode()


def stack_global(module: str, name: str) -> bytes:
    return short(module) + short(name) + b"\x93"


def proto(*parts: bytes) -> bytes:
    return b"\x80\x04" + b"".join(parts)


PERSISTENT = stack_global("torch_utils.persistence", "_reconstruct_persistent_obj")
ORDERED = stack_global("collections", "OrderedDict")
TENSOR = stack_global("torch._utils", "_rebuild_tensor_v2")
ARRAY = stack_global("numpy.core.multiarray", "_reconstruct")
DTYPE = stack_global("numpy", "dtype")


def storage(data: bytes) -> bytes:
    return (
        stack_global("torch.storage", "_load_from_bytes")
        + b"B" + struct.pack("<I", len(data)) + data + b"\x85R"
    )  # fmt: skip


def legacy(count: int, stored: int, data: bytes, kind="FloatStorage") -> bytes:
    head = b"".join(pickle.dumps(v, 2) for v in (0x1950A86A20F9469CFC6C, 1001, {}))
    pid = (
        b"\x80\x02(" + b"X\x07\x00\x00\x00storage" + f"ctorch\n{kind}\n".encode()
        + b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpu" + b"\x8a\x08" + struct.pack("<q", count)
        + b"NtQ."
    )  # fmt: skip
    return head + pid + pickle.dumps(["0"], 2) + struct.pack("<q", stored) + data


def tensor(offset, size, stride, floats=4) -> bytes:
    inner = storage(legacy(floats, floats, bytes(4 * floats)))
    arguments = b"".join(pickle.dumps(v, 4)[2:-1] for v in (offset, size, stride, False, {}))
    # The protocol's frames of the parts are dropped by pickling each below the frame size.
    return proto(TENSOR, b"(", inner, arguments, b"tR.")


def torch_zip(pickled: bytes, compression=zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr("g/data.pkl", pickled)
    return buffer.getvalue()


def array(dtype: str, shape: tuple, data: bytes) -> bytes:
    state = b"(K\x01" + pickle.dumps(shape, 2)[2:-1] + proto()[2:]
    state += DTYPE + b"(" + short(dtype) + b"\x89\x88tR\x89" + b"C" + bytes([len(data)]) + data
    return proto(ARRAY, b"(NK\x00\x85C\x01btR", state, b"tb.")


def refused(path, data) -> CheckpointError:
    path.write_bytes(data)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()  # of this process: a busy machine is not the file's doing
    with pytest.raises(CheckpointError) as caught:
        load_generator(path)
    assert time.process_time() - started < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000  # KiB
    assert str(path) in str(caught.value)
    return caught.value


def snapshot_bytes(probe: str) -> bytes:
    header = json.dumps({"__metadata__": {"probe": probe}}).encode()
    return struct.pack("<Q", len(header)) + header


def integer(n: int) -> bytes:
    data = n.to_bytes(n.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8b" + struct.pack("<I", len(data)) + data


def repeated(function: bytes, argument: bytes, times: int) -> bytes:
    """Call a function many times with one argument from the memo."""
    return proto(function, b"q\x000", argument, b"\x85q\x010", b"](", b"h\x00h\x01R" * times, b"e.")
