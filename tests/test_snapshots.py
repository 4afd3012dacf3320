"""The numbers of snapshots."""

import pytest

from probe.snapshots import kimg_of, snapshot_number


@pytest.mark.parametrize("batch", [1, 4, 32, 48, 64, 999, 1000, 1024, 4096])
def test_no_two_steps_share_a_number_and_names_sort_by_images(batch):
    steps = range(0, 40 * max(batch, 1000), batch)
    numbers = [snapshot_number(images, batch) for images in steps]
    assert len(set(numbers)) == len(numbers)
    names = [f"fakes{number}.png" for number in numbers]
    assert sorted(names) == names
    for images, number in zip(steps, numbers):
        assert 0 <= images - round(1000 * kimg_of(number)) < batch


@pytest.mark.parametrize("batch", [4, 32, 48, 64])
def test_whole_thousands_are_called_as_the_stylegan_family_calls_them(batch):
    for kimg in (0, 1, 2, 200, 25_000):
        reached = -(-kimg * 1000 // batch) * batch  # the first step with as many images
        assert snapshot_number(reached, batch) == f"{kimg:06d}"
