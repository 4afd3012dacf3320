"""`--until-sure`: rounds in which backbones drop out, with the same error control."""

import json

import numpy as np
import pytest

import probe
from probe.probing.given import Named
from probe.probing.rounds import level_of, race, schedule

SURE = probe.RankOptions(until_sure=True)


def drawn(shifts, n, seed=0, d=6):
    rng = np.random.default_rng([seed, n])
    common, features = rng.standard_normal((2 * n, d // 2)), {}
    for i, shift in enumerate(shifts):
        x = np.hstack([common, rng.standard_normal((2 * n, d - d // 2))])
        x[n:, -1] += shift
        features[f"b{i}"] = (x[:n], x[n:])
    return features


@pytest.mark.parametrize(
    ("most", "counts"),
    [(16, [16]), (250, [250]), (251, [250, 251]), (2000, [250, 500, 1000, 2000])],
)
def test_rounds_double(most, counts):
    assert schedule(most) == counts
    assert 1 - (1 - level_of(len(counts))) * len(counts) == pytest.approx(0.95)


class Script:
    """Says who is beaten in each round, and keeps what it was asked."""

    def __init__(self, *rounds, silent=()):
        self.rounds, self.silent, self.asked = list(rounds), silent, []

    def __call__(self, names, count, level):
        self.asked.append((list(names), count))
        beaten = self.rounds.pop(0) if self.rounds else {}
        return {name: beaten.get(name) for name in names if name not in self.silent}


def test_it_ends_when_one_is_left():
    script = Script({"b": "a"}, {"c": "a"})
    found = race([Named(name) for name in "abc"], 8000, script)
    assert script.asked == [(["a", "b", "c"], 250), (["a", "c"], 500)]
    assert (found.left, found.images) == (("a",), 500)
    assert found.dropped["c"] == "worse than a on 500 images of each class"


def test_what_gives_no_result_neither_drops_out_nor_goes_on():
    script = Script({"b": "a"}, silent=("gone",))
    found = race([Named(name) for name in ("gone", "a", "b")], 8000, script)
    assert (found.left, found.images) == (("a", "gone"), 250)
    entries = [Named("a"), Named("b"), Named("random", "control")]
    assert "random" in race(entries, 300, Script()).dropped
    assert race(entries[2:], 300, Script()).left == ("random",)


def test_a_clear_winner_ends_a_ranking_early():
    ranking = probe.rank_features(drawn((3.0, 1.0, 0.0), 1200), options=SURE)
    board = ranking.leaderboard
    assert [(row.name, row.status) for row in board.rows if row.role != "null"] == [
        ("b0", "ok"), ("b1", "dropped"), ("b2", "dropped")
    ]  # fmt: skip
    assert (board.n_real, board.n_fake, board.exit_code) == (250, 250, 0)
    assert board.rows[0].rank == 1 and not board.rows[0].tied
    assert not any("there are no more" in note for note in board.notes)
    alone = probe.rank_features(
        {"b0": drawn((3.0, 1.0, 0.0), 1200)["b0"]}, options=probe.RankOptions(num=250)
    )
    assert alone.leaderboard.rows[0].score == board.rows[0].score


def test_equals_use_all_images_and_the_rounds_are_remembered(monkeypatch):
    features = drawn((1.5, 1.5, 0.3), 600)
    events = []
    board = probe.rank_features(features, options=SURE, on_event=events.append).leaderboard
    assert board.n_real == 600
    assert {row.name for row in board.ranked} == {"b0", "b1"}
    assert {row.rank for row in board.ranked} == {1}
    notes = [e.text for e in events if isinstance(e, probe.events.Note)]
    assert notes == [
        "250 images of each class: 2 of 3 go on.", "500 images of each class: 2 of 2 go on."
    ]  # fmt: skip
    monkeypatch.setattr("probe.probing.fit.evaluate", lambda *a, **k: pytest.fail("was fitted"))
    assert probe.rank_features(features, options=SURE).leaderboard == board


def test_the_same_first_rank_as_on_all_images():
    """Small banks with two that are equal and best; benchmarks/rounds.py has more and larger."""
    same, used = 0, []
    for seed in range(3):
        features = drawn((1.3, 1.3, 0.6, 0.4, 0.0), 1000, seed=seed)
        whole = probe.rank_features(features).leaderboard
        sure = probe.rank_features(features, options=SURE).leaderboard
        firsts = [{row.name for row in b.ranked if row.rank == 1} for b in (whole, sure)]
        same += firsts[0] == firsts[1]
        dropped = [row.reason.split()[4] for row in sure.rows if row.status == "dropped"]
        used.append((sum(map(int, dropped)) + len(sure.ranked) * sure.n_real) / 5000)
    assert same == 3 and np.mean(used) <= 0.7


def test_images_of_later_rounds_are_taken_from_the_survivors_alone(
    cli, reals, fakes, bank, tmp_path, monkeypatch
):
    """Colour gives these away; edges do not, and drop out."""
    monkeypatch.setattr("probe.probing.rounds.FIRST", 30)
    command = ("rank", "--real", reals, "--gen", fakes, "--bank", bank, "--offline", "--until-sure")
    done = cli(*command, "--format", "json", "--out", tmp_path / "out")
    assert done.code == 0, done.err
    assert "30 images of each class: 1 of 2 go on." in done.err
    board = probe.Leaderboard.from_dict(json.loads(done.out))
    reasons = {row.name: row.reason for row in board.rows if row.status == "dropped"}
    assert reasons.pop("edges") == "worse than colour on 30 images of each class"
    assert reasons.keys() == {"random"}
    assert board.winner.name == "colour" and board.n_real == 30
    assert not any("there are no more" in note for note in board.notes)
    kept = {
        len(list(path.glob("*.safetensors"))) for path in (tmp_path / "cache/features").iterdir()
    }
    assert kept == {2}  # the reals and the fakes of one round; the control has none
    page = (tmp_path / "out" / "report.html").read_text()
    assert "--until-sure" in page and "dropped" in page
    assert "dropped: random: random weights win no rank" in cli(*command).out
