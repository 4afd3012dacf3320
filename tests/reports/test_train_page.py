"""The page of a training run, finished or cut off."""

import html
import json
import re

import pytest
from PIL import Image

from probe.reports.train_page import train_page

TINY = ("--batch", "4", "--tick", "0.02", "--snap", "1", "--channel-base", "128",
        "--channel-max", "8", "--z-dim", "8", "--w-dim", "8", "--eval-num", "0",
        "--rank-num", "32")  # fmt: skip


@pytest.fixture
def run(cli, reals, bank, tmp_path):
    result = cli(
        "train", "--real", reals, "--outdir", tmp_path / "runs", "--bank", bank, "--offline",
        "--strategy", "fixed", "--k", "1", "--stage-kimg", "0.04,0.04", "--holdout", "20",
        "--track-probes", *TINY,
    )  # fmt: skip
    assert result.code == 0, result.err
    return tmp_path / "runs" / "00000-reals"


def test_it_has_curves_images_and_what_was_chosen(run):
    page = html.unescape((run / "report.html").read_text("utf-8"))
    added = json.loads((run / "selection-stage1.json").read_text())["added"]
    for words in ("Own discriminator", f"Discriminator on {added[0]}", "held-out images",
                  "Probe scores", "Augmentation strength p", "Generator's loss",
                  "Training images", "Before training", f"Stage 1: {added[0]}", "0.08 kimg",
                  "finished", f"1, at 0.04 kimg: {added[0]} joins."):  # fmt: skip
        assert words in page, words
    captions = re.findall(r"<figcaption>([^<\n]*kimg)</figcaption>", page)
    assert captions == ["0.02 kimg", "0.04 kimg", "0.06 kimg", "0.08 kimg"]
    assert page.count('class="mark"') >= 5  # the stage, in every figure
    assert "https://" not in page and "default-src 'none'" in page
    assert len(page) < 5_000_000


def test_a_run_that_goes_on_has_one_too(run, cli):
    """A kill may cut a line; the last snapshots may not be there yet."""
    whole = (run / "stats.jsonl").read_text()
    (run / "stats.jsonl").write_text(whole[:-30])
    for path in [*run.glob("selection*"), *run.glob("fakes*"), run / "metric-accuracy.jsonl"]:
        path.unlink()
    progress = json.loads((run / "progress.json").read_text())
    (run / "progress.json").write_text(json.dumps({**progress, "finished": False, "kimg": 0.06}))
    assert cli("report", run).code == 0
    page = (run / "report.html").read_text("utf-8")
    assert "0.06 kimg (of 0.08)" in page and "Which backbones were chosen" not in page


def test_a_run_that_has_just_begun_has_one_too(run):
    for path in run.iterdir():
        if path.name != "training_options.json":
            path.unlink()
    assert "Nothing is recorded yet" in train_page(run)


def test_a_damaged_run_is_named(run, cli):
    (run / "training_options.json").write_text("{")
    result = cli("report", run)
    assert result.code == 1 and str(run) in result.err and "damaged" in result.err


def test_large_grids_are_made_small(run):
    Image.effect_noise((6000, 4000), 80).convert("RGB").save(run / "fakes000001.png")
    assert len(train_page(run)) < 2_000_000
