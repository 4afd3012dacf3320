"""The same images, packed in different ways, are the same images."""

import hashlib
import json
import shutil

import numpy as np
import pytest
import torch
from inputs import photo, write_images
from packing import PACKINGS, pack
from pictures import encode

from probe.images.open import READERS, open_images

NEEDS = {"parquet": "pyarrow", "lmdb": "lmdb"}


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    return {f"{i:03}.jpg": encode(photo(rng), "JPEG") for i in range(40)}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PROBE_CACHE_DIR", str(tmp_path / "cache"))


def packed(files, how, folder):
    if how in NEEDS:
        pytest.importorskip(NEEDS[how])
    return pack(files, how, folder)


@pytest.mark.parametrize("how", PACKINGS)
def test_keys_order_and_pixels_are_those_of_the_files(files, how, tmp_path):
    source = open_images(packed(files, how, tmp_path / "set"))
    digests = [hashlib.sha256(data).hexdigest() for data in files.values()]
    assert source.keys(range(len(source))) == digests
    order = [17, 3, 39, 0]
    batch = source.load(order, 32)
    expected = open_images(pack(files, "folder", tmp_path / "files")).load(order, 32)
    assert batch.indices == order and torch.equal(batch.images, expected.images)
    assert source.resolution == 32 and source.notes == []
    assert {h.format for h in source.headers(range(40))} == {"JPEG"}


@pytest.mark.parametrize("how", PACKINGS[1:])
def test_scores_are_the_same(cli, bank, files, how, tmp_path):
    fakes = write_images(tmp_path / "fakes", 40, seed=5, blue=30)
    found = {}
    for kind in ("folder", how):
        real = packed(files, kind, tmp_path / kind)
        result = cli(
            "rank", "--real", real, "--gen", fakes, "--bank", bank, "--offline", "--num", 30,
            "--backbones", "colour,edges", "--format", "json",
        )  # fmt: skip
        assert result.code == 0, result.err
        found[kind] = {row["name"]: row["score"] for row in json.loads(result.out)["rows"]}
    assert found[how] == found["folder"]


@pytest.mark.parametrize("how", PACKINGS)
def test_what_is_known_of_an_image_unread_changes_with_it(files, how, tmp_path):
    place = packed(files, how, tmp_path / "set")
    before = open_images(place).marks(range(40))
    assert len(set(before)) == 40 and open_images(place).marks(range(40)) == before
    shutil.rmtree(tmp_path / "set")
    changed = {**files, "007.jpg": files["008.jpg"]}
    assert open_images(pack(changed, how, tmp_path / "set")).marks(range(40))[7] != before[7]


def test_every_reader_has_a_row_of_its_own():
    assert list(READERS) == ["folder", "zip", "tar", "Parquet file", "NumPy file", "LMDB"]
