"""Torch files and described tensors: genuine ones load, hostile ones are refused, nothing run."""

import json
import os
import pickle
import struct
import subprocess
import warnings
import zipfile
import zlib
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from inputs import tiny_generator
from safetensors.torch import save_file

from probe.errors import CheckpointError, UnsafeCheckpoint
from probe.generators.files.formats import load_generator
from probe.generators.files.torch_file import zip_kind

CANARY = "/tmp/probe-canary-torch"


@pytest.fixture(autouse=True)
def canary():
    Path(CANARY).unlink(missing_ok=True)
    yield
    assert not os.path.exists(CANARY), "something of the file was run"


@pytest.fixture
def network():
    return tiny_generator()


def images(network):
    with torch.no_grad():
        return network(torch.ones(2, 16), noise_mode="const")


def write_config(folder, **config):
    (folder / "config.json").write_text(json.dumps(config))


# --- genuine files


@pytest.mark.parametrize("wrap", [dict, OrderedDict, lambda state: {"G_ema": state, "step": 3}])
@pytest.mark.parametrize("parameters", [False, True])
def test_a_state_dict_with_a_description(tmp_path, network, wrap, parameters):
    state = {n: torch.nn.Parameter(t) if parameters else t for n, t in network.state_dict().items()}
    torch.save(wrap(state), tmp_path / "G.pt")
    write_config(tmp_path, architecture="stylegan2", init=network.init_kwargs)
    found = load_generator(tmp_path / "G.pt")
    assert torch.equal(images(found.generator), images(network))


@pytest.mark.parametrize("where", ["config.json", "config", "class_name and kwargs"])
def test_safetensors_with_a_description(tmp_path, network, where):
    path = tmp_path / "G.safetensors"
    metadata = {"format": "pt"}
    if where == "config.json":
        write_config(tmp_path, class_name="Generator", kwargs=network.init_kwargs)
    elif where == "config":
        metadata["config"] = json.dumps({"class_name": "G", "init": network.init_kwargs})
    else:
        metadata |= {"class_name": "Generator", "kwargs": json.dumps(network.init_kwargs)}
    save_file({n: t.contiguous() for n, t in network.state_dict().items()}, path, metadata)
    assert torch.equal(images(load_generator(path).generator), images(network))


@pytest.mark.parametrize("kind", ["pt", "safetensors"])
@pytest.mark.parametrize("prefix", ["module.", "G_ema.", "generator.", "trainer.model."])
def test_a_prefix_of_every_name_is_dropped(tmp_path, network, kind, prefix):
    state = {f"{prefix}{n}": t.contiguous() for n, t in network.state_dict().items()}
    path = tmp_path / f"G.{kind}"
    torch.save(state, path) if kind == "pt" else save_file(state, path)
    write_config(tmp_path, init=network.init_kwargs)
    assert torch.equal(images(load_generator(path).generator), images(network))
    state["other.weight"] = torch.ones(1)  # of another network
    torch.save(state, path) if kind == "pt" else save_file(state, path)
    found = load_generator(path)
    assert torch.equal(images(found.generator), images(network))
    assert found.ignored == ["other"]


def test_half_precision_and_shared_storages(tmp_path, network):
    state = {n: t.half() for n, t in network.state_dict().items()}
    state["mapping.fc0.bias"] = state["mapping.fc1.bias"]
    torch.save(state, tmp_path / "G.pt")
    write_config(tmp_path, architecture="stylegan2", init=network.init_kwargs)
    found = load_generator(tmp_path / "G.pt").generator.state_dict()
    assert all(torch.equal(found[n], t.float()) for n, t in state.items())


def test_inspection_lists_a_torch_files_globals(cli, tmp_path, network):
    torch.save(network.state_dict(), tmp_path / "G.pt")
    write_config(tmp_path, architecture="stylegan2", init=network.init_kwargs)
    found = json.loads(cli("inspect", tmp_path / "G.pt", "--json").out)
    assert found["family"] == "StyleGAN2" and "torch._utils._rebuild_tensor_v2" in found["globals"]
    assert not any("not allowed" in name for name in found["globals"])
    torch.save({"G_ema": Call(os.system, f"touch {CANARY}")}, tmp_path / "bad.pt")
    result = cli("inspect", tmp_path / "bad.pt", "--json")
    assert result.code == 1
    assert "posix.system (not allowed: would have been called)" in json.loads(result.out)["globals"]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (None, "only the tensors of a StyleGAN3"),
        ([1], "not a JSON object"),
        ({"architecture": "stylegan3"}, "no 'init'"),
        ({"model_type": "unet"}, "the config.json beside it was read and has no 'init'"),
        ({"architecture": "r3gan", "init": {"z_dim": 3}}, "cannot be built"),
        ({"init": {"z_dim": 10**9}}, "z_dim = 1000000000"),
    ],
)
def test_descriptions_that_do_not_do(tmp_path, config, words):
    torch.save({"synthesis.input.freqs": torch.ones(3, 2)}, tmp_path / "G.pt")
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=words):
        load_generator(tmp_path / "G.pt")


def test_a_description_that_is_no_json(tmp_path, network):
    torch.save(network.state_dict(), tmp_path / "G.pt")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="not JSON"):
        load_generator(tmp_path / "G.pt")


# --- hostile files


class Call:
    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return (self.function, self.arguments)


def zipped(members, compression=zipfile.ZIP_STORED):
    """Write a torch file's zip by hand."""

    def write(path):
        with zipfile.ZipFile(path, "w", compression) as archive:
            for name, data in members:
                archive.writestr(f"g/{name}", data)

    return write


def tensors(size="(I4\nt", stride="(I1\nt", offset="I0\n", count="I4\n", kind="FloatStorage",
            name="0", data=bytes(16), first="storage", entry="data/0"):  # fmt: skip
    """A state dict of one tensor, each of its numbers to choose."""
    rebuild = "ctorch._utils\n_rebuild_tensor_v2\n"
    storage = f"(V{first}\nctorch\n{kind}\nV{name}\nVcpu\n{count}t"
    pickled = f"(dVw\n{rebuild}({storage}Q{offset}{size}{stride}I00\n(dtRs.".encode()
    return zipped([("data.pkl", pickled), (entry, data)])


def saved(value):
    return lambda path: torch.save(value, path)


def patched(edit):
    """A genuine file whose bytes are changed."""

    def write(path):
        torch.save({"w": torch.ones(4)}, path)
        path.write_bytes(edit(path.read_bytes()))

    return write


def overlapping(path):
    """Many members that are all the same megabyte."""
    torch.save({f"w{i}": torch.ones(2**18) if i == 0 else torch.ones(1) for i in range(50)}, path)
    data = bytearray(path.read_bytes())
    central = data.index(b"PK\x01\x02")
    entries, at = [], central
    while data[at : at + 4] == b"PK\x01\x02":
        lengths = struct.unpack_from("<HHH", data, at + 28)
        entries.append((at, bytes(data[at + 46 : at + 46 + lengths[0]])))
        at += 46 + sum(lengths)
    big = next(at for at, name in entries if name.endswith(b"data/0"))
    for at, name in entries:
        if b"/data/" in name:
            data[at + 16 : at + 28] = data[big + 16 : big + 28]  # crc, sizes
            data[at + 42 : at + 46] = data[big + 42 : big + 46]  # offset
    path.write_bytes(data)


def encrypted(data):
    """Say of every member that it is encrypted."""
    data, at = bytearray(data), 0
    while (at := data.find(b"PK\x01\x02", at)) >= 0:
        data[at + 8] |= 1
        at += 4
    return bytes(data)


def quantised():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch is about to drop them; files hold them still
        return torch.quantize_per_tensor(torch.ones(2), 1, 0, torch.qint8)


PYTHON = f"open({CANARY!r}, 'w')"
STORAGE = torch.ones(4).untyped_storage()
HOSTILE = {
    "os.system": saved(Call(os.system, f"touch {CANARY}")),
    "os.system below G_ema": saved({"G_ema": {"w": Call(os.system, f"touch {CANARY}")}}),
    "eval": saved({"w": Call(eval, PYTHON)}),
    "exec": saved({"w": Call(exec, PYTHON)}),
    "subprocess": saved({"w": Call(subprocess.Popen, ["touch", CANARY])}),
    "pickle.loads": saved({"w": Call(pickle.loads, pickle.dumps(Call(eval, PYTHON)))}),
    "torch.load": saved({"w": Call(torch.load, CANARY)}),
    "getattr": saved({"w": Call(getattr, "x", "upper")}),
    "a class of the user's": saved({"w": Path("x")}),
    "a bare storage": saved({"w": STORAGE}),
    "a sparse tensor": saved({"w": torch.eye(3).to_sparse()}),
    "a quantised tensor": saved({"w": quantised()}),
    "a tensor outside its storage": tensors(size="(I5\nt"),
    "an offset outside": tensors(offset="I1\n"),
    "a negative offset": tensors(offset="I-1\n"),
    "a huge stride": tensors(size="(I2\nt", stride="(I1000000000\nt"),
    "a negative stride": tensors(stride="(I-1\nt", offset="I3\n"),
    "a terabyte by stride 0": tensors(size="(I1000000\nI1000000\nt", stride="(I0\nI0\nt"),
    "sizes that overflow": tensors(size="(I4294967296\nI4294967296\nt", stride="(I0\nI0\nt"),
    "fewer strides than sizes": tensors(size="(I2\nI2\nt"),
    "a count that is not the member's": tensors(count="I400000000000\n"),
    "a count that is text": tensors(count="V4\n"),
    "a member that is too short": tensors(data=bytes(8)),
    "a member that is not there": tensors(entry="data/1"),
    "a storage of an unknown type": tensors(kind="EvilStorage"),
    "a storage that is a class": tensors(kind="load"),
    "a path as a storage": tensors(name="../../etc/passwd"),
    "the pickle as a storage": tensors(name="../data.pkl"),
    "another persistent id": tensors(first="module"),
    "a persistent id of text": zipped([("data.pkl", b"Pstorage\n.")]),
    "a persistent id of numbers": zipped([("data.pkl", b"\x80\x02K\x01Q.")]),
    "a compressed pickle": zipped([("data.pkl", b"]" * 10**6)], zipfile.ZIP_DEFLATED),
    "a zip bomb": zipped([("data.pkl", b"N."), ("data/0", bytes(10**8))], zipfile.ZIP_DEFLATED),
    "members over each other": overlapping,
    "two pickles": zipped([("data.pkl", b"}."), ("data.pkl", pickle.dumps(Call(eval, PYTHON)))]),
    "two pickles in two folders": lambda path: [
        zipped([("data.pkl", b"}.")])(path),
        zipfile.ZipFile(path, "a").writestr("h/data.pkl", pickle.dumps(Call(eval, PYTHON))),
    ],
    "another byte order": zipped([("data.pkl", b"}."), ("byteorder", b"big")]),
    "a second pickle after the first": zipped([("data.pkl", b"}." + pickle.dumps(1))]),
    "a pickle without end": zipped([("data.pkl", b"}" * 100)]),
    "an empty pickle": zipped([("data.pkl", b"")]),
    "a pickle of the old kind inside": zipped([("data.pkl", b"(S'x'\nios\nsystem\n.")]),
    "an extension code": zipped([("data.pkl", b"\x80\x02\x82\x01.")]),
    "a flipped byte": patched(lambda data: data.replace(bytes([0, 0, 128, 63]), b"xxxx", 1)),
    "the first half": patched(lambda data: data[: len(data) // 2]),
    "without its directory": patched(lambda data: data[: data.index(b"PK\x01\x02")]),
    "with encryption": patched(encrypted),
    "hostile beside a description": lambda path: [
        saved({"w": Call(eval, PYTHON)})(path), write_config(path.parent, init={}),
    ],
    "a zip within": zipped([("data.pkl", zlib.compress(b"x"))]),
    "dict keys that are tuples": zipped([("data.pkl", b"\x80\x02}" + b")" * 3 + b"\x87Ns.")]),
    "an ndarray of objects": saved({"w": np.array([Path("x")], dtype=object)}),
    "a memo bomb": zipped(
        [("data.pkl", b"\x80\x02]q\0" + b"".join(
            b"](h" + bytes([i, 104, i]) + b"eq" + bytes([i + 1]) for i in range(60)) + b".")]
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_torch_files_are_refused(tmp_path, name):
    path = tmp_path / "G.pt"
    HOSTILE[name](path)
    with pytest.raises(CheckpointError) as caught:
        load_generator(path)
    assert str(path) in str(caught.value)


def test_calls_are_refused_by_name(tmp_path):
    path = tmp_path / "G.pt"
    HOSTILE["os.system below G_ema"](path)
    with pytest.raises(
        UnsafeCheckpoint, match=r"posix\.system.*Nothing of it was run.*torch\.save\("
    ):
        load_generator(path)


def test_a_file_cannot_take_much_more_memory_than_it_has(tmp_path):
    one = torch.ones(2**20)
    names = ["synthesis.b4.const", *(f"w{i}" for i in range(30))]
    torch.save(dict.fromkeys(names, one), tmp_path / "G.pt")
    write_config(tmp_path, init={})
    with pytest.raises(CheckpointError, match="many tensors in one storage"):
        load_generator(tmp_path / "G.pt")
    assert len(HOSTILE) >= 40


def test_an_export_program_of_early_releases_is_known(tmp_path):
    """PyTorch 2.6 wrote the members without a folder around them."""
    with zipfile.ZipFile(tmp_path / "G.pt2", "w") as archive:
        archive.writestr("serialized_exported_program.json", "{}")
        archive.writestr("version", "8.3")
    assert zip_kind(tmp_path / "G.pt2") == "export"
