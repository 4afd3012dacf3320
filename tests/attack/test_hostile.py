"""Files that want to run something, take memory or confuse the reader: refused, nothing run."""

import builtins
import operator
import os
import pickle
import struct
import subprocess
import zipfile

import numpy as np
import pytest
import torch
from attack.streams import (
    CANARY,
    ORDERED,
    PERSISTENT,
    PYTHON,
    SYSTEM,
    TOUCH,
    Call,
    StateCall,
    array,
    inst,
    legacy,
    obj,
    proto,
    refused,
    short,
    stack_global,
    storage,
    tensor,
    text,
)
from generators.pickles import Persistent, dumps, stylegan2_pickle
from inputs import tiny_generator

from probe.errors import CheckpointError, UnsafeCheckpoint
from probe.generators.files.formats import load_generator
from probe.generators.files.unpickle import read_pickle

CALLS = {
    "os.system": SYSTEM,
    "posix.system in a list": [1, {"x": [SYSTEM]}],
    "eval": Call(eval, PYTHON),
    "exec": Call(exec, PYTHON),
    "compile": Call(compile, PYTHON, "x", "exec"),
    "open": Call(open, CANARY, "w"),
    "subprocess": Call(subprocess.call, ["touch", CANARY]),
    "getattr": Call(getattr, "x", "upper"),
    "import": Call(builtins.__import__, "os"),
    "attrgetter": Call(operator.attrgetter, "system"),
    "methodcaller": Call(operator.methodcaller, "system", TOUCH),
    "setitem as state setter": StateCall(dict),
    "bytes of pickle.loads": Call(pickle.loads, pickle.dumps(SYSTEM)),
    "torch.load": Call(torch.load, CANARY),
    "numpy.load": Call(np.load, CANARY),
    "print": Call(print, "x"),
    "map": Call(map, os.system, [TOUCH]),
    "type": Call(type, "X", (), {}),
    "bytearray": Call(bytearray, 10),
    "slice": Call(slice, 1),
}
RAW = {
    "protocol 0 os.system": text("os", "system", TOUCH),
    "protocol 0 eval": text("builtins", "eval", PYTHON),
    "INST": inst("os", "system", TOUCH),
    "OBJ": obj("os", "system", TOUCH),
    "INST of an allowed name": inst("collections", "OrderedDict", "x"),
    "dotted attribute": proto(stack_global("collections", "OrderedDict.fromkeys"), b"."),
    "torch attribute": proto(stack_global("torch", "hub.load"), b"."),
    "what a torch module imports": proto(
        stack_global("torch.nn.modules.module", "torch.os.system"), short(TOUCH), b"\x85R."
    ),
    "a class reached through a module": proto(
        stack_global("torch.nn.modules.module", "torch.subprocess.Popen"), short("true"), b"\x85R."
    ),
    "a call by name": proto(
        stack_global("dnnlib.util", "call_func_by_name"), b")R", b"."
    ),
    "a function that writes files": proto(
        stack_global("torchvision.io", "write_file"), short(CANARY), short("x"), b"\x86R."
    ),
    "a function that fetches": proto(
        stack_global("torchvision.datasets.utils", "download_url"), short("file:///x"), b"\x85R."
    ),
    "a function of the user's trainer": proto(
        stack_global("training.misc", "run"), short(TOUCH), b"\x85R."
    ),
    "lookalike module": proto(stack_global("torch.nn.modules.", "os.system;x"), b"."),
    "newline in a name": proto(stack_global("training.x\nos", "system"), b"."),
    "EXT1": proto(b"\x82\x01."),
    "EXT2": proto(b"\x83\x01\x00."),
    "EXT4": proto(b"\x84\x01\x00\x00\x00."),
    "PERSID": b"Pstorage\n.",
    "BINPERSID": proto(short("x"), b"Q."),
    "NEWOBJ of a foreign class": proto(stack_global("subprocess", "Popen"), b")\x81."),
    "NEWOBJ_EX": proto(ORDERED, b")}\x92."),
    "call of a string": proto(short("os.system"), b")R."),
    "call of a dict": proto(b"})R."),
    "BUILD on a dict with a tuple": proto(b"}", b"N}\x86b."),
    "BUILD on a string": proto(short("x"), b"}b."),
    "BUILD on a class": proto(ORDERED, b"}b."),
    "BUILD slots on a record": proto(stack_global("training.x", "Y"), b")\x81N}\x86b."),
    "second pickle": proto(b"N.") + pickle.dumps(SYSTEM),
    "trailing bytes": proto(b"N.") + b"x",
    "FRAME longer than the file": proto(b"\x95" + struct.pack("<Q", 2**40), b"N."),
    "BINUNICODE8 of an exabyte": proto(b"\x8d" + struct.pack("<Q", 2**60), b"x."),
    "BINBYTES8 of an exabyte": proto(b"\x8e" + struct.pack("<Q", 2**60), b"x."),
    "BYTEARRAY8 of an exabyte": proto(b"\x96" + struct.pack("<Q", 2**60), b"x."),
    "BINBYTES past the end": proto(b"B\xff\xff\xff\xff", b"x."),
    "LONG4 past the end": proto(b"\x8b\xff\xff\xff\x7f", b"x."),
    "missing mark": proto(b"NNt."),
    "empty stack": proto(b"0."),
    "unknown memo": proto(b"h\x07."),
    "unknown opcode": proto(b"\xff."),
    "no end": proto(b"NNNN"),
    "unhashable key": proto(b"}", b"]Ns."),
    "deep tuple as a key": proto(b"}", b")" + b"\x85" * 200_000, b"Ns."),
    "tensor outside its storage": tensor(0, (5,), (1,)),
    "tensor with an offset outside": tensor(4, (1,), (1,)),
    "tensor with a huge stride": tensor(0, (2,), (10**9,)),
    "tensor with a negative stride": tensor(3, (2,), (-1,)),
    "tensor of a terabyte by stride 0": tensor(0, (10**6, 10**6), (0, 0)),
    "tensor with too few strides": tensor(0, (2, 2), (1,)),
    "storage with a false count": proto(storage(legacy(2**40, 2**40, b"")), b"."),
    "storage with two counts": proto(storage(legacy(4, 2, bytes(16))), b"."),
    "storage of unknown type": proto(storage(legacy(1, 1, bytes(4), "EvilStorage")), b"."),
    "storage of a pickle": proto(storage(pickle.dumps(SYSTEM)), b"."),
    "numpy objects": array("|O", (1,), bytes(8)),
    "numpy of a huge shape": array("<f4", (10**6, 10**6), bytes(4)),
    "persistent without a dict": proto(PERSISTENT, b"N\x85R."),
    "persistent with two arguments": proto(PERSISTENT, b"NN\x86R."),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_calls_are_refused_by_name(tmp_path, name, protocol):
    data = pickle.dumps(CALLS[name], protocol)
    error = refused(tmp_path / "x.pkl", data)
    if data[:1] in (b"\x80", b"c", b"("):
        # Every one of them is a pickle by its first bytes, so the reader itself refuses it.
        with pytest.raises(UnsafeCheckpoint, match="Nothing of it was run"):
            read_pickle(data)
    assert isinstance(error, CheckpointError)


@pytest.mark.parametrize("name", RAW)
def test_crafted_streams_are_refused(tmp_path, name):
    refused(tmp_path / "x.pkl", RAW[name])
    with pytest.raises(CheckpointError):
        read_pickle(RAW[name])


def test_the_global_is_named():
    with pytest.raises(UnsafeCheckpoint, match=r"posix\.system"):
        read_pickle(pickle.dumps(SYSTEM))


def test_a_call_hidden_in_a_genuine_snapshot(tmp_path):
    data = stylegan2_pickle(tiny_generator(), augment_pipe=Persistent("A", {"x": SYSTEM}))
    assert "posix.system" in str(refused(tmp_path / "x.pkl", data))


def test_memo_bombs_end(tmp_path):
    bomb = b"]\x94" + b"".join(
        b"](h" + bytes([i]) * 1 + b"h" + bytes([i]) + b"e\x94" for i in range(60)
    )
    refused(tmp_path / "x.pkl", proto(bomb, b"."))
    laughs = {"a": []}
    for _ in range(60):
        laughs = {"a": laughs, "b": laughs}
    generator = stylegan2_pickle(tiny_generator(), G_ema=Persistent("Generator", {
        "_parameters": {}, "_buffers": {}, "_modules": {}, "_init_kwargs": laughs}))  # fmt: skip
    refused(tmp_path / "y.pkl", generator)


def test_a_module_that_holds_itself_or_nests_without_end(tmp_path):
    itself = Persistent("Generator", {"_parameters": {}, "_buffers": {}, "_modules": {}})
    shared = itself
    for _ in range(100):
        shared = Persistent("M", {"_modules": {"a": shared}})
    refused(tmp_path / "deep.pkl", dumps({"G_ema": shared}))
    wide = itself
    for _ in range(40):
        wide = Persistent("M", {"_modules": {"a": wide, "b": wide}})
    refused(tmp_path / "wide.pkl", dumps({"G_ema": wide}))


@pytest.mark.parametrize("length", [1, 10, 100, 0.3, 0.7, 0.99, -1])
def test_truncated_pickles(tmp_path, length):
    data = stylegan2_pickle(tiny_generator())
    cut = int(length * len(data)) if isinstance(length, float) else length
    refused(tmp_path / "x.pkl", data[:cut])


def test_mutated_pickles_load_or_are_refused(tmp_path):
    rng = np.random.default_rng(0)
    original = stylegan2_pickle(tiny_generator())
    for _ in range(150):
        data = bytearray(original)
        for position in rng.integers(0, len(data), 3):
            data[position] = rng.integers(0, 256)
        (tmp_path / "x.pkl").write_bytes(data)
        try:
            load_generator(tmp_path / "x.pkl")
        except CheckpointError:
            continue


def test_torch_files_zips_pages_folders(tmp_path):
    torch.save({"a": torch.ones(1)}, tmp_path / "model.pt")
    with zipfile.ZipFile(tmp_path / "zip.pkl", "w") as archive:
        archive.writestr("data.pkl", pickle.dumps(SYSTEM))
    (tmp_path / "page.pkl").write_bytes(b"\n<!DOCTYPE html>")
    (tmp_path / "empty.pkl").write_bytes(b"")
    for name, words in [
        ("model.pt", "only the tensors of an unknown network"),
        ("zip.pkl", "of an unsupported kind"),
        ("page.pkl", "web page"),
        ("empty.pkl", "empty"),
        ("gone.pkl", "No such file"),
        (".", "holds checkpoints"),
    ]:
        with pytest.raises(CheckpointError, match=words):
            load_generator(tmp_path / name)


def test_snapshots_without_a_usable_generator(tmp_path):
    state = {"_parameters": {}, "_buffers": {}, "_modules": {}}
    nan = tiny_generator()
    nan.synthesis.b8.conv0.weight[0, 0, 0, 0] = float("nan")
    wrong = tiny_generator()
    wrong.synthesis.b8.conv0.weight = torch.nn.Parameter(torch.zeros(3, 3, 3, 3))
    lacking = tiny_generator()
    del lacking.synthesis.b8.conv0.bias
    huge = tiny_generator()
    huge.init_kwargs["img_resolution"] = 2**20
    odd = tiny_generator()
    odd.init_kwargs["synthesis_kwargs"]["magic"] = 3
    for content, words in [
        (dumps({"D": Persistent("Discriminator", state)}), "a discriminator without a generator"),
        (dumps({"G_ema": None, "G": None}), "no generator, only G_ema, G; name a file"),
        (dumps([1, 2]), "holds no generator; name"),
        (dumps({"G_ema": Persistent("Painter", state)}), r"unknown kinds \(Painter\)"),
        (stylegan2_pickle(nan), "'synthesis.b8.conv0.weight' holds NaN"),
        (stylegan2_pickle(wrong), r"'synthesis.b8.conv0.weight' has shape \(3, 3, 3, 3\)"),
        (stylegan2_pickle(lacking), "lacks tensor 'synthesis.b8.conv0.bias'"),
        (stylegan2_pickle(huge), "img_resolution = 1048576"),
        (stylegan2_pickle(odd), "magic"),
    ]:
        path = tmp_path / "x.pkl"
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=words):
            load_generator(path)


def test_safetensors_that_are_none_of_ours(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "x.safetensors"
    save_file({"a": torch.ones(1)}, path)
    with pytest.raises(CheckpointError, match="only the tensors of an unknown network"):
        load_generator(path)
    data = path.read_bytes()
    for bad in (data[:-2], data[:20], struct.pack("<Q", 2**29) + b"{" + data[9:]):
        path.write_bytes(bad)
        with pytest.raises(CheckpointError):
            load_generator(path)
    header = '{"format":"probe-generator","version":1,"architecture":"stylegan2","init":%s}'
    for init in ('{"z_dim": 1e9}', "3", '{"img_resolution": -4}', "{}"):
        save_file({"a": torch.ones(1)}, path, metadata={"probe": header % init})
        with pytest.raises(CheckpointError):
            load_generator(path)


def test_corpus_is_as_large_as_promised():
    assert len(CALLS) + len(RAW) >= 40
