"""A study on images of its own: pool, pace, limits, packing; a small one from end to end."""

import copy
import json
import math
import subprocess
import sys
import tarfile
import time

import data
import execute
import findings
import jobs
import judge
import numpy as np
import pack
import photos
import pytest
import samples
import schedule
import study
import yaml
from inputs import write_images
from PIL import Image
from plan import HERE, read_study
from weights import RANDOM_JUDGE, bank_digest, judge_digest, prepare_bank

from probe.bank.file import load_bank
from probe.errors import UsageError
from probe.images.open import open_images

PHOTOS = HERE / "photos.yaml"
IMAGES, POOL = 60, 40


@pytest.fixture
def config(tmp_path):
    """photos.yaml at the least size: other images, no packages, sixty-four training images."""
    write_images(tmp_path / "images", IMAGES, seed=1, size=16)
    record = yaml.safe_load(PHOTOS.read_text())
    record |= {
        "real": str(tmp_path / "images"), "pool": POOL, "device": "cpu", "scale": 0.001,
        "evaluators": [RANDOM_JUDGE], "fakes": 32,
        "inputs": dict.fromkeys(("random-resnet18", "random-efficientnet-lite0", RANDOM_JUDGE), 32),
    }  # fmt: skip
    record["train"] |= {
        "resolution": 16, "batch": 8, "channel_base": 64, "channel_max": 8, "z_dim": 8, "w_dim": 8,
        "map_layers": 2, "tick": 0.016, "snap": 1,
    }  # fmt: skip
    controls = ["random-resnet18", "random-efficientnet-lite0"]
    record["arms"] = {n: {**record["arms"][n], "backbones": controls}
                      for n in ("none", "progressive")}  # fmt: skip
    record["groups"] = [
        {"name": "main", "images": POOL, "arms": ["none", "progressive"], "seeds": [0]}
    ]
    path = tmp_path / "photos.yaml"
    path.write_text(yaml.safe_dump(record))
    return path


def command(*arguments):
    done = subprocess.run(
        [sys.executable, str(HERE / "study.py"), *map(str, arguments)],
        capture_output=True, encoding="utf-8", check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done


def test_a_study_is_trained_on_one_machine_and_judged_on_another(config, tmp_path):
    train, home, packed = tmp_path / "train", tmp_path / "home", tmp_path / "packed"
    common = ("--config", config, "--results", tmp_path / "results", "--jobs", 2)
    assert command(*common, "--out", home, "--prepare").stdout.strip() == str(home / data.POOL)
    train.mkdir()
    (home / data.POOL).rename(train / data.POOL)
    (tmp_path / "images").rename(tmp_path / "elsewhere")  # the training machine has the pool alone
    command(*common, "--out", train, "--train-only", "--minutes", 9, "--pack", packed)
    (archive,) = packed.iterdir()
    (tmp_path / "elsewhere").rename(tmp_path / "images")
    with tarfile.open(archive) as file:
        assert not [name for name in file.getnames() if name.endswith((".png", ".pt", ".html"))]
        file.extractall(home, filter="data")
    page = tmp_path / "docs" / "photos.md"
    command(*common, "--out", home, "--judge-only", "--page", page)

    record = json.loads((tmp_path / "results" / "photos.json").read_text())
    assert [r["run"] for r in record["runs"]] == [f"{POOL}-none-s0", f"{POOL}-progressive-s0"]
    assert record["missing"] == []
    for result in record["runs"]:
        assert result["training"]["series"][-1]["kimg"] == 0.064
        measured = result["judged"]["last"][RANDOM_JUDGE]
        assert {"all", "training", "neighbours", "memory"} <= set(measured)
        assert 0 <= measured["memory"]["near"] <= 1
    text = page.read_text()
    ratio = findings.Results(record).ratio(POOL, "progressive")["value"]
    assert f"`{RANDOM_JUDGE}` ({photos.SEES[RANDOM_JUDGE]}): {photos.times(ratio)}" in text
    folder = page.with_suffix("")
    sheet = Image.open(folder / samples.SHEET_OF_PHOTOS)
    assert sheet.size == Image.open(folder / samples.BLIND).size
    key = json.loads((folder / samples.BLIND_KEY).read_text())
    assert sorted(key) == ["A", "B"] and sorted(key.values()) == ["none", "progressive"]
    # Nothing is left to do, and without the runs the results still make the same page.
    assert "started" not in command(*common, "--out", home, "--page", page).stderr
    command(*common, "--out", tmp_path / "empty", "--report", "--page", page)
    assert page.read_text() == text


# ---------------------------------------------------------------------------------------------
# Images
# ---------------------------------------------------------------------------------------------


def test_judges_compare_with_images_outside_the_pool(config, tmp_path):
    made = read_study(config)
    parts = data.judged_parts(made, made.runs[0])
    assert len(parts["all"]) == IMAGES - POOL and len(parts["training"]) == POOL
    assert not set(parts["all"]) & set(parts["training"]) and parts["holdout"] == []
    pool = open_images(data.training_archive(made, tmp_path / "out"))
    whole = open_images(made.archive)
    assert pool.keys(range(len(pool))) == whole.keys(parts["training"])


def test_the_pool_is_the_same_bytes_from_a_folder_and_from_a_zip(config, tmp_path):
    import shutil

    made = read_study(config)
    first = data.training_archive(made, tmp_path / "one")
    shutil.make_archive(str(tmp_path / "whole"), "zip", made.archive)
    record = yaml.safe_load(config.read_text()) | {"real": str(tmp_path / "whole.zip")}
    config.write_text(yaml.safe_dump(record))
    second = data.training_archive(read_study(config), tmp_path / "two")
    assert first.read_bytes() == second.read_bytes()


def test_without_pool_and_images_it_says_what_to_do(config, tmp_path):
    made = read_study(config)
    (tmp_path / "images").rename(tmp_path / "gone")
    with pytest.raises(UsageError, match="--prepare"):
        data.training_archive(made, tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "words"),
    [({"pool": 30}, "wants 40 images of 30"), ({"inputs": {"nobody": 32}}, "nobody")],
)
def test_mistakes_are_found_at_once(config, change, words):
    config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | change))
    with pytest.raises(UsageError, match=words):
        read_study(config)


def test_bundled_images_are_judged_whole():
    made = read_study(HERE / "quick.yaml")
    parts = data.judged_parts(made, made.runs[0])
    assert len(parts["all"]) == made.available
    assert sorted(parts["training"] + parts["holdout"]) == parts["all"]


def test_copies_of_training_images_are_noticed():
    rng = np.random.default_rng(0)
    training, unseen = rng.normal(size=(100, 4)), rng.normal(size=(400, 4))
    fresh = judge.nearness(training, fakes=rng.normal(size=(400, 4)), unseen=unseen)
    assert fresh["near"] < 0.05 and fresh["fakes"] == pytest.approx(fresh["unseen"], rel=0.2)
    copied = judge.nearness(training, fakes=training + 1e-3, unseen=unseen)
    assert copied["near"] == 1 and copied["fakes"] < 0.01


# ---------------------------------------------------------------------------------------------
# Backbones
# ---------------------------------------------------------------------------------------------


def test_inputs_of_a_study_are_in_its_bank_and_in_its_identity(tmp_path):
    inputs = {"efficientnet-lite1": 128, RANDOM_JUDGE: 48}
    path = prepare_bank(tmp_path, [RANDOM_JUDGE], inputs)
    sides = {spec.name: spec.input for spec in load_bank(path).specs}
    assert sides["efficientnet-lite1"] == 128 and sides["mobilenetv2"] == 64
    assert sides[RANDOM_JUDGE] == 48
    assert bank_digest({}) != bank_digest(inputs) and judge_digest({}) != judge_digest(inputs)


def test_results_of_the_first_study_still_count():
    record = json.loads((HERE / "results" / "study.json").read_text())
    made = read_study(HERE / "study.yaml")
    assert all(r["identity"] == execute.identity(made, made.run(r["run"])) for r in record["runs"])


def test_lengths_are_scaled(config):
    made = read_study(config)
    assert {run.kimg for run in made.runs} == {0.064}
    assert made.warmup_of(made.runs[1]).kimg == 0.032


# ---------------------------------------------------------------------------------------------
# Time
# ---------------------------------------------------------------------------------------------


class Limit:
    """So many seconds; what is called "late" would not end."""

    def __init__(self, seconds):
        self.end = time.monotonic() + seconds

    def allows(self, name):
        return name != "late"

    @property
    def over(self):
        return time.monotonic() > self.end


def test_a_limit_stops_what_runs_and_keeps_back_what_would_not_end(tmp_path):
    said = []
    codes = {"long": "import time; time.sleep(60)", "late": "print(1)", "short": "print(2)"}
    failed = jobs.run_all(
        {name: ["-c", code] for name, code in codes.items()},
        {name: tmp_path / name for name in codes},
        jobs=2, threads=1, say=said.append, limit=Limit(3),
    )  # fmt: skip
    assert failed == []
    assert "late: not started, it would not end in time" in said
    assert "long: stopped, the time is up" in said
    assert any(line.startswith("short: done") for line in said)


def test_a_plan_has_warmups_first_and_so_many_at_a_time(tmp_path):
    made = read_study(PHOTOS)
    planned = schedule.plan(made, made.runs, tmp_path, jobs=6, pace=2.0)
    assert [one.name for one in planned[:4]] == [
        "1000-warmup-s0", "1000-warmup-s1", "1000-warmup-s2", "1000-none-s0",
    ]  # fmt: skip
    ends = {one.name: one.end for one in planned}
    assert ends["1000-warmup-s2"] == schedule.START + 64
    pair = [ends[f"1000-{arm}-s{seed}"] for arm in ("none", "progressive") for seed in range(3)]
    assert set(pair) == {2 * (schedule.START + 64)}
    assert max(ends.values()) == 4 * (schedule.START + 64)  # 9 more, 6 at a time


def test_a_dry_run_says_what_ends_in_time(tmp_path, capsys):
    made = read_study(PHOTOS)
    doing = study.Doing(jobs=6, minutes=4, pace=2.0)
    study.show_plan(made, made.runs, tmp_path, doing)
    assert "9 of 18 trainings end in time, 6 at a time" in capsys.readouterr().out
    with pytest.raises(UsageError, match="--pace"):
        study.show_plan(made, made.runs, tmp_path, study.Doing(jobs=6))


def test_archives_keep_their_size(config, tmp_path, monkeypatch):
    made = read_study(config)
    for run in made.runs:
        folder = execute.run_folder(tmp_path, run) / "train" / "00000-pool"
        folder.mkdir(parents=True)
        (folder / "progress.json").write_text('{"finished": true, "kimg": 0.064}')
        (folder / "network-snapshot-000000_064.safetensors").write_bytes(bytes(1000))
        (folder / "training-state-latest.pt").write_bytes(bytes(9000))
    monkeypatch.setattr(pack, "MOST_BYTES", 1500)
    written = pack.pack_runs(made, made.runs, tmp_path, tmp_path / "packed")
    assert [path.name for path in written] == ["runs-1.tar.gz", "runs-2.tar.gz"]
    monkeypatch.setattr(pack, "MOST_BYTES", 500)
    with pytest.raises(UsageError, match="more than 500"):
        pack.pack_runs(made, made.runs, tmp_path, tmp_path / "packed")


# ---------------------------------------------------------------------------------------------
# Page
# ---------------------------------------------------------------------------------------------


def made_up(made, runs, distances):
    """A record of these runs, every judge giving an arm's distance."""

    def result(run):
        values = {"frechet": distances[run.arm] + run.seed, "kernel": 0.1}
        neighbours = dict.fromkeys(photos.NEIGHBOURS, 0.5)
        one = {"all": values, "training": values, "neighbours": neighbours,
               "memory": {"fakes": 1.0, "unseen": 1.1, "near": 0.02}}  # fmt: skip
        joined = [] if run.arm == "none" else [{"kimg": 32.0, "name": "mobilenetv2"}]
        return {
            "run": run.name, "arm": run.arm, "images": run.images, "seed": run.seed,
            "training": {"series": [{"kimg": 64.0}], "joined": joined},
            "judged": {"last": {e: copy.deepcopy(one) for e in made.evaluators}},
            "floor": {e: {**values, **neighbours} for e in made.evaluators},
            "precision": "bf16", "machine": {"cpu": "a processor", "gpu": "a GPU"},
            "versions": {"torch": "2"},
        }  # fmt: skip

    plain = {k: v for k, v in vars(made).items() if k not in ("path", "runs")}
    done = {run.name for run in runs}
    return {
        "study": {**plain, "name": "photos"}, "runs": [result(run) for run in runs],
        "missing": [run.name for run in made.runs if run.name not in done], "intervals": {},
    }  # fmt: skip


def page_of(record, figures=None):
    return photos.render(
        findings.Results(record), command="repeat", figures=figures or {}, folder="photos"
    )


def test_the_page_says_what_the_results_say_and_what_is_missing():
    made = read_study(PHOTOS)
    distances = {"none": 120.0, "progressive": 60.0, "efficientnet-lite1": 70.0}
    main = [run for run in made.runs if run.group == "main"]
    text = page_of(made_up(made, main, distances), {"samples": "samples.jpg"})
    assert text.index("![samples]") < text.index("| arm |") < text.index("## How many times")
    assert "edge detection): 1.98 times, 95 % interval over 3 seeds" in text and "above 1." in text
    assert "6 of 15 runs are finished." in text and "`1000-mobilenetv2-s0`" in text
    assert "a GPU, several runs at a time" in text and "2.0%" in text
    one = page_of(made_up(made, main[:1], distances))
    assert "The contrast of `none` and `progressive` is missing" in one
    assert "No run is finished yet" in page_of(made_up(made, [], distances))
    for line in text.splitlines():
        assert not line.startswith("|") or line.endswith("|")


@pytest.mark.parametrize("name", ["photos", "photos32"])
def test_the_page_in_the_docs_is_that_of_the_results(tmp_path, name):
    results, page = HERE / "results" / f"{name}.json", HERE.parent / "docs" / f"{name}.md"
    if not results.exists():
        assert not page.exists()
        pytest.skip("there are no results on photographs yet")
    (tmp_path / name).mkdir()
    for path in page.with_suffix("").iterdir():
        (tmp_path / name / path.name).touch()
    again = tmp_path / f"{name}.md"
    study.render_page(json.loads(results.read_text()), again, config=HERE / f"{name}.yaml")
    assert again.read_text() == page.read_text()


# ---------------------------------------------------------------------------------------------
# The page
# ---------------------------------------------------------------------------------------------


def test_the_page_compares_the_picks_with_each_other_arm():
    record = json.loads((HERE / "results" / "photos32.json").read_text("utf-8"))
    page = photos.render(findings.Results(record), command="c", figures={}, folder="f")
    section = page.split("## Does it matter which backbones?")[1].split("## By judge")[0]
    first = record["study"]["evaluators"][0]
    distances = {
        (run["arm"], run["seed"]): run["judged"]["last"][first]["all"]["frechet"]
        for run in record["runs"]
    }
    seeds = [seed for arm, seed in distances if arm == "random-resnet18"]
    assert len(seeds) > 1
    ratios = [distances["random-resnet18", s] / distances["progressive", s] for s in seeds]
    assert f"| `random-resnet18` | {math.prod(ratios) ** (1 / len(ratios)):.2f} (" in section
    assert "`none`" not in section
