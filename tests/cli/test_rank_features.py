"""`probe rank --features` and `probe.rank_features`: a leaderboard without images."""

import csv
import html
import json
import re
import shlex

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

import probe
from probe.errors import ImagesError, UsageError
from probe.features.store import FeatureStore
from probe.probing.leaderboard import Leaderboard


def drawn(seed=0, count=(60, 60), shifts=(("sees", 3.0), ("squints", 1.0), ("blind", 0.0))):
    """Return name → reals and fakes of backbones that see one shift more or less."""
    rng = np.random.default_rng(seed)
    tables = {}
    for i, (name, shift) in enumerate(shifts):
        real, fake = (rng.standard_normal((n, 6 + i)).astype(np.float32) for n in count)
        fake[:, 0] += shift
        tables[name] = (real, fake)
    return tables


@pytest.fixture
def files(tmp_path):
    """Two backbones' features, a file of each kind."""
    tables = drawn()
    np.savez_compressed(tmp_path / "sees.npz", real=tables["sees"][0], fake=tables["sees"][1])
    save_file(
        {"real": tables["blind"][0], "fake": tables["blind"][1]}, tmp_path / "blind.safetensors"
    )
    return tmp_path / "sees.npz", tmp_path / "blind.safetensors"


def test_the_scores_are_those_of_the_same_features_from_images(reals, fakes, bank, tmp_path):
    options = probe.RankOptions(num=50, protocol="both")
    ranking = probe.rank(reals, fakes, bank=bank, options=options, offline=True)
    store, features = FeatureStore(tmp_path / "cache"), {}
    for name, space in ranking.spaces.items():
        rows = store.space(space).read(ranking.keys)
        table = np.full((2, 60, rows.shape[1]), 7.0)  # of those that no ranking may look at
        for kind, part in zip((0, 1), (rows[:50], rows[50:]), strict=True):
            table[kind, ranking.indices[("real", "fake")[kind]]] = part
        features[name] = tuple(table)
    again = probe.rank_features(features, options=options)
    for protocol, results in ranking.results.items():
        for name, result in results.items():
            assert again.results[protocol][name].score == result.score
            np.testing.assert_array_equal(
                again.results[protocol][name].image_scores, result.image_scores
            )
    intervals = {r.name: (r.score_low, r.score_high) for r in ranking.leaderboard.rows}
    for row in again.leaderboard.rows:
        assert (row.score_low, row.score_high) == intervals[row.name]


def test_arrays_tensors_and_files_rank_alike(files):
    tables = drawn()
    arrays = {name: tables[name] for name in ("sees", "blind")}
    tensors = {name: tuple(map(torch.from_numpy, pair)) for name, pair in arrays.items()}
    wide = {name: tuple(x.astype(np.float64) for x in pair) for name, pair in arrays.items()}
    boards = [
        probe.rank_features(features).leaderboard
        for features in (arrays, tensors, wide, dict(zip(arrays, files, strict=True)))
    ]
    assert [row.name for row in boards[0].ranked] == ["sees", "blind"]
    assert boards[0].winner.name == "sees" and boards[0].winner.dim == 6
    for board in boards[1:]:
        assert board.rows == boards[0].rows
        assert board.config["real"] == boards[0].config["real"]


def test_unequal_numbers_become_equal_by_the_seed():
    features = drawn(count=(90, 60))
    ranking = probe.rank_features(features)
    assert (ranking.leaderboard.n_real, ranking.leaderboard.n_fake) == (60, 60)
    assert any("there are no more in fake features" in note for note in ranking.leaderboard.notes)
    assert ranking.captions[0] == f"real {ranking.indices['real'][0]}"
    other = probe.rank_features(features, options=probe.RankOptions(seed=1))
    assert sorted(other.indices["real"]) != sorted(ranking.indices["real"])
    fewer = probe.rank_features(features, options=probe.RankOptions(num=40))
    assert fewer.leaderboard.n_fake == 40 and fewer.indices["real"] == ranking.indices["real"][:40]


def test_rows_that_are_the_same_everywhere_are_copies():
    features = drawn()
    for real, _ in features.values():
        real[1] = real[0]
    (warning,) = [
        note for note in probe.rank_features(features).leaderboard.notes if "copies" in note
    ]
    assert "1 of 60 real images are copies" in warning and "real 0 = real 1" in warning
    for _, fake in features.values():
        fake[:] = fake[0]
    with pytest.raises(ImagesError, match="fake features: leaving out copies"):
        probe.rank_features(features)


def test_the_command_writes_what_a_ranking_writes(cli, files, tmp_path):
    out = tmp_path / "out"
    done = cli("rank", "--features", f"first={files[0]}", "--features", files[1], "--out", out,
               "--format", "json")  # fmt: skip
    assert done.code == 0, done.err
    board = Leaderboard.from_dict(json.loads(done.out))
    assert [row.name for row in board.ranked] == ["first", "blind"]
    assert board.resolution is None
    assert json.loads((out / "leaderboard.json").read_text()) == json.loads(done.out)
    scores = list(csv.DictReader((out / "scores.csv").open()))
    assert len(scores) == 2 * 120 and scores[0]["image"].startswith("real ")
    assert not (out / "probes.json").exists()
    page = (out / "report.html").read_text()
    assert "None px" not in page and "Map of features" in page and 'class="gallery"' not in page
    (command,) = re.findall(r"<pre>probe (rank .*)</pre>", page)
    again = cli(*shlex.split(html.unescape(command)), "--format", "json")
    assert again.out == done.out
    assert cli("report", out).code == 0
    table = cli("rank", "--features", files[0], "--features", files[1]).out
    assert table.startswith("fair protocol: 60 real and 60 generated images; score")


def test_a_repeated_ranking_fits_nothing(files, monkeypatch):
    features = dict(zip(("sees", "blind"), files, strict=True))
    first = probe.rank_features(features)
    monkeypatch.setattr("probe.probing.fit.evaluate", lambda *a, **k: pytest.fail("was fitted"))
    assert probe.rank_features(features).leaderboard == first.leaderboard


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--real", "reals"), "--real"),
        (("--bank", "bank.yaml", "--offline"), "--bank, --offline"),
        (("--device", "cpu", "--trunc", "0.5"), "--device, --trunc"),
        (("--match-jpeg", "--resolution", "64"), "--resolution, --match-jpeg"),
    ],
)
def test_flags_about_images_are_refused(cli, files, flags, named):
    done = cli("rank", "--features", files[0], *flags)
    assert done.code == 2 and done.err.startswith(f"Error: {named}: ")


def test_names(cli, files, tmp_path):
    assert cli("rank").err.startswith("Error: --real and --gen are needed")
    twice = cli("rank", "--features", files[0], "--features", f"sees={files[1]}")
    assert twice.code == 2 and "are both called 'sees'" in twice.err
    odd = files[0].rename(tmp_path / "a=b.npz")
    assert "cannot be a backbone's name" in cli("rank", "--features", odd).err
    assert cli("rank", "--features", f"fine={odd}").code == 0


FINE = np.random.default_rng(0).standard_normal((40, 4)).astype(np.float32)
NAN = np.where(np.arange(40)[:, None] == 3, np.nan, FINE)


@pytest.mark.parametrize(
    ("real", "fake", "why"),
    [
        (NAN, FINE, "one: 'real' has values that are NaN, infinite or beyond float32 in 1 of 40"),
        (FINE, FINE.astype(float) * 1e39, "one: 'fake' has values .* in 40 of 40 rows"),
        (FINE[:, 0], FINE, r"one: 'real' has the shape \(40,\)"),
        (FINE[:, :0], FINE, r"one: 'real' has the shape \(40, 0\)"),
        (FINE, FINE[:, :3], "one: 'real' has 4 features per row and 'fake' 3"),
        (FINE.astype(complex), FINE, "one: 'real' holds complex128"),
        (FINE.astype(str), FINE, "one: 'real' holds <U"),
        (FINE.astype(object), FINE, "one: 'real' holds object"),
        (FINE.tolist(), FINE, "one: 'real' is of type list"),
        (FINE[:15], FINE, "real features: 15 usable images are too few; at least 16"),
    ],
)
def test_arrays_that_are_no_features_are_refused(real, fake, why):
    with pytest.raises(ImagesError, match=why):
        probe.rank_features({"one": (real, fake)})


def test_backbones_must_have_the_same_rows():
    features = {"one": (FINE, FINE + 1), "other": (FINE[1:], FINE + 1)}
    with pytest.raises(ImagesError, match="other has 39 real and 40 fake rows, one 40 real and 40"):
        probe.rank_features(features)
    with pytest.raises(UsageError, match="No features are given"):
        probe.rank_features({})
    with pytest.raises(UsageError, match="one: features are two arrays"):
        probe.rank_features({"one": FINE})


def refused(cli, path):
    done = cli("rank", "--features", path)
    assert done.code == 1 and "Traceback" not in done.err
    assert done.err.startswith(f"Error: {path}"), done.err
    return done.err


def test_files_that_hold_no_features_are_refused(cli, tmp_path):
    path = tmp_path / "x.npz"
    assert "no such file" in refused(cli, path)
    path.write_bytes(b"no zip")
    assert "cannot be read" in refused(cli, path)
    np.savez(path, real=FINE, fakes=FINE)
    assert "no 'fake'; it holds 'fakes', 'real'" in refused(cli, path)
    np.savez(path, real=FINE, fake=np.array([{}], dtype=object))
    assert "'fake' holds Python objects" in refused(cli, path)
    assert "not a file" in refused(cli, tmp_path) or "are read from" in refused(cli, tmp_path)
    tensors = path.with_suffix(".safetensors")
    save_file({"real": FINE}, tensors)
    assert "no 'fake'; it holds 'real'" in refused(cli, tensors)
    tensors.write_bytes(tensors.read_bytes()[:-9])
    assert "cannot be read" in refused(cli, tensors)
    np.save(tmp_path / "x.npy", FINE)
    assert "are read from .npz and .safetensors files" in refused(cli, tmp_path / "x.npy")
