"""Paths that are no checkpoint, files that hold something else: a sentence, never a traceback."""

import json
import os
import pickle
import struct

import numpy as np
import pytest
import torch
from attack.streams import (
    ARRAY,
    SYSTEM,
    proto,
    refused,
    short,
    snapshot_bytes,
    stack_global,
    torch_zip,
)
from generators.pickles import Persistent, dumps, stylegan2_pickle
from inputs import tiny_generator

from probe.errors import CheckpointError, UnsafeCheckpoint
from probe.generators.config import SampleOptions
from probe.generators.files import tensorflow
from probe.generators.files.companions import read_companions
from probe.generators.files.formats import load_generator
from probe.generators.files.inspect import inspect_file
from probe.generators.files.snapshot import save_snapshot
from probe.generators.files.torch_file import zip_kind
from probe.generators.files.unpickle import read_pickle
from probe.generators.networks import fastgan
from probe.generators.open import what_runs


@pytest.mark.parametrize("device", [False, True])
def test_pipes_and_devices_are_not_waited_for(tmp_path, device):
    path = tmp_path / "x.pt"
    if device:
        path.symlink_to("/dev/null")
    else:
        os.mkfifo(path)
    assert zip_kind(path) is None and what_runs(str(path), SampleOptions(run_code=True)) is None
    for look in (load_generator, inspect_file):
        with pytest.raises(CheckpointError, match=r"x\.pt: is not a regular file\.$"):
            look(path)


@pytest.mark.parametrize(
    ("name", "words"),
    [("a" * 300, "too long"), ("a\0b", r"a\\x00b: is not a valid path"), (".", "folder")],
)
def test_paths_that_are_none(tmp_path, name, words):
    for look in (load_generator, inspect_file):
        with pytest.raises(CheckpointError, match=words):
            look(tmp_path / name)


def test_a_file_is_what_it_begins_with(tmp_path):
    path = tmp_path / "x.pkl"
    path.write_bytes(stylegan2_pickle(tiny_generator()) + torch_zip(pickle.dumps(SYSTEM)))
    assert zip_kind(path) is None
    with pytest.raises(UnsafeCheckpoint, match="more data follows"):
        load_generator(path)
    assert "bytes after the pickle's end" in inspect_file(path).globals[-1]


@pytest.fixture
def run(tmp_path):
    """Return a run's folder of two snapshots, the first the better by its metric."""
    for number, c_dim in ((1, 2), (2, 0)):
        path = tmp_path / f"network-snapshot-00000{number}.pkl"
        path.write_bytes(stylegan2_pickle(tiny_generator(c_dim)))
    results = [{"snapshot_pkl": f"network-snapshot-00000{i}.pkl", "results": {"fid": i}}
               for i in (1, 2)]  # fmt: skip
    (tmp_path / "metric-kid.jsonl").write_text("\n".join(map(json.dumps, results)))
    return tmp_path


@pytest.mark.parametrize(
    "line",
    [
        "[" * 100_000,
        '{"snapshot_pkl": "network-snapshot-000002.pkl", "results": {"fid": 1%s}}' % ("0" * 400),
        '{"snapshot_pkl": "network-snapshot-000002.pkl", "results": {"fid": "1"}}',
        '{"snapshot_pkl": "network-snapshot-000002.pkl", "results": {"fid": NaN}}',
        '{"snapshot_pkl": 3, "results": {"fid": 1}}',
    ],
)
def test_metrics_that_are_none_are_passed_over(run, line):
    (run / "metric-fid.jsonl").write_text(line)
    assert load_generator(run).generator.c_dim == 2


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_metrics_that_are_no_file_are_passed_over(run, make):
    make(run / "metric-fid.jsonl")
    assert load_generator(run).generator.c_dim == 2


@pytest.mark.parametrize("number", ["0" * 5000, "\u0663" * 6, "000002/../../x"])
def test_metrics_of_snapshots_that_cannot_be_are_passed_over(run, number):
    line = {"snapshot_pkl": f"network-snapshot-{number}.pkl", "results": {"fid": 0}}
    (run / "metric-fid.jsonl").write_text(json.dumps(line))
    assert load_generator(run).generator.c_dim == 2


@pytest.mark.parametrize("value", ["true", "-Infinity", "[]", "null"])
def test_values_that_are_no_number_are_passed_over(run, value):
    line = '{"snapshot_pkl": "network-snapshot-000002.pkl", "results": {"fid": %s}}'
    (run / "metric-fid.jsonl").write_text(line % value)
    assert load_generator(run).generator.c_dim == 2


def test_an_endless_metric_is_read_in_part(run):
    (run / "metric-fid.jsonl").touch()
    os.truncate(run / "metric-fid.jsonl", 2**36)
    assert load_generator(run).generator.c_dim == 2


@pytest.mark.parametrize("target", ["nowhere", "/dev/zero", "network-snapshot-best.safetensors"])
def test_links_that_lead_nowhere_are_passed_over(run, target):
    (run / "network-snapshot-best.safetensors").symlink_to(target)
    (run / "network-snapshot-000009.pkl").symlink_to(target)
    (run / "network-snapshot-000010.pkl").mkdir()
    assert load_generator(run).generator.c_dim == 2


def test_a_run_of_projected_gan(tmp_path):
    (tmp_path / "network-snapshot.pkl").write_bytes(stylegan2_pickle(tiny_generator(2)))
    assert load_generator(tmp_path).generator.c_dim == 2
    (tmp_path / "best_model.pkl").write_bytes(stylegan2_pickle(tiny_generator(3)))
    assert load_generator(tmp_path).generator.c_dim == 3


@pytest.mark.parametrize(
    ("others", "name", "kimg"),
    [
        ({"cur_nimg": 1_500_000}, "network-snapshot-000200.pkl", 1500),
        ({"progress": {"cur_nimg": torch.tensor([2500])}}, "best_model.pkl", 2.5),
        ({"cur_nimg": np.int64(4000)}, "x.pkl", 4),
        ({"cur_nimg": -1}, "network-snapshot-000200.pkl", 200),
        ({"cur_nimg": torch.zeros(3), "progress": "x"}, "x.pkl", None),
        ({}, "network-snapshot-000200.pkl", 200),
        ({}, "network-snapshot.pkl", None),
    ],
)
def test_images_seen_in_training(tmp_path, others, name, kimg):
    path = tmp_path / name
    path.write_bytes(stylegan2_pickle(tiny_generator(), **others))
    assert inspect_file(path).kimg == kimg


def test_a_web_page_with_a_byte_order_mark(tmp_path):
    assert "web page" in str(refused(tmp_path / "x.pkl", b"\xef\xbb\xbf <!DOCTYPE html>"))


def test_a_sentence_ends_once(tmp_path):
    network = tiny_generator()
    network.init_kwargs["img_resolution"] = 48
    assert str(refused(tmp_path / "x.pkl", stylegan2_pickle(network))).endswith("not 48.")
    network.init_kwargs |= {"img_resolution": 32, "synthesis_kwargs": {"channel_base": 16}}
    assert "no channels" in str(refused(tmp_path / "x.pkl", stylegan2_pickle(network)))
    assert "holds no generator; name" in str(refused(tmp_path / "x.pkl", proto(b"}.")))


def test_what_a_runs_snapshot_holds_besides(run):
    assert read_companions(run) == {}


@pytest.mark.parametrize("given", [5, True, 2.5, {"a": 1}, "abc"])
def test_positional_arguments_that_are_no_list(tmp_path, given):
    state = {"_buffers": {"synthesis.b4.const": torch.ones(1)}, "_init_args": given}
    error = refused(tmp_path / "x.pkl", dumps({"G_ema": Persistent("Generator", state)}))
    assert "constructor arguments are malformed" in str(error)


@pytest.mark.parametrize("architecture", ["[]", "{}", "null", "3"])
def test_metadata_of_no_architecture(tmp_path, architecture):
    header = '{"format":"probe-generator","version":1,"architecture":%s,"init":{}}'
    error = refused(tmp_path / "x.safetensors", snapshot_bytes(header % architecture))
    assert "of a kind or version" in str(error)


def test_metadata_of_endless_numbers(tmp_path):
    header = '{"format":"probe-generator","version":1,"architecture":"stylegan2","init":%s}'
    data = snapshot_bytes(header % ('{"conv_clamp": 1%s}' % ("0" * 400)))
    assert "conv_clamp = something of type int" in str(refused(tmp_path / "x.safetensors", data))


def test_a_shape_beyond_torchs_numbers(tmp_path):
    tensor = {"dtype": "F32", "shape": [2**63, 0], "data_offsets": [0, 0]}
    header = json.dumps({"a": tensor}).encode()
    data = struct.pack("<Q", len(header)) + header
    text = str(refused(tmp_path / "x.safetensors", data))
    assert "it is damaged" in text and r"\n" not in text


def test_what_is_too_deep_is_damaged():
    def deep(pid):
        raise RecursionError

    with pytest.raises(CheckpointError, match="it makes no sense at byte"):
        read_pickle(proto(short("x"), b"Q0N."), deep)


@pytest.mark.parametrize("error", [IndexError, KeyError, AttributeError, RuntimeError, TypeError])
def test_tensors_that_do_not_fit_are_refused_in_words(tmp_path, monkeypatch, error):
    def fail(*arguments):
        raise error("of some kind\nand more for developers")

    monkeypatch.setattr(fastgan, "convert_state", fail)
    monkeypatch.setattr(tensorflow, "read_network", fail)
    network = fastgan.Generator(z_dim=8, img_resolution=32, ngf=2)
    save_snapshot(tmp_path / "x.safetensors", network, metadata={}, architecture="fastgan")
    record = stack_global("dnnlib.tflib.network", "Network") + b")\x81}b"
    (tmp_path / "x.pkl").write_bytes(proto(record, b"\x85."))
    for name in ("x.safetensors", "x.pkl"):
        with pytest.raises(CheckpointError, match=r"cannot be built: .?of some kind[^\n]*$"):
            load_generator(tmp_path / name)


def test_messages_speak_of_no_type_of_ours(tmp_path):
    module = stack_global("training.x", "Y")
    for data in (
        torch_zip(b"\x80\x02K\x01Q."),
        proto(module, b"N\x85R}b."),
        proto(module, b"."),
        proto(module, b"Nb."),
        proto(module, b")R)\x85b."),
        proto(module, b")R)R."),
        proto(module, b")RNNs."),
        proto(b"(}NNs."),
        proto(ARRAY, b")R."),
        proto(ARRAY, b")R}}s."),
        dumps({"G_ema": Persistent("Y", {"_buffers": {"synthesis.b4.const": torch.ones(1)},
                                         "_init_kwargs": {"a": torch.ones(1)}})}),
        dumps(torch.ones(1)),
    ):  # fmt: skip
        text = str(refused(tmp_path / "x.pkl", data))
        assert not any(word in text for word in ("Lazy", "Record", "Array", "Storage", "Global",
                                                 "_Mark", "_Dtype"))  # fmt: skip
