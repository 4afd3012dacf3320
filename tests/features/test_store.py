"""The store: what is found again, what never hits, what a crash leaves."""

import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from probe.features.contents import damaged
from probe.features.store import FeatureStore

RECORD = {"backbone": "toy", "weights": "abc", "resolution": 64, "precision": "fp32"}
KEYS = ["k0", "k1", "k2"]
ROWS = np.arange(12, dtype=np.float32).reshape(3, 4)


def test_rows_are_found_again_by_key_in_any_order(tmp_path):
    FeatureStore(tmp_path).space(RECORD).write(KEYS, ROWS)
    space = FeatureStore(tmp_path).space(RECORD)
    assert space.missing(["k2", "new", "k0"]) == [1]
    np.testing.assert_array_equal(space.read(["k2", "k0", "k2"]), ROWS[[2, 0, 2]])


@pytest.mark.parametrize("changed", RECORD)
def test_any_change_of_the_space_misses(tmp_path, changed):
    FeatureStore(tmp_path).space(RECORD).write(KEYS, ROWS)
    other = FeatureStore(tmp_path).space({**RECORD, changed: "other"})
    assert other.missing(KEYS) == [0, 1, 2]


def test_rows_from_several_writes_are_joined(tmp_path):
    space = FeatureStore(tmp_path).space(RECORD)
    space.write(KEYS[:1], ROWS[:1])
    space.write(KEYS[1:], ROWS[1:])
    np.testing.assert_array_equal(space.read(KEYS), ROWS)
    np.testing.assert_array_equal(FeatureStore(tmp_path).space(RECORD).read(KEYS), ROWS)


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty"])
def test_a_damaged_file_is_a_miss_and_heals(tmp_path, damage):
    space = FeatureStore(tmp_path).space(RECORD)
    space.write(KEYS, ROWS)
    (path,) = space.folder.glob("*.safetensors")
    data = bytearray(path.read_bytes())
    data[-1] ^= 255
    path.write_bytes({"truncate": data[:-5], "flip": data, "empty": b""}[damage])
    again = FeatureStore(tmp_path).space(RECORD)
    assert again.missing(KEYS) == [0, 1, 2]
    again.write(KEYS, ROWS)
    np.testing.assert_array_equal(FeatureStore(tmp_path).space(RECORD).read(KEYS), ROWS)


def test_leftovers_of_a_killed_write_are_ignored(tmp_path):
    space = FeatureStore(tmp_path).space(RECORD)
    space.write(KEYS, ROWS)
    (space.folder / ".abc.safetensors.tmp123").write_bytes(b"half a file")
    assert FeatureStore(tmp_path).space(RECORD).missing(KEYS) == []


def _write_many(root: Path, offset: int) -> None:
    space = FeatureStore(root).space(RECORD)
    for i in range(20):
        space.write([f"key{offset + i}"], np.full((1, 4), offset + i, np.float32))


def test_two_processes_share_a_store(tmp_path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_write_many, args=(tmp_path, o)) for o in (0, 10)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    rows = FeatureStore(tmp_path).space(RECORD).read([f"key{i}" for i in range(30)])
    np.testing.assert_array_equal(rows[:, 0], np.arange(30))


def test_results_are_recalled_for_equal_inputs_only(tmp_path):
    store = FeatureStore(tmp_path)
    store.remember({"seed": 0}, {"score": np.float64(-0.5).reshape(1)})
    recalled = FeatureStore(tmp_path).recall({"seed": 0})
    assert recalled is not None and recalled["score"][0] == -0.5
    assert store.recall({"seed": 1}) is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace("512", "513"),
        lambda text: text.replace("sha256", "sha257"),
        lambda text: text[:-5],
        lambda text: "",
        lambda text: "[]",
        lambda text: "[" * 100_000,
        lambda text: '{"dim": 513}',
        lambda text: '{"facts": [], "sha256": 3}',
    ],
)
def test_facts_that_have_changed_are_noticed(tmp_path, damage):
    space = FeatureStore(tmp_path).space(RECORD)
    space.write(KEYS, ROWS)
    facts = {"dim": 512, "images_per_second": 0.1 + 0.2}
    space.write_facts(facts)
    assert FeatureStore(tmp_path).space(RECORD).facts() == facts and damaged(tmp_path) == []
    path = space.folder / "facts.json"
    path.write_text(damage(path.read_text()))
    assert FeatureStore(tmp_path).space(RECORD).facts() == {}
    assert damaged(tmp_path) == [path]
