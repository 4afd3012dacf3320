"""The page of a training run, finished or cut off."""

import html
import json
import re
import shutil

import pytest
from inputs import write_bank, write_images
from PIL import Image

import probe
from probe.events import SnapshotStarted
from probe.reports.train_page import train_page

TINY = {"batch": 4, "tick": 0.02, "snap": 1, "channel_base": 128, "channel_max": 8, "z_dim": 8,
        "w_dim": 8, "eval_num": 0, "rank_num": 32}  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    place = tmp_path_factory.mktemp("trained")
    config = probe.TrainConfig(strategy="fixed", k=1, stage_kimg="0.04,0.04", holdout=20,
                               track_probes=True, **TINY)  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROBE_CACHE_DIR", str(place / "cache"))
        reals = write_images(place / "reals", 60, seed=1)
        bank = write_bank(place)
        probe.train(reals, outdir=place / "runs", config=config, bank=bank, offline=True)
    return place / "runs" / "00000-reals"


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "runs" / "00000-reals")


def test_it_has_curves_images_and_what_was_chosen(run):
    page = html.unescape((run / "report.html").read_text("utf-8"))
    added = json.loads((run / "selection-stage1.json").read_text())["added"]
    for words in ("Own discriminator", f"Discriminator on {added[0]}", "held-out images",
                  "Probe scores", "Augmentation strength p", "Generator's loss",
                  "Training images", "Before training", f"Stage 1: {added[0]}", "0.08 kimg",
                  "Discriminators' loss", "R1 penalty", "finished"):  # fmt: skip
        assert words in page, words
    captions = re.findall(r"<figcaption>([^<\n]*kimg[^<\n]*)</figcaption>", page)
    late = f", with {added[0]}"
    assert captions == ["0.02 kimg", "0.04 kimg", f"0.06 kimg{late}", f"0.08 kimg{late}"]
    assert re.search(rf'<td class="name">{added[0]}</td><td class="n">0.04</td>', page)
    assert "data-reload" not in page.partition("<body")[2].partition(">")[0]
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
    assert "<body data-reload=30>" in page and "The run is not finished" in page
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


def test_it_is_written_at_every_snapshot_of_a_run(reals, tmp_path):
    pages = []

    def see(event):
        if isinstance(event, SnapshotStarted):
            path = next((tmp_path / "runs").iterdir()) / "report.html"
            pages.append(path.read_text("utf-8") if path.exists() else "")

    config = probe.TrainConfig(kimg=0.06, **TINY)
    probe.train(reals, outdir=tmp_path / "runs", config=config, offline=True, on_event=see)
    assert pages[0] == "" and "0.02 kimg (of 0.06)" in pages[1] and "0.04 kimg (of" in pages[2]
    assert all("<body data-reload=30>" in page for page in pages[1:])
