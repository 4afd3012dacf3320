"""The store: what is found again, what never hits, what a crash leaves."""

import hashlib
import multiprocessing
import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from probe.errors import ProbeError
from probe.features.contents import damaged_files
from probe.features.key_index import KeyIndex
from probe.features.store import FeatureStore
from probe.stored_arrays import write_arrays

RECORD = {"backbone": "toy", "weights": "abc", "resolution": 64, "precision": "fp32"}
KEYS = ["k0", "k1", "k2"]
ROWS = np.arange(12, dtype=np.float32).reshape(3, 4)


def test_rows_are_found_again_by_key_in_any_order(tmp_path):
    FeatureStore(tmp_path).space(RECORD).write(KEYS, ROWS)
    space = FeatureStore(tmp_path).space(RECORD)
    assert space.missing(["k2", "new", "k0"]) == [1]
    np.testing.assert_array_equal(space.read(["k2", "k0", "k2"]), ROWS[[2, 0, 2]])


def test_a_space_goes_to_another_process_with_its_rows(tmp_path):
    space = FeatureStore(tmp_path).space({"x": 1})
    space.write(["a", "b"], np.arange(4, dtype=np.float32).reshape(2, 2))
    sent = pickle.loads(pickle.dumps(space))
    sent.write(["c"], np.ones((1, 2), np.float32))
    assert sent.read(["b", "c"]).tolist() == [[2, 3], [1, 1]]


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


def test_damage_costs_the_rows_of_its_file_alone(tmp_path):
    space = FeatureStore(tmp_path).space(RECORD)
    space.write(KEYS, ROWS)
    space.write(["other"], ROWS[:1])
    path = max(space.folder.glob("*.safetensors"), key=lambda p: p.stat().st_size)
    data = bytearray(path.read_bytes())
    data[data.index(ROWS[1].tobytes()) + 3] ^= 1  # in the row of k1
    path.write_bytes(data)
    again = FeatureStore(tmp_path).space(RECORD)
    assert again.missing(["k0", "other", "k2"]) == []  # sound rows of a damaged file
    np.testing.assert_array_equal(again.read(["k2", "k0"]), ROWS[[2, 0]])
    assert again.missing(["k0", "k1", "other"]) == [0, 1]
    again.write(KEYS[:2], ROWS[:2])
    assert again.missing(KEYS[:2]) == []
    np.testing.assert_array_equal(again.read([*KEYS[:2], "other"]), ROWS[[0, 1, 0]])


def test_damage_between_looking_and_reading_is_an_error_that_heals(tmp_path):
    space = FeatureStore(tmp_path).space(RECORD)
    space.write(KEYS, ROWS)
    (path,) = space.folder.glob("*.safetensors")
    assert space.missing(KEYS) == []
    data = path.read_bytes()
    path.write_bytes(data.replace(ROWS[1].tobytes(), ROWS[2].tobytes()))
    with pytest.raises(ProbeError, match="was damaged while it was in use. Repeat the command"):
        space.read(KEYS)
    path.unlink()
    with pytest.raises(ProbeError, match="was removed from the cache"):
        space.read(KEYS)
    assert FeatureStore(tmp_path).space(RECORD).missing(KEYS) == [0, 1, 2]


def test_opening_reads_keys_and_a_sample_reads_its_rows(tmp_path, monkeypatch):
    space = FeatureStore(tmp_path).space(RECORD)
    rng, width = np.random.default_rng(0), 4096
    rows = rng.normal(size=(1600, width)).astype(np.float32)
    for first in range(0, 1600, 400):
        keys = [f"k{i}" for i in range(first, first + 400)]
        space.write(keys, rows[first : first + 400])
    tracemalloc.start()
    again = FeatureStore(tmp_path).space(RECORD)
    chosen = [3, 1599, 700, 4]
    wanted = [f"k{i}" for i in chosen]
    assert again.missing(wanted) == []
    np.testing.assert_array_equal(again.read(wanted), rows[chosen])
    assert tracemalloc.get_traced_memory()[1] < 1e6 < rows.nbytes
    tracemalloc.stop()


@pytest.mark.parametrize("damage", [False, True])
def test_files_from_before_rows_had_digests_stay_readable(tmp_path, damage):
    space = FeatureStore(tmp_path).space(RECORD)
    row_keys = [np.frombuffer(hashlib.sha256(k.encode()).digest(), np.uint8) for k in KEYS]
    path = write_arrays(space.folder, {"keys": np.stack(row_keys), "features": ROWS})
    if damage:
        path.write_bytes(path.read_bytes().replace(ROWS[1].tobytes(), ROWS[2].tobytes()))
    again = FeatureStore(tmp_path).space(RECORD)
    assert again.missing([*KEYS, "new"]) == ([0, 1, 2, 3] if damage else [3])
    if not damage:
        np.testing.assert_array_equal(again.read(KEYS[::-1]), ROWS[::-1])


@pytest.mark.parametrize(
    "header",
    [
        b"[" * 70_000,
        b"{}",
        b'{"keys": {"dtype": "U8", "shape": [3, 32], "data_offsets": [0, 96]}}',
        b'{"keys": {"dtype": "U8", "shape": [-3, -32], "data_offsets": [0, 96]},'
        b' "features": {"dtype": "F32", "shape": [3, 0], "data_offsets": [96, 96]}}',
        b'{"keys": {"dtype": "U8", "shape": [3, 32], "data_offsets": [0, 96]},'
        b' "features": {"dtype": "F64", "shape": [3, 4], "data_offsets": [96, 192]}}',
        b'{"keys": {"dtype": "U8", "shape": [3, 32], "data_offsets": [-96, 0]},'
        b' "features": {"dtype": "F32", "shape": [1e9, 4], "data_offsets": [0, 96]}}',
        b'{"keys": 3, "features": "x", "sums": null}',
    ],
)
def test_a_hostile_header_is_a_miss(tmp_path, header):
    space = FeatureStore(tmp_path).space(RECORD)
    space.folder.mkdir(parents=True)
    data = len(header).to_bytes(8, "little") + header + bytes(96 + 48)
    (space.folder / f"{'0' * 32}.safetensors").write_bytes(data)
    assert FeatureStore(tmp_path).space(RECORD).missing(KEYS) == [0, 1, 2]


def test_an_index_of_many_keys_finds_each_whatever_the_order_of_writing():
    rng = np.random.default_rng(0)
    keys = rng.integers(0, 256, (3000, 32), dtype=np.uint8)
    index, first = KeyIndex(), 0
    for count in (1, 1, 700, 2, 30, 1500, 1, 700, 65):
        index.add(keys[first : first + count], np.arange(first, first + count))
        first += count
    np.testing.assert_array_equal(index.find(keys), np.arange(3000))
    alike = keys.copy()
    alike[:, 31] ^= 1  # the first bytes agree
    assert (index.find(alike) == -1).all()
    index.drop(100, 2900)
    found = index.find(keys)
    assert (found[100:2900] == -1).all() and (found[:100] >= 0).all() and found[2999] == 2999


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
    assert FeatureStore(tmp_path).space(RECORD).facts() == facts and damaged_files(tmp_path) == []
    path = space.folder / "facts.json"
    path.write_text(damage(path.read_text()))
    assert FeatureStore(tmp_path).space(RECORD).facts() == {}
    assert damaged_files(tmp_path) == [path]
