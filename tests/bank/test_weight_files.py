"""Weight files as people have them: every kind is read, or named with what to do about it."""

import argparse
import collections
import dataclasses
import datetime
import io
import pathlib
import pickle
import shutil
import tarfile
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from probe.bank.load import load_backbone
from probe.bank.spec import BackboneSpec, Weights
from probe.errors import BackboneUnavailable

ENTRY = """
- name: mine
  source: timm
  model: test_resnet
  weights: {{file: {name}}}
  input: 32
  mean: [0.5, 0.5, 0.5]
  std: [0.5, 0.5, 0.5]
  task: none
  data: none
  license: none
"""


class Easy(dict):
    """As easydict's: its items are its attributes as well."""

    __getattr__, __setattr__ = dict.__getitem__, dict.__setitem__


@dataclasses.dataclass
class Settings:
    depth: int = 3
    path: pathlib.Path = pathlib.Path("/data")


class Plain:
    def __init__(self, **attributes):
        self.__dict__.update(attributes)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(1)
    model = timm.create_model("test_resnet", num_classes=0)
    model.register_buffer("transient", torch.ones(3), persistent=False)
    return model.eval()


@pytest.fixture(scope="module")
def state(network) -> dict[str, torch.Tensor]:
    return network.state_dict()


def entry(path: Path, **changes) -> BackboneSpec:
    base = BackboneSpec(
        name="x", source="timm", model="test_resnet", weights=Weights(file=str(path)), input=32,
        mean=(0.5,) * 3, std=(0.5,) * 3, task="t", data="d", license="l",
    )  # fmt: skip
    return dataclasses.replace(base, **changes)


def check_loaded(path: Path, network: nn.Module) -> None:
    """Check that a file gives the network, by what it sees."""
    backbone = load_backbone(entry(path), offline=True)
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = network.forward_head(network.forward_features(x), pre_logits=True)
        torch.testing.assert_close(backbone.pool(x), wanted, rtol=1e-3, atol=1e-4)


def others() -> dict:
    """What training programs put beside the tensors."""
    return {
        "args": argparse.Namespace(lr=0.1, data=pathlib.Path("/data"), names=["a"]),
        "config": Easy(width=3, inner=Easy(a=1)),
        "settings": Settings(),
        "meters": collections.defaultdict(list, loss=[0.1, np.float64(0.2)]),
        "counts": collections.Counter("aab"),
        "best": np.float64(0.9),
        "history": np.arange(4.0),
        "when": datetime.datetime(2024, 5, 6, tzinfo=datetime.UTC),
        "took": datetime.timedelta(seconds=3),
        "seen": {1, 2},
        "frozen": frozenset({"a"}),
        "space": types.SimpleNamespace(x=1),
        "plain": Plain(a=1, inner=Plain(b=2)),
        "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]},
        "rng": torch.get_rng_state,
        "epoch": 3,
    }


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"state_dict": s},
        lambda s: {"model_state_dict": s},
        lambda s: {"model": s, "best_loss": torch.tensor(0.1)},
        lambda s: {"teacher": s, "student": {k: v * 0 for k, v in s.items()}},
        lambda s: {"student": s},
        lambda s: {"ema": s},
        lambda s: {"module": {"model": {"state_dict": s}}},
        lambda s: {"my_net": s, "best_loss": torch.tensor(0.1)},
        lambda s: {"a": {"b": {"c": s}}},
        lambda s: argparse.Namespace(model=s),
        lambda s: Plain(network=s),
        lambda s: Easy(model=Easy(s)),
        lambda s: collections.defaultdict(dict, model=s),
        lambda s: {"ema": {"shadow": s, "decay": 0.99}},
        lambda s: {"state_dict": {f"module.{name}": tensor for name, tensor in s.items()}},
    ],
)
def test_tensors_are_found_in_the_records_of_training_programs(wrap, state, network, tmp_path):
    record = wrap(dict(state))
    if type(record) is dict and "bn1.weight" not in record:
        record = {**others(), **record}
    torch.save(record, tmp_path / "w.pth")
    check_loaded(tmp_path / "w.pth", network)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda m: m,
        nn.DataParallel,
        lambda m: {"net": nn.DataParallel(nn.DataParallel(m))},
        lambda m: {"epoch": 3, "model": m},
        lambda m: {"ema": m, "args": argparse.Namespace(a=1)},
    ],
)
def test_whole_models_are_read_without_their_classes(wrap, network, tmp_path):
    torch.save(wrap(network), tmp_path / "w.pth")
    check_loaded(tmp_path / "w.pth", network)


@pytest.mark.parametrize("name", ["w.bin", "w.pth", "w.safetensors", "w", "w.ckpt"])
@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy", "protocol 3"])
def test_the_content_and_not_the_name_says_what_a_file_is(name, kind, state, network, tmp_path):
    path = tmp_path / name
    if kind == "safetensors":
        save_file(dict(state), path)
    elif kind == "protocol 3":
        torch.save(dict(state), path, pickle_protocol=3)
    else:
        torch.save({"model": dict(state)} | others(), path,
                   _use_new_zipfile_serialization=kind == "zip")  # fmt: skip
    check_loaded(path, network)


def as_npz(path, state):
    with path.open("wb") as file:
        np.savez(file, **{k: v.numpy() for k, v in state.items()})


def as_tar(path, state):
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("storages"), io.BytesIO())


OTHERS = {
    "a TorchScript program": (
        lambda path, state: torch.jit.script(nn.Linear(2, 2)).save(path), "source: torchscript"
    ),
    "a zip that torch.save did not write": (as_npz, "torch.save(model.state_dict()"),
    "a pickle that torch.save did not write": (
        lambda path, state: path.write_bytes(pickle.dumps({"a": 1})),
        "torch.save(model.state_dict()",
    ),
    "an HDF5 file": (
        lambda path, state: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100)),
        "torch.save(model.state_dict()",
    ),
    "a pointer of Git LFS": (
        lambda path, state: path.write_text("version https://git-lfs.github.com/spec/v1\n"),
        "git lfs pull",
    ),
    "a web page": (lambda path, state: path.write_text("\n<!DOCTYPE html><html>"), ""),
    "it is empty": (lambda path, state: path.touch(), "put a whole copy there"),
    "neither safetensors nor": (as_tar, "torch.save(model.state_dict()"),
    "its pickle protocol is 4": (
        lambda path, state: torch.save(state, path, pickle_protocol=4),
        "torch.save(model.state_dict()",
    ),
    "a whole model in the format before": (
        lambda path, state: torch.save(
            nn.Linear(2, 2), path, _use_new_zipfile_serialization=False
        ),
        "torch.save(model.state_dict()",
    ),
    "no named tensors": (
        lambda path, state: torch.save({"args": argparse.Namespace(a=1)}, path),
        "torch.save(model.state_dict()",
    ),
    "several networks, under gen, dis": (
        lambda path, state: torch.save({"gen": state, "dis": dict(state), "epoch": 1}, path),
        "save the tensors of the one that is wanted",
    ),
    "posix.system": (
        lambda path, state: torch.save({"model": state, "x": Call()}, path), "put a whole copy"
    ),
}  # fmt: skip


class Call:
    def __reduce__(self):
        import os

        return os.system, ("touch ran",)


@pytest.mark.parametrize("words", OTHERS)
def test_other_files_are_named_with_what_to_do_and_stay(words, state, tmp_path, cli, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write, advice = OTHERS[words]
    write(tmp_path / "own.pth", dict(state))
    before = (tmp_path / "own.pth").read_bytes()
    (tmp_path / "bank.yaml").write_text(ENTRY.format(name="own.pth"), "utf-8")
    done = cli("bank", "check", "--bank", tmp_path / "bank.yaml")
    assert done.code == 3 and words in done.out and advice in done.out, done.out
    assert "remove" not in done.out and "Traceback" not in done.err and "arning" not in done.err
    assert done.out.count("\n") == 1
    assert (tmp_path / "own.pth").read_bytes() == before and not (tmp_path / "ran").exists()


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
def test_a_file_that_is_cut_short_is_never_to_be_removed(kind, share, state, tmp_path):
    path = tmp_path / "w.pth"
    if kind == "safetensors":
        save_file(dict(state), path)
    else:
        torch.save(dict(state), path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(BackboneUnavailable, match="damaged or not a weight file") as caught:
        load_backbone(entry(path), offline=True)
    assert "put a whole copy there" in caught.value.remedy and "remove" not in str(caught.value)


def test_another_digest_never_costs_the_own_file(state, tmp_path):
    path = tmp_path / "w.pth"
    torch.save(dict(state), path)
    with pytest.raises(BackboneUnavailable) as caught:
        load_backbone(entry(path, sha256="0" * 64), offline=True)
    assert "remove" not in str(caught.value) and "correct the entry" in caught.value.remedy


def test_what_to_do_about_a_damaged_download_helps(tmp_path, monkeypatch):
    """In the hub's cache a path is a link: without the file behind it nothing comes anew."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--org--net"
    for folder in ("refs", "blobs", "snapshots/abc"):
        (repository / folder).mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc", "utf-8")
    blob = repository / "blobs" / "123"
    blob.write_bytes(b"damaged")
    (repository / "snapshots/abc/model.safetensors").symlink_to("../../blobs/123")
    spec = entry(tmp_path, weights=Weights(hub="org/net"))
    with pytest.raises(BackboneUnavailable) as caught:
        load_backbone(spec, offline=True)
    assert caught.value.remedy == f"remove {blob} and fetch it again: probe bank fetch x"
    blob.unlink()
    with pytest.raises(BackboneUnavailable, match="its weights are not on this machine"):
        load_backbone(spec, offline=True)


def test_a_record_that_holds_itself_ends(state, tmp_path):
    record: dict = {"model": {}, "epoch": 1}
    record["model"]["model"] = record
    record["list"] = [record]
    torch.save(record, tmp_path / "w.pth")
    with pytest.raises(BackboneUnavailable, match="no named tensors"):
        load_backbone(entry(tmp_path / "w.pth"), offline=True)
    record["net"] = dict(state)
    torch.save(record, tmp_path / "w.pth")
    load_backbone(entry(tmp_path / "w.pth"), offline=True)


def test_the_programs_own_settings_of_torch_stay(state, tmp_path):
    """What a program let torch read stays as it was."""
    before = set(torch.serialization.get_safe_globals())
    torch.save({"model": dict(state)} | others(), tmp_path / "w.pth")
    load_backbone(entry(tmp_path / "w.pth"), offline=True)
    assert set(torch.serialization.get_safe_globals()) == before
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "w.pth", weights_only=True)


def test_a_zip_with_a_bomb_for_a_pickle_is_refused(state, tmp_path):
    torch.save(dict(state), tmp_path / "w.pth")
    with (
        zipfile.ZipFile(tmp_path / "w.pth") as whole,
        zipfile.ZipFile(tmp_path / "bomb.pth", "w") as bomb,
    ):
        for member in whole.infolist():
            if not member.filename.endswith("data.pkl"):
                bomb.writestr(member.filename, whole.read(member))
        bomb.writestr("w/data.pkl", b"\x80\x02" + bytes(100_000_000), zipfile.ZIP_DEFLATED)
    with pytest.raises(BackboneUnavailable, match="its pickle is compressed"):
        load_backbone(entry(tmp_path / "bomb.pth"), offline=True)
    shutil.copy(tmp_path / "w.pth", tmp_path / "bomb.pth")
    load_backbone(entry(tmp_path / "bomb.pth"), offline=True)
