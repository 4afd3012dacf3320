"""Copies and near-duplicates: found, counted and named."""

import numpy as np
import pytest
from inputs import photo
from PIL import Image

from probe.errors import ImagesError
from probe.features.copies import Copies, group
from probe.features.looks import PART, join_alike, nearest_images, pixel_differences


def test_images_of_one_key_are_one_group():
    assert group(["a", "b", "a", "c", "b"]).tolist() == [0, 1, 0, 3, 1]


def copies(real: str, fake: str) -> Copies:
    """Return copies of images named r0, r1 …, f0, f1 …; equal letters are equal images."""
    names = [f"r{i}" for i in range(len(real))] + [f"f{i}" for i in range(len(fake))]
    return Copies(group(real + fake), names, len(real))


def test_nothing_is_said_of_sets_without_copies():
    assert copies("abcd", "efgh").remarks() == []


def test_each_set_and_what_they_share_has_its_sentence_with_numbers_and_names():
    both, real, fake = copies("aabcdee", "bbfgaghi").remarks()
    assert "3 of 7 real and 3 of 8 generated images are in both sets (r0 = f4, r2 = f0)" in both
    assert (
        "2 of 7 real images are copies of others in their set (r0 = r1, r5 = r6), which leaves 5."
        in real
    )
    assert "2 of 8 generated images" in fake and "f0 = f1, f3 = f5" in fake
    assert "generator repeats itself" in fake and "generator" not in real
    (many,) = copies("aabbccdd", "efgh").remarks()
    assert "r0 = r1, r2 = r3, r4 = r5, …" in many


def test_what_is_left_must_be_enough():
    sets = copies("aabcd", "defgh")
    sets.require(4, ("x", "y"), apart=False)
    sets.require(3, ("x", "y"), apart=True)
    with pytest.raises(
        ImagesError, match="x: leaving out copies and images of the other set leaves 3 of 5"
    ):
        sets.require(4, ("x", "y"), apart=True)
    with pytest.raises(ImagesError, match=r"x: leaving out copies leaves 4 of 5 images; .*r0 ="):
        sets.require(5, ("x", "y"), apart=False)


def thumbnail(image: Image.Image) -> np.ndarray:
    return np.asarray(image.resize((16, 16), Image.Resampling.LANCZOS)).transpose(2, 0, 1)


@pytest.fixture
def looks():
    """Return four photos, then the first one mirrored, brighter by 2, and 128 px large."""
    rng = np.random.default_rng(0)
    photos = [photo(rng) for _ in range(4)]
    mirrored = photos[0].transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    brighter = photos[0].point(lambda value: value + 2)
    images = [*photos, mirrored, brighter, photos[0].resize((128, 128))]
    return np.stack([thumbnail(image) for image in images])


def test_differences_are_root_mean_squares_of_the_nearer_of_two_ways(looks):
    found = pixel_differences(looks, looks[:2])
    for i, image in enumerate(looks.astype(float)):
        for j, other in enumerate(looks[:2].astype(float)):
            ways = [np.square(image - o).mean() for o in (other, other[:, :, ::-1])]
            assert found[i, j] == pytest.approx(np.sqrt(min(ways)), abs=0.1)


def test_images_that_look_alike_join_and_others_stay(looks):
    assert join_alike(np.arange(7), looks).tolist() == [0, 1, 2, 3, 0, 0, 0]
    # What is one already stays one, and brings what looks like it.
    assert join_alike(np.array([0, 1, 0, 3, 4, 5, 1]), looks).tolist() == [0, 0, 0, 3, 0, 0, 0]
    where, far = nearest_images(looks, None)
    assert where[4] in (0, 5, 6) and far[4] < 5 < far[1]


def test_joining_does_not_depend_on_blocks():
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (2 * PART + 40, 3, 16, 16), dtype=np.uint8)
    images[[3, PART + 1, 2 * PART + 5]] = images[10]
    images[2 * PART + 39] = images[PART]
    expected = np.arange(len(images))
    expected[[3, 10, PART + 1, 2 * PART + 5]] = 3
    expected[2 * PART + 39] = PART
    np.testing.assert_array_equal(join_alike(np.arange(len(images)), images), expected)
