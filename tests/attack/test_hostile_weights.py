"""Weight files that are damaged or hostile: read, or one sentence; nothing of them is run."""

import io
import pickle
import random
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from probe.bank.spec import BackboneSpec, Weights
from probe.bank.weights.file import read_weights
from probe.errors import BackboneUnavailable

LARGEST = 4 * 2**20  # bytes of a file that is made here, and more than any of them


class Plain:
    """What a training program keeps beside its tensors."""

    def __init__(self):
        self.lr, self.names = 0.1, ["a", "b"]


def tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {f"layer{i}.weight": torch.randn(4, 5) for i in range(6)}


def whole(kind: str) -> bytes:
    """Return a healthy file of a kind."""
    record = {"args": Plain(), "best": torch.tensor(0.5), "model": tensors()}
    buffer = io.BytesIO()
    if kind == "zip":
        torch.save(record, buffer)
    elif kind == "legacy":
        torch.save(record, buffer, _use_new_zipfile_serialization=False)
    elif kind == "model":
        torch.save(torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)), buffer)
    return buffer.getvalue()


def outcome(path: Path, kind: str = "file") -> str:
    """Read a file and return what became of it.

    A sentence about the user's own file must leave it to them.
    """
    place = Weights(file=str(path)) if kind == "file" else Weights(hub="org/net")
    spec = BackboneSpec(
        name="x", source="timm", model="test_resnet", weights=place, input=32, mean=(0.5,) * 3,
        std=(0.5,) * 3, task="t", data="d", license="l",
    )  # fmt: skip
    try:
        state = read_weights(spec, path)
    except BackboneUnavailable as error:
        assert "\n" not in str(error) and len(str(error)) < 1000
        assert kind != "file" or "remove" not in str(error).removeprefix(str(path))
        return "refused in a sentence"
    assert all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in state.items())
    return "read"


@pytest.mark.parametrize("kind", ["zip", "legacy", "model", "safetensors"])
def test_damaged_files(kind, tmp_path, rounds, tally):
    healthy = tmp_path / "healthy"
    if kind == "safetensors":
        save_file(tensors(), healthy)
    else:
        healthy.write_bytes(whole(kind))
    assert outcome(healthy) == "read"
    data, draw = healthy.read_bytes(), random.Random(kind)
    path = tmp_path / "w.pth"
    for _ in range(rounds(60, 3000)):
        broken = bytearray(data)
        how = draw.choice(["flip", "flip", "cut", "zeros", "shuffle"])
        at = draw.randrange(len(broken))
        if how == "flip":
            for _ in range(draw.choice([1, 1, 8])):
                broken[draw.randrange(len(broken))] ^= 1 << draw.randrange(8)
        elif how == "cut":
            del broken[at:]
        elif how == "zeros":
            broken[at : at + 64] = bytes(len(broken[at : at + 64]))
        else:
            end = min(len(broken), at + 64)
            broken[at:end] = bytes(draw.sample(list(broken[at:end]), end - at))
        path.write_bytes(broken)
        tally(f"damaged weight files {outcome(path)}")


def text(value: str) -> bytes:
    return b"X" + len(value).to_bytes(4, "little") + value.encode()


def call(name: str, argument: bytes) -> bytes:
    module, _, attribute = name.rpartition(".")
    return f"c{module}\n{attribute}\n".encode() + b"(" + argument + b"tR"


CALLS = [
    "os.system", "posix.system", "subprocess.call", "builtins.exec", "builtins.eval",
    "builtins.__import__", "builtins.getattr", "builtins.open", "runpy.run_path", "shutil.rmtree",
    "pathlib.Path.unlink", "torch.load", "torch.hub.load", "torch.utils.cpp_extension.load",
    "torch.jit.load", "timm.create_model", "importlib.import_module", "nt.system", "pty.spawn",
    "__builtin__.eval", "copy_reg._reconstructor", "functools.partial", "code.interact",
    "webbrowser.open", "_posixsubprocess.fork_exec", "ctypes.CDLL", "numpy.load", "pickle.loads",
]  # fmt: skip
COLLAPSING = {
    "records in each other": b"}" * 5000 + b"0" * 4999,
    "a dict in itself": b"}q\x00" + text("model") + b"h\x00s",
    "a tree of one dict": b"}q\x00"
    + b"".join(
        b"}q" + bytes([i]) + b"(" + text("a") + b"h" + bytes([i - 1]) + text("b") + b"h"
        + bytes([i - 1]) + b"u" for i in range(1, 60)
    ),
    "an unhashable key": b"}" + b"]" + b"Ns",
    "a mark without an end": b"(((((",
    "a memo that is not there": b"h\x07",
    "half a string": b"X\xff\xff\xff\x7fabc",
    "no end": b"}",
}  # fmt: skip


def zipped(pickled: bytes) -> bytes:
    """Return a file of torch with a pickle in it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("w/data.pkl", pickled)
        archive.writestr("w/byteorder", "little")
        archive.writestr("w/version", "3\n")
    return buffer.getvalue()


def legacy(pickled: bytes) -> bytes:
    head = b"".join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {}))
    return head + pickled + pickle.dumps([], 2)


@pytest.mark.parametrize("wrap", [zipped, legacy])
def test_hostile_pickles_run_nothing(wrap, tmp_path, monkeypatch, tally):
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir())
    argument = {
        "exec": "open('ran', 'w')", "eval": "open('ran', 'w')", "open": "ran", "rmtree": ".",
        "unlink": "w.pth",
    }  # fmt: skip
    path = tmp_path / "w.pth"
    for name in CALLS:
        words = text(argument.get(name.rpartition(".")[2], "touch ran"))
        for pickled in (call(name, words), call(name, words + text("w"))):
            record = b"\x80\x02}" + text("x") + pickled + b"s."
            path.write_bytes(wrap(record))
            tally(f"calls in weight files {outcome(path)}")
    assert set(tmp_path.iterdir()) - before == {path}


@pytest.mark.parametrize("wrap", [zipped, legacy])
@pytest.mark.parametrize("name", COLLAPSING)
def test_files_that_would_not_end(wrap, name, tmp_path, tally):
    path = tmp_path / "w.pth"
    path.write_bytes(wrap(b"\x80\x02" + COLLAPSING[name] + b"."))
    assert path.stat().st_size < LARGEST
    assert outcome(path) == "refused in a sentence"
    tally("collapsing weight files refused in a sentence")


def test_modules_that_would_not_end(tmp_path, tally):
    """A module that is in another twice, and that in a third twice, and so on."""
    module = torch.nn.Module()
    module.weight = torch.nn.Parameter(torch.ones(1))
    for _ in range(40):
        outer = torch.nn.Module()
        outer.a, outer.b = module, module
        module = outer
    torch.save(module, tmp_path / "w.pth")
    assert outcome(tmp_path / "w.pth") == "refused in a sentence"
    tally("collapsing weight files refused in a sentence")
