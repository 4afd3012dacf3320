"""Verdicts: what the numbers mean, in sentences that say what to do, and are true."""

import json

import numpy as np
import pytest
import torch
from inputs import ENTRY, write_bank, write_images
from PIL import Image

import probe
from probe.probing.growth import POWER, times_needed


def drawn(shifts, n=100, seed=0, d=4):
    """Return features of backbones that see the fakes shifted more or less, half of them shared."""
    rng = np.random.default_rng([seed, n])
    common, features = rng.standard_normal((2 * n, d // 2)), {}
    for name, shift in shifts.items():
        x = np.hstack([common, rng.standard_normal((2 * n, d - d // 2))])
        x[n:, -1] += shift
        features[name] = (x[:n], x[n:])
    return features


def board_of(shifts, protocol="fair", **values):
    options = probe.RankOptions(protocol=protocol)
    return probe.rank_features(drawn(shifts, **values), options=options).leaderboard


def kinds(board):
    return [verdict.kind for verdict in board.verdicts]


def test_a_clear_order_needs_no_words():
    assert kinds(board_of({"clear": 3.0, "dim": 1.0})) == []


def test_saturated():
    board = board_of({"a": 12.0, "b": 14.0})
    assert kinds(board) == ["saturated"] and "fewer images (--num)" in board.verdicts[0].sentence
    assert kinds(board_of({"a": 12.0, "dim": 1.0})) == []


def test_no_winner_names_no_flag_that_features_do_not_have():
    (verdict,) = board_of({"a": 0.0, "b": 0.0}).verdicts
    assert verdict.kind == "no-winner" and "--near-duplicates" not in verdict.sentence


def test_a_null_row_below_chance():
    """Without regularisation on loud features, a probe is sure of what is not there."""
    real, fake = np.random.default_rng(0).standard_normal((2, 60, 64)) * 30
    fake[:, 0] += 200
    options = probe.RankOptions(protocol="both")
    boards = probe.rank_features({"loud": (real, fake)}, options=options).leaderboards
    (verdict,) = [v for v in boards["paper"].verdicts if v.kind.startswith("null")]
    assert verdict.kind == "null-below" and "--protocol fair" in verdict.sentence
    assert "null-below" not in kinds(boards["fair"])


def test_too_few_is_true_to_its_word():
    """A difference well below what the verdict names is mostly missed, one well above it found."""
    told, smallest, gaps = {}, [], {}
    for shift in (1.2, 2.0):
        boards = [board_of({"one": 1.0, "other": shift}, seed=seed) for seed in range(14)]
        told[shift] = np.mean([not board.rows[0].tied for board in boards])
        scores = [{row.name: row.score for row in board.rows} for board in boards]
        gaps[shift] = np.mean([score["other"] - score["one"] for score in scores])
        for board in boards:
            assert board.rows[0].tied == bool({"too-few", "no-winner"}.intersection(kinds(board)))
            smallest += [v.value for v in board.verdicts if v.kind == "too-few"]
    named = np.median(smallest)
    assert gaps[1.2] < 0.75 * named and told[1.2] <= 0.35
    assert gaps[2.0] > 1.5 * named and told[2.0] >= 0.8


@pytest.mark.parametrize("gap", [0.0, 0.5, 1.0, 1.9, 4.0])
def test_the_chance_of_the_images_that_are_named(gap):
    """Over true gaps around a measured one, and new draws at so many times the images."""
    bar, rng = 2.0, np.random.default_rng(0)
    times = times_needed(gap, bar)
    true = rng.normal(gap, 1, 40_000) * np.sqrt(times)
    told = np.mean(np.abs(rng.normal(true, 1)) > bar)
    assert told == pytest.approx(POWER, abs=0.01) if times > 1 else told > POWER


def test_images_that_are_named_tell_the_first_two_apart():
    """Drawn anew with as many images as the first ranking names."""
    told = []
    for seed in range(12):
        board = board_of({"one": 1.0, "other": 1.4}, seed=seed)
        for verdict in board.verdicts:
            if verdict.kind == "more-images" and verdict.value and verdict.value <= 4000:
                assert "images of each class would tell other from one" in verdict.sentence or (
                    "images of each class would tell one from other" in verdict.sentence
                )
                again = board_of({"one": 1.0, "other": 1.4}, n=int(verdict.value), seed=100 + seed)
                told.append(not again.rows[0].tied)
    assert len(told) >= 5 and np.mean(told) >= 0.7


def test_nothing_is_named_for_gaps_that_do_not_matter():
    features = drawn({"a": 1.0})
    real, fake = features["a"]
    noise = np.random.default_rng(1).standard_normal((2, *real.shape)) * 1e-3
    features["b"] = (real + noise[0], fake + noise[1])
    board = probe.rank_features(features).leaderboard
    assert kinds(board) == ["too-few"]


def test_every_view_has_the_sentences(cli, tmp_path):
    for name, (real, fake) in drawn({"one": 1.0, "other": 1.1}).items():
        np.savez(tmp_path / f"{name}.npz", real=real, fake=fake)
    command = ("rank", "--features", tmp_path / "one.npz", "--features", tmp_path / "other.npz")
    record = json.loads(cli(*command, "--format", "json").out)
    assert [v["kind"] for v in record["verdicts"]] == ["too-few", "more-images"]
    table = cli(*command, "--out", tmp_path / "out").out
    markdown = cli(*command, "--format", "markdown").out
    page = (tmp_path / "out" / "report.html").read_text()
    for verdict in record["verdicts"]:
        for view in (table, markdown, page):
            assert verdict["sentence"] in view
    board = probe.Leaderboard.from_dict(record)
    assert json.loads(json.dumps(board.to_dict())) == record
    del record["verdicts"]
    assert probe.Leaderboard.from_dict(record).verdicts == []


def test_encoding(cli, reals, bank, tmp_path):
    jpegs = tmp_path / "jpegs"
    jpegs.mkdir()
    for path in write_images(tmp_path / "fakes", 60, seed=2).iterdir():
        Image.open(path).save(jpegs / f"{path.stem}.jpg", quality=70)
    command = ("rank", "--real", reals, "--gen", jpegs, "--bank", bank, "--offline")
    record = json.loads(cli(*command, "--format", "json").out)
    (verdict,) = [v for v in record["verdicts"] if v["kind"] == "encoding"]
    said = "compression alone tells 100 % of the images apart"
    assert said in verdict["sentence"] and "--match-jpeg" in verdict["sentence"]
    out = tmp_path / "out"
    table = cli(*command, "--out", out)
    for view in (
        table.out,
        cli(*command, "--format", "markdown").out,
        (out / "report.html").read_text("utf-8"),
    ):
        assert view.count(said) == 1
    matched = json.loads(cli(*command, "--format", "json", "--match-jpeg").out)
    assert not [v for v in matched["verdicts"] if v["kind"] == "encoding"]


class Rims(torch.nn.Module):
    """Sees vertical edges, and so much the same as `Edges`."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        grey = x.mean(dim=1)
        grey = grey - grey.mean(dim=(1, 2), keepdim=True)
        return (grey[:, 1:] - grey[:, :-1]).abs().mean(dim=2)


def test_a_training_run_logs_them(cli, reals, tmp_path):
    bank = write_bank(tmp_path)
    torch.jit.script(Rims()).save(str(tmp_path / "rims.pt"))
    bank.write_text(bank.read_text() + ENTRY.format(name="rims"))
    done = cli(
        "train", "--real", reals, "--outdir", tmp_path, "--bank", bank, "--strategy", "fixed",
        "--k", "1", "--stage-kimg", "0.008,0.008", "--batch", "4", "--tick", "0.008", "--snap", "1",
        "--channel-base", "128", "--channel-max", "8", "--z-dim", "8", "--w-dim", "8",
        "--eval-num", "0", "--rank-num", "16",
    )  # fmt: skip
    assert done.code == 0, done.err
    folder = tmp_path / "00000-reals"
    record = json.loads((folder / "selection-stage1.json").read_text())
    verdicts = record["leaderboard"]["verdicts"]
    assert [v["kind"] for v in verdicts] == ["too-few", "more-images"]
    for verdict in verdicts:
        assert verdict["sentence"] in (folder / "log.txt").read_text("utf-8")
        assert verdict["sentence"] in (folder / "report.html").read_text("utf-8")
