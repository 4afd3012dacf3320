"""Images in memory."""

import numpy as np
import pytest
import torch
from inputs import write_bank, write_images

import probe
from probe.errors import ImagesError
from probe.images.open import open_images
from probe.images.tensors import TensorSource


def pixels(n=6, height=32, width=32, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, 3, height, width)).astype(np.uint8)


def test_arrays_and_tensors_are_the_same_images():
    a, b = TensorSource(pixels()), TensorSource(torch.from_numpy(pixels()))
    assert a.keys([0, 3]) == b.keys([0, 3]) and len(set(a.keys(range(6)))) == 6
    assert torch.equal(a.load([3, 0], 32).images, torch.from_numpy(pixels()[[3, 0]]))
    assert a.load([1], 16).images.shape == (1, 3, 16, 16)


def test_they_take_the_path_of_files(tmp_path):
    folder = open_images(write_images(tmp_path / "files", 5, seed=1, size=48))
    files = folder.load(range(5), 48).images
    assert torch.equal(
        TensorSource(files).load(range(5), 20).images, folder.load(range(5), 20).images
    )


def test_pixels_outside_the_square_change_the_key_not_the_shape():
    wide = pixels(height=32, width=40)
    source = TensorSource(wide)
    assert source.resolution == 32 and source.load([0], 32).images.shape == (1, 3, 32, 32)
    assert source.keys([0]) != TensorSource(np.ascontiguousarray(wide.transpose(0, 1, 3, 2))).keys(
        [0]
    )


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (pixels().astype(np.float32), "float32"),
        (pixels().transpose(0, 2, 3, 1), "(6, 32, 32, 3)"),
        (pixels()[0], "(3, 32, 32)"),
        (pixels(n=0), "no images"),
    ],
)
def test_other_shapes_and_types_are_refused(images, words):
    with pytest.raises(ImagesError, match="images: ") as caught:
        TensorSource(images)
    assert words in str(caught.value)


def test_tensors_are_ranked_as_their_files_are(tmp_path):
    reals = write_images(tmp_path / "reals", 40, seed=0)
    fakes = write_images(tmp_path / "fakes", 40, seed=1, blue=40)
    bank = write_bank(tmp_path)
    arguments = {"bank": bank, "backbones": ["colour", "edges"], "offline": True}
    as_tensors = [open_images(f).load(range(40), 32).images for f in (reals, fakes)]
    from_files = probe.rank(reals, fakes, **arguments).leaderboard
    from_memory = probe.rank(as_tensors[0], as_tensors[1].numpy(), **arguments).leaderboard
    assert from_files.winner.name == "colour"
    assert [(r.name, r.score) for r in from_memory.rows] == [
        (r.name, r.score) for r in from_files.rows
    ]
