"""Tasks that are killed, and stores with damaged files: nothing is lost, nothing wrong is taken."""

import json
import random
import shutil

import numpy as np
import pytest
from attack.victim import start
from inputs import write_bank, write_images
from safetensors.numpy import load, save

from probe.features.contents import damaged_files
from probe.features.store import FEATURES, FeatureStore
from probe.files import digest_bytes

RECORD = {"backbone": "toy", "precision": "fp32"}


def missing(cli, *arguments):
    done = cli("features", *arguments, "--missing", "--json")
    return {row["name"]: row["missing"] for row in json.loads(done.out)["rows"]}


def test_a_task_that_is_killed_is_filled_in(cli, tmp_path, monkeypatch, rounds, tally):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    reals, bank = write_images(tmp_path / "reals", 40, seed=1), write_bank(tmp_path)
    common = [reals, "--bank", bank, "--offline", "--device", "cpu", "--precision", "fp32"]
    log = tmp_path / "log"
    for n in rounds([3], range(1, 8)):  # rows and measurements of three backbones, each a rename
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        process = start(["features", *common, "--tasks", "0/2"], log, renames=n)
        process.join(timeout=300)
        assert process.exitcode == -9
        assert damaged_files(tmp_path / "cache") == []
        left = missing(cli, *common, "--tasks", "0/2")
        assert max(left.values()) > 0 and set(left.values()) <= {0, 20}
        for task in ("1/2", "0/2"):  # the others go on without it
            assert cli("features", *common, "--tasks", task).code == 0
        assert set(missing(cli, *common).values()) == {0}
        tally("tasks killed, and filled in")


def store_of(folder, rows=60):
    """Write a store of several files, and return its feature space."""
    space = FeatureStore(folder).space(RECORD)
    table = np.random.default_rng(0).normal(size=(rows, 4)).astype(np.float32)
    for i in range(0, rows, 20):
        space.write([f"k{j}" for j in range(i, i + 20)], table[i : i + 20])
    space.write_facts({"dim": 4})
    return space


def rename(path, data):
    """Give a file other contents, under the name that they should have."""
    path.unlink()
    path.with_name(f"{digest_bytes(data)[:32]}.safetensors").write_bytes(data)


def test_changed_bytes_are_not_merged(cli, tmp_path, rounds, tally):
    rng, other = random.Random(0), tmp_path / "other"
    for _ in range(rounds(10, 500)):
        shutil.rmtree(other, ignore_errors=True)
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        space = store_of(other)
        path = rng.choice(sorted(p for p in space.folder.iterdir()))
        data = bytearray(path.read_bytes())
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        if data.isspace() or json_equal(path, data):
            continue
        path.write_bytes(data[: rng.choice((len(data), rng.randrange(len(data))))])
        done = cli("cache", "merge", other)
        assert done.code == 3 and f"damaged: {path}" in done.out, done.err
        assert "1 damaged file." in done.err and "Traceback" not in done.err
        expected = {"space.json": 0, "facts.json": 60}.get(path.name, 40)
        assert f"{expected} rows" in done.err
        assert cli("cache", "verify").code == 0
        tally("damaged files left out of a merge")


def json_equal(path, data):
    """Return whether a changed record still says the same."""
    try:
        return path.suffix == ".json" and json.loads(data) == json.loads(path.read_bytes())
    except ValueError:
        return False


@pytest.mark.parametrize(
    "forge",
    [
        lambda arrays: {"features": arrays["features"]},
        lambda arrays: {**arrays, "keys": arrays["keys"][:3]},
        lambda arrays: {**arrays, "keys": arrays["keys"][:, :8].copy()},
        lambda arrays: {**arrays, "features": arrays["features"][:, :2].copy()},
        lambda arrays: {**arrays, "features": arrays["features"].astype(np.float64)},
        lambda arrays: {**arrays, "features": arrays["features"] * np.float32(np.nan)},
        lambda arrays: {**arrays, "features": arrays["features"].reshape(-1)},
    ],
)
def test_forged_files_are_not_merged(cli, tmp_path, forge):
    """Their names fit their contents, which are no rows of the space."""
    space = store_of(tmp_path / "other")
    path = sorted(space.folder.glob("*.safetensors"))[0]
    rename(path, save(forge(load(path.read_bytes()))))
    done = cli("cache", "merge", tmp_path / "other")
    assert done.code == 3 and "40 rows" in done.err and done.out.startswith("damaged: ")


def test_a_space_under_another_name_is_not_merged(cli, tmp_path):
    space = store_of(tmp_path / "other")
    space.folder.rename(space.folder.with_name("0" * 32))
    done = cli("cache", "merge", tmp_path / "other")
    assert done.code == 3 and "0 rows and" in done.err and "space.json" in done.out
    assert not (tmp_path / "cache" / FEATURES).exists()
