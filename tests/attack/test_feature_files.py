"""Damaged and hostile files of features: read as they are, or one sentence."""

import pickle
import random
import zipfile

import numpy as np
import pytest
from attack.streams import CANARY
from inputs import write_bank, write_images
from safetensors.numpy import save_file

from probe.errors import ImagesError
from probe.features.given import read_given
from probe.features.reference import MARK, load_reference


class Bomb:
    def __reduce__(self):
        return open, (CANARY, "w")


def kept(tmp_path, suffix):
    table = np.random.default_rng(0).standard_normal((20, 3)).astype(np.float32)
    path = tmp_path / f"x{suffix}"
    if suffix == ".npz":
        np.savez_compressed(path, real=table, fake=table + 1)
    else:
        save_file({"real": table, "fake": table + 1}, path)
    return path


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_changed_bytes(tmp_path, suffix, rounds, tally):
    path = kept(tmp_path, suffix)
    whole, rng = path.read_bytes(), random.Random(0)
    for _ in range(rounds(400, 20_000)):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(data[: rng.choice((len(data), rng.randrange(len(data))))])
        try:
            (found,) = read_given({"x": path}).values()
            assert np.isfinite(found.table).all()
            tally("feature files read")
        except ImagesError as error:
            assert str(path) in str(error) or "'real'" in str(error) or "'fake'" in str(error)
            tally("feature files refused")


def forged(tmp_path, header, body=b""):
    """Write an .npz file whose first array has a header of one's own."""
    path = tmp_path / "forged.npz"
    text = header.encode().ljust(118) + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("real", "fake"):
            start = b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little")
            archive.writestr(f"{name}.npy", start + text + body)
    return path


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 3)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999, 3)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 3)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 3)}",
        "{'descr': '<f4', 'fortran_order': False}",
        "{'descr': ('<f4', (10**9,)), 'fortran_order': False, 'shape': (2,)}",
        "{'descr': 'nonsense', 'fortran_order': False, 'shape': (2, 3)}",
        "__import__('os').system('true')",
        "(" * 100,
    ],
)
def test_forged_headers(tmp_path, header):
    with pytest.raises(ImagesError):
        read_given({"x": forged(tmp_path, header)})


def test_pickles_are_not_run(tmp_path):
    header = "{'descr': '|O', 'fortran_order': False, 'shape': (1,)}"
    with pytest.raises(ImagesError, match="holds Python objects"):
        read_given({"x": forged(tmp_path, header, pickle.dumps([Bomb()]))})


def test_changed_bytes_of_a_reference(cli, tmp_path, rounds, tally):
    """Read as it was written, or refused in one sentence; the store keeps out of it."""
    reals, fakes = (write_images(tmp_path / str(n), 20, seed=n, size=8) for n in (1, 2))
    common = ("--bank", write_bank(tmp_path), "--offline", "--backbones", "edges", "--quiet")
    path = tmp_path / "ref.safetensors"
    assert cli("reference", reals, "--out", path, *common).code == 0
    whole, rng = path.read_bytes(), random.Random(0)
    measure = ("metrics", "--real", path, "--gen", fakes, *common, "--format", "csv")
    plain = cli(*measure).out
    for _ in range(rounds(60, 3000)):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(data[: rng.choice((len(data), len(data), rng.randrange(len(data))))])
        done = cli(*measure)
        assert "Traceback" not in done.err
        if done.code == 0:
            assert done.out == plain
            tally("references read")
        else:
            assert done.code == 1 and len(done.err.strip().splitlines()) <= 2, done.err
            assert str(path) in done.err
            tally("references refused")


def forge(path, text, **tensors):
    metadata = {MARK: text}
    save_file({"keys": np.zeros(1, np.uint8), **tensors}, path, metadata=metadata)
    with pytest.raises(ImagesError) as caught:
        load_reference(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "[" * 100_000,
        '{"version": 1e400}',
        '{"version": [1]}',
        '{"version": 1, "backbones": {"x": 3}}',
        '{"version": 1, "probe": "x", "source": "x", "images": -5, "sample": -5, "seed": 0,'
        ' "sample_digest": "", "resolution": 1, "backbones": {}}',
        '{"version": 1, "probe": "x", "source": "x", "images": 9, "sample": 9, "seed": 0,'
        ' "sample_digest": "", "resolution": 1, "backbones": {}, "sha256": {"keys": "0"}}',
        '{"version": 1, "probe": "x", "source": "x", "images": 9, "sample": 9, "seed": 0,'
        ' "sample_digest": "", "resolution": 1, "backbones": {}}',
    ],
)
def test_forged_references(tmp_path, text):
    forge(tmp_path / "x.safetensors", text)
