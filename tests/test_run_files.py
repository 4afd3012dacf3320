"""The names of a run's files, and the numbers of its snapshots."""

import json

import pytest

from probe.generators.files.run_folder import best_snapshot, kimg_in_name
from probe.run_files import kimg_of, snapshot_number


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


@pytest.fixture
def run(tmp_path):
    """A run's directory by its names alone: three snapshots of one thousand images, one beyond."""
    for number in ("000000", "000000_040", "000000_900", "000001"):
        (tmp_path / f"network-snapshot-{number}.safetensors").touch()
    return tmp_path


def test_the_last_of_a_run_is_the_one_with_the_most_images(run):
    assert best_snapshot(run).name == "network-snapshot-000001.safetensors"
    (run / "network-snapshot-000001.safetensors").unlink()
    assert best_snapshot(run).name == "network-snapshot-000000_900.safetensors"
    assert kimg_in_name(best_snapshot(run)) == 0.9
    assert kimg_in_name(run / "network-snapshot-000200.pkl") == 200


def test_a_metric_picks_among_snapshots_of_one_thousand_images(run):
    lines = [
        {"results": {"fid": fid}, "snapshot_pkl": f"network-snapshot-{number}.safetensors"}
        for number, fid in (("000000", 3.0), ("000000_040", 1.0), ("000000_900", 2.0))
    ]
    (run / "metric-fid.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert best_snapshot(run).name == "network-snapshot-000000_040.safetensors"
