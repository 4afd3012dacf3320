"""The study without its training: configurations, statistics, processes, page."""

import copy
import json
import math
import os
import signal
import threading
import time
from pathlib import Path

import execute
import findings
import intervals
import jobs
import numpy as np
import pytest
import samples
import study
import torch
import yaml
from page import render
from plan import HERE, read_study
from records import read_training, to_frame
from runs import differences, saved
from scipy import stats
from warmup import go_on_from, shared_warmups
from weights import prepare_bank

from probe.bank.file import load_bank
from probe.bank.load import load_backbone
from probe.errors import UsageError
from probe.events import RunPlanned
from probe.images.grid import save_grid
from probe.images.open import open_images
from probe.metrics.frechet import FrechetReference

# ---------------------------------------------------------------------------------------------
# Configurations
# ---------------------------------------------------------------------------------------------


def configurations():
    return [p for p in sorted(HERE.glob("*.yaml")) if "groups" in yaml.safe_load(p.read_text())]


def test_every_configuration_is_found():
    assert {"study.yaml", "quick.yaml"} <= {p.name for p in configurations()}


@pytest.mark.parametrize("path", configurations(), ids=lambda p: p.name)
def test_configurations_are_what_the_trainer_takes(path):
    study = read_study(path)
    bank = {spec.name for spec in load_bank(HERE / "bank.yaml").specs}
    controls = {name.partition("#")[0] for name in bank if "#" in name}
    lengths = set()
    for run in study.runs:
        lengths.add(run.kimg)
        assert set(run.backbones) <= bank | controls
        assert not set(run.backbones) & set(study.evaluators), "a judge would be trained against"
        assert run.config.holdout == 1000 - run.images
    assert len(lengths) == 1, "arms are compared at equal numbers of images"


def test_the_order_begins_with_what_tells_most():
    names = [run.name for run in read_study(HERE / "study.yaml").runs]
    assert names[:2] == ["500-none-s0", "500-progressive-s0"]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.update(evaluator="x"), "unknown in the file: evaluator"),
        (lambda c: c.pop("fakes"), "missing in the file: fakes"),
        (lambda c: c["groups"][0].update(arms=["nobody"]), "no arm 'nobody'"),
        (lambda c: c["train"].update(bach=3), "bach"),
        (lambda c: c["train"].update(seed=3), "none of"),
        (lambda c: c["arms"]["none"].update(kimg=-1), "--kimg"),
    ],
)
def test_mistakes_are_found_before_anything_starts(tmp_path, change, words):
    record = yaml.safe_load((HERE / "quick.yaml").read_text())
    change(record)
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump(record))
    with pytest.raises(UsageError, match=words):
        read_study(path)


def test_runs_are_chosen_by_group_and_pattern():
    study = read_study(HERE / "study.yaml")
    assert [r.name for r in study.select(["first"])] == ["500-none-s0", "500-progressive-s0"]
    assert {r.arm for r in study.select(["100-none-*"])} == {"none"}
    assert len(study.select([])) == len(study.runs)
    with pytest.raises(UsageError, match="fits no run"):
        study.select(["999-*"])


def test_a_control_as_a_file_is_the_products_control(tmp_path):
    import torch

    from probe.bundled import BN_IMAGES

    bank = {spec.name: spec for spec in load_bank(prepare_bank(tmp_path, [])).specs}
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    name = "random-resnet18"
    ours = load_backbone(bank[name], offline=True)
    theirs = load_backbone(bank[f"{name}#0"], offline=True, bn_images=open_images(BN_IMAGES))
    assert bank[name].role == "candidate"
    torch.testing.assert_close(ours(images), theirs(images), rtol=1e-4, atol=1e-4)


# ---------------------------------------------------------------------------------------------
# Statistics
# ---------------------------------------------------------------------------------------------


def test_mean_interval_is_students():
    values = [1.2, 1.5, 1.1, 1.9]
    found = intervals.mean_interval(values, geometric=True)
    logs = np.log(values)
    low, high = stats.t.interval(0.95, 3, logs.mean(), stats.sem(logs))
    assert (found.value, found.low, found.high) == pytest.approx(
        (math.exp(logs.mean()), math.exp(low), math.exp(high))
    )
    assert intervals.mean_interval([2.0]).low is None


def test_image_interval_holds_the_ratio_and_narrows_with_images():
    rng = np.random.default_rng(0)

    def found(n):
        reals = rng.normal(size=(n, 6))
        return intervals.image_interval(
            reals, rng.normal(size=(n, 6)) + 1.0, rng.normal(size=(n, 6)) + 0.5
        )

    few, many = found(200), found(4000)  # the truth: squared shifts, 6 against 1.5
    assert few.low < 4 < few.high and many.low < 4 < many.high
    assert many.high / many.low < few.high / few.low


def test_image_interval_is_about_the_whole_tables_ratio():
    rng = np.random.default_rng(1)
    reals, a, b = (
        rng.normal(size=(300, 5)),
        rng.normal(size=(300, 5)) + 1,
        rng.normal(size=(300, 5)) * 2,
    )
    reference = FrechetReference(reals)
    found = intervals.image_interval(reals, a, b)
    assert found.value == pytest.approx(reference.distance(a) / reference.distance(b))


@pytest.mark.parametrize("n", [4, 6, 12])
def test_rank_correlation_is_spearmans(n):
    rng = np.random.default_rng(n)
    x = rng.normal(size=n)
    y = x + rng.normal(size=n)
    found = intervals.rank_correlation(x, y)
    expected = stats.spearmanr(x, y)
    assert found.rho == pytest.approx(expected.statistic)
    assert found.low <= found.rho <= found.high and found.high - found.low > 0.2
    exact = stats.permutation_test(
        (x,), lambda a: stats.spearmanr(a, y).statistic, permutation_type="pairings",
        n_resamples=np.inf if n < 8 else 2000, rng=np.random.default_rng(0),
    )  # fmt: skip
    assert found.p == pytest.approx(exact.pvalue, abs=0.02 if n > 8 else 1e-9)


def test_rank_correlation_of_too_little_is_none():
    assert intervals.rank_correlation([1, 2], [3, 4]) is None
    assert intervals.rank_correlation([1, 1, 1, 1], [3, 4, 5, 6]) is None
    assert intervals.rank_correlation([1, 2, 3], [3, 4, 5]).low is None


# ---------------------------------------------------------------------------------------------
# Processes
# ---------------------------------------------------------------------------------------------


def run_jobs(tmp_path, codes, **options):
    said = []
    commands = {name: ["-c", code] for name, code in codes.items()}
    logs = {name: tmp_path / name / "log.txt" for name in codes}
    failed = jobs.run_all(
        commands, logs, **{"jobs": 2, "threads": 1, "say": said.append, **options}
    )
    return failed, said, logs


def test_a_failing_run_does_not_stop_the_others(tmp_path):
    failed, said, logs = run_jobs(
        tmp_path,
        {
            "one": "import os; print(os.environ['OMP_NUM_THREADS'])",
            "two": "raise SystemExit('no luck')",
            "three": "print('fine')",
        },
    )
    assert failed == ["two"]
    assert any("two: FAILED" in line and "no luck" in line for line in said)
    assert logs["one"].read_text().strip() == "1" and "fine" in logs["three"].read_text()


def test_stopping_ends_the_runs_and_leaves_the_signals_as_they_were(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    threading.Timer(1.5, lambda: os.kill(os.getpid(), signal.SIGTERM)).start()
    started = time.monotonic()
    with pytest.raises(jobs.Stopped):
        run_jobs(tmp_path, {"long": "import time; time.sleep(60)"})
    assert time.monotonic() - started < 20
    assert signal.getsignal(signal.SIGTERM) is before


# ---------------------------------------------------------------------------------------------
# Results and page
# ---------------------------------------------------------------------------------------------

STUDY = read_study(HERE / "study.yaml")
BANK = ("efficientnet-lite0", "efficientnet-lite1", "mobilenetv2", "craft-vgg16")


def made_up(run, distance, score):
    """A result as `execute` writes it."""
    single = run.config.strategy == "fixed"
    joined = {"none": [], "progressive": [(8, "mobilenetv2"), (24, "craft-vgg16")]}.get(
        run.arm, [(8, run.arm)]
    )
    measured = {
        **{
            part: {"frechet": distance * k, "kernel": distance / 1000, "kernel_low": 0.0,
                   "kernel_high": 1.0}
            for part, k in (("all", 1.0), ("training", 0.9), ("holdout", 1.1))
        },
        "neighbours": {"precision": 0.5, "recall": 0.4, "density": 0.6, "coverage": 0.3},
    }  # fmt: skip
    kimgs = (8.0, 24.0, 48.0)
    selection = {
        "stage": 1, "kimg": 8.0, "added": [run.arm], "snapshot": "best",
        "scores": {run.arm: {"score": score, "score_low": score, "score_high": score,
                             "accuracy": 0.97}},
    }  # fmt: skip
    return {
        "run": run.name, "arm": run.arm, "group": run.group, "images": run.images, "seed": run.seed,
        "training": {
            "series": [{"kimg": 48.0, "Loss/D/loss": 0.7, "Loss/G/loss": 1.5}],
            "snapshots": [
                {"kimg": k, "frechet": 200 + run.seed if k == 8 else distance * (2 - k / 48),
                 "accuracy": {"D/train": 0.9, "D/holdout": 0.5, "D/fake": 0.8}}
                for k in kimgs
            ],
            "selections": [selection] if single else [],
            "probes": [
                {"kimg": k, "scores": {name: -0.01 * i - 0.001 * k for i, name in enumerate(BANK)}}
                for k in kimgs
            ] if run.config.track_probes else [],
            "joined": [{"kimg": k, "name": name} for k, name in joined],
            "best_kimg": 48.0,
        },
        "judged": {"last": dict.fromkeys(STUDY.evaluators, measured)},
        "floor": {name: {"frechet": 30.0, "kernel": 0.0002, **measured["neighbours"]}
                  for name in STUDY.evaluators},
        "precision": "bf16",
        "seconds": {"steps": 1000.0, "judging": 100.0},
        "machine": {"cpu": "a processor", "cores": 2, "threads": 1},
        "versions": {"python": "3", "probe": "0", "commit": "abc"},
    }  # fmt: skip


def made_up_study(runs, distances):
    arms = list(STUDY.arms)
    results = [
        made_up(r, distances(r) * (1 + 0.05 * r.seed), -0.001 * (1 + arms.index(r.arm)))
        for r in runs
    ]
    plain = {k: v for k, v in vars(STUDY).items() if k not in ("path", "runs")}
    done = {r["run"] for r in results}
    return {
        "schema": 1,
        "study": {**json.loads(json.dumps(plain)), "name": "study"},
        "runs": results,
        "missing": [r.name for r in STUDY.runs if r.name not in done],
        "intervals": {"500-progressive-s0": {"value": 2.0, "low": 1.9, "high": 2.1, "n": 5000}},
    }


def distances(run):
    arms = list(STUDY.arms)
    return {"none": 200.0, "progressive": 100.0}.get(run.arm, 100.0 + 5 * arms.index(run.arm))


def page_of(record, figures=None):
    return render(findings.Results(record), command="repeat", figures=figures or {}, folder="study")


def test_ratios_and_correlations_are_those_of_the_results():
    results = findings.Results(made_up_study(STUDY.runs, distances))
    ratio = results.ratio(500, "progressive")
    assert ratio["value"] == pytest.approx(2) and ratio["n"] == 3
    assert ratio["images"][0]["low"] == 1.9 and ratio["images"][1] is None
    assert results.ratio(500, "progressive", part="training")["value"] == pytest.approx(2)
    assert results.warmup_spread() == 0
    points = {p["arm"]: p for p in results.points(500)}
    assert len(points) == 6 and points["mobilenetv2"]["seeds"] == [0, 1]
    assert results.ratio(500, "mobilenetv2", seeds=[1])["n"] == 1
    # Scores fall and distances grow down the list of arms: the claim's own order.
    assert results.correlations(500)[0]["rho"] == pytest.approx(-1)
    assert results.correlations(500)[1]["n"] == 4


def test_a_whole_page_says_what_the_results_say():
    text = page_of(made_up_study(STUDY.runs, distances))
    assert f"{len(STUDY.runs)} of {len(STUDY.runs)} runs are finished." in text
    assert (
        "2.00 times" in text and "is reached" in text and "Not yet" not in text.split("Samples")[0]
    )
    assert "a higher score went with a smaller distance" in text
    assert "the probe score fell for 8 of 8 backbones" in text
    assert "## Why not" not in text
    for line in text.splitlines():
        assert not line.startswith("|") or line.endswith("|")


def test_a_page_of_a_study_that_has_just_begun_names_what_is_missing():
    text = page_of(made_up_study(STUDY.runs[:2], distances))
    assert f"2 of {len(STUDY.runs)} runs" in text and "`500-none-s1`" in text
    assert "interval over images, not over seeds: 1.90 to 2.10" in text
    assert "Not yet: it needs finished runs with a single backbone." in text
    assert page_of(made_up_study([], distances)).count("##") == 0
    assert "## In short" in page_of(made_up_study(STUDY.runs[:1], distances))


def test_a_missed_factor_is_said_and_looked_into():
    record = made_up_study(STUDY.runs, lambda run: 100.0 if run.arm != "none" else 110.0)
    text = page_of(record)
    assert "The target factor of 1.3 is not reached." in text
    assert "## Why not 1.3 times?" in text


def test_results_that_speak_against_the_claim_are_said_as_plainly():
    arms = list(STUDY.arms)
    text = page_of(made_up_study(STUDY.runs, lambda run: 300.0 - 5 * arms.index(run.arm)))
    assert "against the claim" in text


def test_figures_are_the_same_bytes_twice(tmp_path):
    figures = pytest.importorskip("figures", reason="needs the extra 'study'")
    results = findings.Results(made_up_study(STUDY.runs, distances))
    first = figures.draw_all(results, tmp_path / "one")
    assert set(first) == set(figures.FIGURES)
    figures.draw_all(findings.Results(copy.deepcopy(results.record)), tmp_path / "two")
    for name in first.values():
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert figures.draw_all(findings.Results(made_up_study([], distances)), tmp_path / "none") == {}


def test_a_frame_has_a_row_per_judge():
    record = made_up_study(STUDY.runs[:2], distances)
    frame = to_frame(record["runs"])
    assert len(frame) == 2 * len(STUDY.evaluators)
    assert set(frame.frechet_all) == {200.0, 100.0}


def test_a_run_directory_becomes_a_record(tmp_path):
    def lines(name, *records):
        (tmp_path / name).write_text("".join(json.dumps(r) + "\n" for r in records))

    lines(
        "stats.jsonl",
        {"kimg": 8.0, "Loss/D/loss": {"mean": 0.5}, "Timing/sec_per_kimg": {"mean": 10.0}},
    )
    for kind, values in (("frechet", (200.0, 90.0)), ("kernel", (0.2, 0.1))):
        lines(
            f"metric-{kind}-judge.jsonl",
            *({"kimg": k, "results": {f"{kind}-judge": v, "low": 0.0}}
              for k, v in zip((8.0, 24.0), values, strict=True)),
        )  # fmt: skip
    lines("metric-accuracy.jsonl", {"kimg": 8.0, "results": {"Accuracy/D/train": 0.9}})
    row = {"name": "b", "role": "candidate", "score": -0.1, "score_low": -0.2,
           "score_high": 0.0, "accuracy": 0.98}  # fmt: skip
    selection = {"stage": 1, "added": ["b"], "snapshot": "s", "leaderboard": {"rows": [row]}}
    (tmp_path / "selection-stage1.json").write_text(json.dumps(selection))
    run = STUDY.run("500-progressive-s0")
    found = read_training(tmp_path, run)
    assert found["joined"] == [{"kimg": run.warmup, "name": "b"}]
    assert found["best_kimg"] == 24.0
    assert found["snapshots"][0] == {
        "kimg": 8.0, "frechet": 200.0, "kernel": 0.2, "accuracy": {"D/train": 0.9}
    }  # fmt: skip
    assert found["selections"][0]["scores"]["b"]["accuracy"] == 0.98


def test_a_result_of_other_options_is_refused_and_one_judged_otherwise_is_judged_again(tmp_path):
    run = STUDY.runs[0]
    folder = execute.run_folder(tmp_path, run)
    folder.mkdir(parents=True)

    def write(**changes):
        record = {"identity": {**execute.identity(STUDY, run), **changes}}
        (folder / "result.json").write_text(json.dumps(record))

    assert execute.finished_result(tmp_path, STUDY, run) is None
    write()
    assert execute.finished_result(tmp_path, STUDY, run) is not None
    for key in ("fakes", "judges"):
        write(**{key: 17})
        assert execute.finished_result(tmp_path, STUDY, run) is None
    write(threads=17)
    with pytest.raises(UsageError, match="other options"):
        execute.finished_result(tmp_path, STUDY, run)


@pytest.fixture
def tiny_study(tmp_path, bank):
    """Two arms on the bundled images that share a warm-up of sixteen images, and their folder."""
    record = yaml.safe_load((HERE / "quick.yaml").read_text())
    record["train"] |= {
        "batch": 4, "channel_base": 128, "channel_max": 8, "z_dim": 8, "w_dim": 8, "map_layers": 2,
        "eval_num": 0, "rank_num": 40, "tick": 0.008, "snap": 2,
    }  # fmt: skip
    record["evaluators"], record["probe_seeds"] = [], [0]
    record["arms"] = {
        "none": {"strategy": "none", "kimg": 0.032, "backbones": ["colour", "edges"]},
        "colour": {
            "strategy": "fixed", "k": 1, "stage_kimg": "0.016,0.016", "backbones": ["colour"],
        },
    }  # fmt: skip
    record["groups"] = [{"name": "all", "images": 500, "arms": ["none", "colour"], "seeds": [0]}]
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(record))
    out = tmp_path / "out"
    out.mkdir()
    bank.rename(out / "bank.yaml")
    for weights in tmp_path.glob("*.pt"):
        weights.rename(out / weights.name)
    return read_study(path), out


def test_runs_that_share_a_warmup_are_those_that_each_make_their_own(tiny_study, tmp_path):
    study, out = tiny_study
    alone = {run.name: execute.train(study, run, out) for run in study.runs}
    (tmp_path / "out" / "runs").rename(tmp_path / "alone")
    (warmup,) = shared_warmups(study, study.runs)
    execute.train(study, study.run(warmup.name), out)
    for run in study.runs:
        theirs = tmp_path / "alone" / run.name / "train" / alone[run.name].name
        ours = execute.train(study, run, out)
        log = (ours / "training_options.json").read_text()
        assert json.loads(log)["options"]["strategy"] == run.config.strategy
        assert differences(saved(theirs), saved(ours)) == []
        for name in ("metric-accuracy.jsonl", "probes.jsonl"):
            assert (theirs / name).exists() == (ours / name).exists()
            if (ours / name).exists():
                assert _results(ours / name) == _results(theirs / name)
        losses = [
            [{k: v for k, v in r.items() if k.startswith(("Loss/", "kimg"))} for r in
             map(json.loads, (folder / "stats.jsonl").read_text().splitlines())]
            for folder in (theirs, ours)
        ]  # fmt: skip
        assert losses[0] == losses[1]


def _results(path):
    records = [json.loads(line) for line in path.read_text().splitlines()]
    return [{k: v for k, v in r.items() if k in ("kimg", "results", "scores")} for r in records]


def test_a_run_goes_on_from_the_warmup_once(tiny_study):
    study, out = tiny_study
    (warmup,) = shared_warmups(study, study.runs)
    finished = execute.train(study, warmup, out)
    run = study.runs[0]
    folder = out / "mine"
    folder.mkdir()
    plan = RunPlanned(str(folder), None, (), {"digest": "mine"})
    assert go_on_from(finished, run, plan)
    assert saved(folder)["digest"] == "mine"
    assert saved(folder)["images"] == 16
    assert not (folder / "progress.json").exists()
    assert not go_on_from(finished, run, plan), "a state of its own was overwritten"


def test_arms_that_begin_otherwise_share_no_warmup(tiny_study):
    study, _ = tiny_study
    record = yaml.safe_load(study.path.read_text())
    record["arms"]["colour"]["gamma_heads"] = 5.0  # of no weight before the first backbone
    study.path.write_text(yaml.safe_dump(record))
    assert len(shared_warmups(read_study(study.path), read_study(study.path).runs)) == 1
    record["arms"]["colour"]["gamma"] = 5.0
    study.path.write_text(yaml.safe_dump(record))
    changed = read_study(study.path)
    assert changed.warmup_of(changed.run("500-colour-s0")) is None
    assert shared_warmups(changed, changed.runs) == []


def test_a_warmup_of_other_options_is_refused(tiny_study):
    study, out = tiny_study
    (warmup,) = shared_warmups(study, study.runs)
    execute.train(study, warmup, out)
    record = yaml.safe_load(study.path.read_text())
    study.path.write_text(yaml.safe_dump({**record, "threads": 17}))
    changed = read_study(study.path)
    with pytest.raises(UsageError, match="other options"):
        execute.train(changed, changed.runs[0], out)


def test_only_what_is_shared_is_made_first():
    names = {w.name for w in shared_warmups(STUDY, STUDY.runs)}
    assert names == {f"{n}-warmup-s{s}" for n in (100, 500) for s in (0, 1, 2)}
    assert shared_warmups(STUDY, STUDY.runs[:1]) == []


def test_results_from_another_machine_are_gone_on_with(tmp_path):
    here, other = STUDY.runs[:2]
    results = [
        {"run": here.name, "identity": execute.identity(STUDY, here)},
        {"run": other.name, "identity": {**execute.identity(STUDY, other), "fakes": 17}},
        {"run": "500-gone-s0", "identity": {}},
    ]
    record = {"schema": 1, "runs": results, "intervals": {"a": {"of": [1, 2]}}}
    (tmp_path / "study.json").write_text(json.dumps(record))
    out = tmp_path / "runs"
    study.restore(STUDY, out, tmp_path)
    assert execute.finished_result(out, STUDY, here) == results[0]
    assert execute.finished_result(out, STUDY, other) is None
    assert json.loads((out / "intervals.json").read_text()) == record["intervals"]


def test_tiles_of_samples_are_read_as_they_were_written(tmp_path):
    images = torch.randint(0, 256, (32, 3, 8, 8), dtype=torch.uint8)
    save_grid(tmp_path / "tile.png", images, columns=samples.COLUMNS)
    assert (samples._untile(tmp_path / "tile.png") == images.numpy()).all()


def test_the_page_in_the_docs_is_that_of_the_results(tmp_path):
    results, page = HERE / "results" / "study.json", HERE.parent / "docs" / "study.md"
    if not results.exists():
        assert not page.exists()
        pytest.skip("the study has no results yet")
    pytest.importorskip("matplotlib", reason="needs the extra 'study'")
    (tmp_path / "study").mkdir()
    if (page.with_suffix("") / "samples.png").exists():
        (tmp_path / "study" / "samples.png").touch()
    study.render_page(json.loads(results.read_text()), tmp_path / "study.md", config=STUDY.path)
    assert (tmp_path / "study.md").read_text() == page.read_text()


def test_every_file_is_in_the_readme():
    text = (HERE / "README.md").read_text()
    names = [p.name for p in Path(HERE).iterdir() if p.suffix in (".py", ".yaml")]
    assert len(names) > 10
    assert [name for name in names if f"`{name}`" not in text] == []
