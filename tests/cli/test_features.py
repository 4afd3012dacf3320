"""`probe features`: what a ranking will use, whole or in tasks, into one store or several."""

import json
import os
import shutil

import pytest
from inputs import write_images

from probe.features.store import FeatureSpace
from probe.images.files import FileSource

NAMES = ["colour", "edges", "random"]


@pytest.fixture
def features(cli, bank, reals):
    def run(*arguments, code=0):
        done = cli("features", reals, "--bank", bank, "--offline", "--json", *arguments)
        assert done.code == code, done.err
        return json.loads(done.out) if done.out else done.err

    return run


@pytest.fixture
def rank(cli, bank, reals, fakes):
    def run(*arguments):
        done = cli(
            "rank", "--real", reals, "--gen", fakes, "--bank", bank, "--offline",
            "--format", "json", *arguments,
        )  # fmt: skip
        assert done.code == 0, done.err
        rows = json.loads(done.out)["rows"]
        # Rounding depends on which images share a batch.
        return pytest.approx({row["name"]: row["score"] for row in rows}, abs=1e-5)

    return run


def missing(found):
    return {row["name"]: row["missing"] for row in found["rows"]}


@pytest.fixture
def decoded(reals, monkeypatch):
    """Return the names of the reals that are decoded from now on."""
    names, load = [], FileSource.load

    def watched(self, indices, resolution):
        if self.name == str(reals):
            names.extend(self.captions(indices))
        return load(self, indices, resolution)

    monkeypatch.setattr(FileSource, "load", watched)
    return names


def test_a_ranking_after_the_tasks_decodes_no_real_and_has_the_same_scores(
    features, rank, decoded, tmp_path, monkeypatch
):
    options = ("--num", 40, "--seed", 7)
    plain = rank(*options)
    monkeypatch.setenv("PROBE_CACHE_DIR", str(tmp_path / "shared"))
    counts = [features("--tasks", f"{i}/3", *options)["images"] for i in (2, 0, 1)]
    assert counts == [13, 14, 13]
    assert missing(features("--missing", *options)) == dict.fromkeys(NAMES, 0)
    decoded.clear()
    assert rank(*options).expected == plain
    assert decoded == []


def test_broken_images_are_named_and_replaced_as_a_ranking_does(
    features, rank, reals, decoded, tmp_path, monkeypatch
):
    for name in ("003.png", "017.png", "040.png", "055.png"):
        (reals / name).write_bytes(b"no image")
    options = ("--num", 50)
    plain = rank(*options)
    monkeypatch.setenv("PROBE_CACHE_DIR", str(tmp_path / "shared"))
    tasks = [features("--tasks", f"{i}/2", *options) for i in (0, 1)]
    named = {broken["name"] for task in tasks for broken in task["broken"]}
    whole = features(*options)  # the tasks do not know of each other's
    assert named | {b["name"] for b in whole["broken"]} == {
        "003.png", "017.png", "040.png", "055.png"
    }  # fmt: skip
    assert whole["images"] == 50 and missing(whole) == dict.fromkeys(NAMES, 0)
    decoded.clear()
    assert rank(*options).expected == plain
    assert set(decoded) <= named
    assert "Move it away" in features("--strict", code=1)


def test_another_number_of_tasks_computes_only_what_is_missing(features, decoded):
    features("--tasks", "1/4")
    assert missing(features("--missing", code=3)) == dict.fromkeys(NAMES, 45)
    decoded.clear()
    features("--tasks", "0/2")
    features("--tasks", "1/2")
    assert len(decoded) == len(set(decoded)) == 45
    assert features("--tasks", "99/100")["images"] == 0


def test_a_backbone_that_cannot_run_is_a_row_and_the_others_are_stored(features, bank):
    text = bank.read_text() + bank.read_text().split("\n- name: edges")[0].replace("colour", "gone")
    bank.write_text(text)
    found = features(code=3)
    gone = found["rows"][-1]
    assert gone["name"] == "gone" and gone["missing"] == 60 and gone["reason"]
    assert found["rows"][0]["missing"] == 0


def test_the_table_counts_and_names(cli, reals, bank):
    (reals / "broken.png").write_bytes(b"no image")
    done = cli("features", reals, "--bank", bank, "--offline", "--backbones", "colour", "--quiet")
    assert done.out.splitlines()[0] == "60 images at 32 px"
    assert "colour    60      0" in done.out
    assert "1 image was skipped: broken.png (not an image)" in done.out


@pytest.mark.parametrize(
    ("tasks", "words"),
    [
        ("3/3", "the last of 3 is 2/3. A SLURM array counts that way with --array=0-2"),
        ("/", "'/' is not i/N"),
        ("-1/3", "is not i/N"),
        ("1/0", "0 tasks"),
        ("0/9999999", "9999999 tasks"),
    ],
)
def test_tasks_outside_are_refused(features, tasks, words):
    assert words in features("--tasks", tasks, code=2)


def split_caches(features, tmp_path, monkeypatch):
    """Extract in two caches and return them; a third, empty one is in use afterwards."""
    caches = [tmp_path / name for name in ("one", "two")]
    for i, cache in enumerate(caches):
        monkeypatch.setenv("PROBE_CACHE_DIR", str(cache))
        features("--tasks", f"{i}/2")
    monkeypatch.setenv("PROBE_CACHE_DIR", str(tmp_path / "joined"))
    return caches


def test_merged_caches_are_one_to_rankings_and_distances(
    cli, features, rank, bank, reals, fakes, decoded, tmp_path, monkeypatch
):
    distances = (
        "metrics", "--real", reals, "--gen", fakes, "--bank", bank, "--offline",
        "--backbones", "colour", "--format", "csv",
    )  # fmt: skip
    plain, measured = rank(), cli(*distances).out
    caches = split_caches(features, tmp_path, monkeypatch)
    done = cli("cache", "merge", *caches)
    assert done.code == 0 and "90 rows and 0 probe results were taken, 0 rows were" in done.err
    again = cli("cache", "merge", *caches)
    assert "0 rows and 0 probe results were taken, 90 rows were here already" in again.err
    decoded.clear()
    assert rank().expected == plain and cli(*distances).out == measured
    assert decoded == []
    monkeypatch.setenv("PROBE_CACHE_DIR", str(tmp_path / "last"))
    assert " 0 probe results" not in cli("cache", "merge", tmp_path / "joined").err
    monkeypatch.setattr(FeatureSpace, "write", lambda *a: pytest.fail("was computed"))
    assert rank().expected == plain


def test_rows_that_are_here_stay_and_only_others_come(features, cli, tmp_path, monkeypatch):
    one, two = split_caches(features, tmp_path, monkeypatch)
    monkeypatch.setenv("PROBE_CACHE_DIR", str(two))
    features("--tasks", "0/4")  # half of what the first cache has
    before = {p: p.read_bytes() for p in two.glob("features/*/*.safetensors")}
    done = cli("cache", "merge", one)
    assert "45 rows" in done.err and "45 rows were here already" in done.err
    assert all(path.read_bytes() == data for path, data in before.items())
    assert missing(features("--missing")) == dict.fromkeys(NAMES, 0)


def test_what_is_no_other_cache_is_refused(cli, features, tmp_path, reals, monkeypatch):
    features()
    own = os.environ["PROBE_CACHE_DIR"]
    for path, words in (
        (own, "is this cache itself"),
        (reals, "is not a cache folder"),
        (reals / "000.png", "is not a folder"),
        (tmp_path / "cach", f"Did you mean '{own}'"),
    ):
        done = cli("cache", "merge", path)
        assert done.code == 2 and words in done.err and "Traceback" not in done.err


def test_a_full_disk_loses_nothing(cli, features, tmp_path, monkeypatch):
    one, _ = split_caches(features, tmp_path, monkeypatch)
    real_replace, left = os.replace, [5]

    def full(source, target, **named):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        real_replace(source, target, **named)

    monkeypatch.setattr(os, "replace", full)
    done = cli("cache", "merge", one)
    assert done.code == 1 and "Free some space" in done.err
    monkeypatch.setattr(os, "replace", real_replace)
    assert cli("cache", "merge", one).code == 0
    assert cli("cache", "verify").code == 0
    assert missing(features("--missing", code=3)) == dict.fromkeys(NAMES, 30)


def test_other_images_of_the_same_names_never_hit(features, reals, tmp_path):
    features()
    shutil.rmtree(reals)
    write_images(reals, 60, seed=5)
    assert missing(features("--missing", code=3)) == dict.fromkeys(NAMES, 60)
