"""The page that compares training runs."""

import html
import json
import re
import shutil

import pytest
from inputs import write_images, write_judged_bank

import probe

TINY = {"batch": 4, "tick": 0.02, "snap": 1, "channel_base": 128, "channel_max": 8, "z_dim": 8,
        "w_dim": 8, "eval_num": 20, "rank_num": 32}  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    place = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROBE_CACHE_DIR", str(place / "cache"))
        reals = write_images(place / "reals", 60, seed=1)
        bank = write_judged_bank(place)
        for options in (
            {"strategy": "none", "kimg": 0.04},
            {"strategy": "fixed", "k": 1, "gamma": 3.0, "stage_kimg": "0.02,0.02"},
        ):
            config = probe.TrainConfig(**options, **TINY)
            probe.train(reals, outdir=place / "runs", config=config, bank=bank, offline=True)
    return place / "runs"


@pytest.fixture
def runs(trained, tmp_path):
    return sorted(shutil.copytree(trained, tmp_path / "runs").iterdir())


def least(run) -> float:
    lines = (run / "metric-frechet-mixed.jsonl").read_text().splitlines()
    return min(json.loads(line)["results"]["frechet-mixed"] for line in lines)


def cells(page: str, name: str) -> list[str]:
    """Return the cells of the row of a table whose first cell is a name."""
    row = next(r for r in re.findall(r"<tr.*?</tr>", page, re.DOTALL)
               if re.search(rf"<t[dh][^>]*>{re.escape(name)}<", r))  # fmt: skip
    return [html.unescape(c).strip() for c in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row)]


def test_it_has_the_best_distances_what_differs_and_a_curve_of_each(runs, cli):
    result = cli("report", *runs)
    path = runs[0].parent / "comparison.html"
    assert result.code == 0 and result.out.strip() == str(path)
    page = path.read_text("utf-8")
    best = min(runs, key=least)
    assert f"{best.name} has the least Fréchet distance in mixed: {least(best):.1f}" in page
    for run in runs:
        assert cells(page, run.name)[3] == f"{least(run):.1f}"
    added = json.loads((runs[1] / "selection-stage1.json").read_text())["added"]
    assert cells(page, runs[1].name)[-1] == f"{added[0]} 0.02"
    assert cells(page, "--strategy")[1:] == ["none", "fixed"]
    assert cells(page, "--gamma")[2] == "3" and "--batch" not in page
    for title in ("Fréchet distance", "Kernel distance", "Precision", "Recall", "R1 penalty",
                  "Generator's loss", "Own discriminator on generated images"):  # fmt: skip
        (figure,) = [f for f in re.findall(r"<figure>.*?</figure>", html.unescape(page), re.DOTALL)
                     if f"<h3>{title}</h3>" in f]  # fmt: skip
        assert {"line c0", "line c1"} <= set(re.findall(r'<path class="(line c.)"', figure)), title
    assert "https://" not in page and "default-src 'none'" in page


def test_runs_that_do_not_compare_are_not_compared(runs, cli, tmp_path):
    path = runs[0] / "training_options.json"
    options = json.loads(path.read_text())
    path.write_text(json.dumps({**options, "options": {**options["options"], "eval_num": 40}}))
    out = tmp_path / "page.html"
    assert cli("report", *runs, "--out", out).code == 0
    page = out.read_text("utf-8")
    assert "differ in --eval-num: their distances" in page and "has the least" not in page


def test_what_cannot_be_compared_is_refused_by_name(runs, cli, tmp_path, bank, fakes, reals):
    ranking = tmp_path / "ranking"
    cli("rank", "--real", reals, "--gen", fakes, "--bank", bank, "--offline", "--out", ranking)
    for wrong, words in ((ranking, "is a ranking"), (runs[0], "is named twice"),
                         (reals, "holds no run")):  # fmt: skip
        result = cli("report", *runs, wrong)
        assert result.code == 1 and words in result.err and str(wrong) in result.err
    (runs[1] / "selection-stage1.json").write_text("{")
    result = cli("report", *runs)
    assert result.code == 1 and str(runs[1]) in result.err and "damaged" in result.err
