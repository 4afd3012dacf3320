"""NumPy files of pixels: read by index, told apart from features."""

import tracemalloc

import numpy as np
import pytest
from inputs import write_images
from PIL import Image

from probe.errors import ImagesError
from probe.images.open import open_images
from probe.images.tensors import TensorSource

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 16, 24, 3), dtype=np.uint8)


@pytest.mark.parametrize("suffix", ["npz", "npy"])
def test_pixels_keys_and_labels(suffix, tmp_path):
    path = tmp_path / f"a.{suffix}"
    if suffix == "npz":
        np.savez(path, IMAGES, np.arange(12))
    else:
        np.save(path, IMAGES)
    source = open_images(path)
    in_memory = TensorSource(IMAGES.transpose(0, 3, 1, 2).copy())
    assert len(source) == 12 and source.resolution == 16
    assert source.keys([3, 0]) == in_memory.keys([3, 0])
    assert source.load([3, 0], 8).images.equal(in_memory.load([3, 0], 8).images)
    assert source.labels == (list(range(12)) if suffix == "npz" else None)
    assert source.headers([0])[0].size == (24, 16)


def test_channels_may_come_first(tmp_path):
    first = np.ascontiguousarray(IMAGES.transpose(0, 3, 1, 2))
    np.save(tmp_path / "first.npy", first)
    np.save(tmp_path / "last.npy", IMAGES)
    a, b = open_images(tmp_path / "first.npy"), open_images(tmp_path / "last.npy")
    assert a.keys(range(12)) == b.keys(range(12)) and a.resolution == b.resolution


def test_only_what_is_asked_for_is_read(tmp_path):
    large = np.zeros((2000, 64, 64, 3), np.uint8)
    np.savez(tmp_path / "a.npz", large)
    tracemalloc.start()
    open_images(tmp_path / "a.npz").load([1999, 7], 64)
    assert tracemalloc.get_traced_memory()[1] < 2e6 < large.nbytes
    tracemalloc.stop()


def test_a_file_that_changes_is_noticed(tmp_path):
    np.save(tmp_path / "a.npy", IMAGES)
    source = open_images(tmp_path / "a.npy")
    np.save(tmp_path / "a.npy", IMAGES[:3])
    assert source.load([11], 8).broken[11].reason == (
        "cannot be read: a.npy changed while it was in use"
    )
    assert source.keys([11])[0].startswith("unreadable:")


class Hostile:
    def __reduce__(self):
        return print, ("run",)


@pytest.mark.parametrize(
    ("save", "message"),
    [
        (lambda p: np.savez(p, real=np.ones((3, 4)), fake=np.ones((3, 4))), "with --features"),
        (lambda p: np.savez(p, x=IMAGES), "has no 'arr_0' of images, only 'x'"),
        (lambda p: np.savez_compressed(p, IMAGES), "is compressed.*np.savez, not"),
        (lambda p: np.savez(p, np.ones((20, 512), np.float32)), "one row of features per image"),
        (lambda p: np.savez(p, IMAGES.astype(np.float32)), r"float32 \(12.*uint8 \(N, H, W, 3\)"),
        (lambda p: np.savez(p, IMAGES[..., :2]), r"uint8 \(12, 16, 24, 2\)"),
        (lambda p: np.savez(p, IMAGES[:0]), "holds no images"),
        (lambda p: np.savez(p, np.asfortranarray(IMAGES)), "Fortran"),
        (lambda p: np.savez(p, np.array([Hostile()])), "holds Python objects"),
        (lambda p: p.write_bytes(b"PK\3\4 not much of a zip"), "cannot be read as NumPy's"),
    ],
)
def test_files_that_hold_no_images_are_named(save, message, tmp_path, capsys):
    save(tmp_path / "a.npz")
    with pytest.raises(ImagesError, match=message):
        open_images(tmp_path / "a.npz")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("labels", [np.arange(5), np.arange(12) - 1, np.ones(12), np.ones((12, 3))])
def test_labels_that_are_no_classes_are_named(labels, tmp_path):
    np.savez(tmp_path / "a.npz", IMAGES, labels)
    with pytest.raises(ImagesError, match="'arr_1' holds no classes"):
        _ = open_images(tmp_path / "a.npz").labels


def test_a_header_that_promises_more_than_the_file_holds(tmp_path):
    np.save(tmp_path / "a.npy", IMAGES)
    data = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(data.replace(b"(12, 16", b"(99, 16"))
    with pytest.raises(ImagesError, match="its size is not what its header says"):
        open_images(tmp_path / "a.npy")


def test_both_are_told_apart_on_the_command_line(cli, bank, tmp_path):
    for name, seed, blue in (("real", 1, 0), ("fake", 2, 60)):
        folder = write_images(tmp_path / name, 20, seed=seed, blue=blue)
        pixels = np.stack([np.asarray(Image.open(p)) for p in sorted(folder.iterdir())])
        np.savez(tmp_path / f"{name}.npz", pixels)
    real, fake = tmp_path / "real.npz", tmp_path / "fake.npz"
    common = ("--bank", bank, "--offline", "--backbones", "colour")
    assert cli("rank", "--real", real, "--gen", fake, *common).code == 0
    mixed = cli("rank", "--features", real)
    assert mixed.code == 1 and "it holds 'arr_0'" in mixed.err and "--real or --gen" in mixed.err
    np.savez(tmp_path / "features.npz", real=np.ones((20, 3)), fake=np.ones((20, 3)))
    mixed = cli("rank", "--real", tmp_path / "features.npz", "--gen", fake, *common)
    assert mixed.code == 1 and "--features" in mixed.err
