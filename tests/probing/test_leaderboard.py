"""The leaderboard: ranks, ties, controls, no winner, round trips."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from probe.errors import ProbeError
from probe.probing.config import RankOptions
from probe.probing.fit import evaluate
from probe.probing.leaderboard import Leaderboard
from probe.probing.protocol import CHANCE, FAIR, PAPER, ProbeResult, splits
from probe.probing.standing import Setting, build_leaderboard

N = 150


def entry(name, role="candidate"):
    return SimpleNamespace(name=name, role=role, task="classify", data="photos", license="MIT")


def held_out(values):
    """Return influences of images that probes were asked about and did not learn from."""
    table = np.zeros((len(values), 2), np.float32)
    table[:, 0] = (values.mean() - values) / (len(values) - 1)
    return table


def made(scores, n_real=N):
    """A result with given image scores; logits to match."""
    scores = np.asarray(scores, dtype=np.float64)
    sign = np.where(np.arange(len(scores)) < n_real, -1, 1)
    p = np.exp(np.minimum(scores, -1e-9))
    hits = (scores > CHANCE).astype(float)
    return ProbeResult(
        score=float(scores.mean()),
        accuracy=float((scores > CHANCE).mean()),
        auroc=0.9,
        image_scores=scores,
        image_logits=sign * np.log(p / (1 - p)),
        image_counts=np.full(len(scores), 3),
        influences={"score": held_out(scores), "accuracy": held_out(hits)},
        groups=np.arange(len(scores)),
        c_values=(0.1,) * 6,
        weights=np.zeros(2),
        intercept=0.0,
        unconverged=0,
        n_real=n_real,
        n_fake=len(scores) - n_real,
    )


def rank(results, roles=None, failures=None, null=None, facts=None, protocol="fair", k=2):
    specs = [entry(n, (roles or {}).get(n, "candidate")) for n in [*results, *(failures or {})]]
    return build_leaderboard(
        specs,
        results,
        null,
        Setting(
            failures=failures or {},
            facts=facts or {},
            resolution=64,
            audit=[],
            notes=["first"],
            config={"a": 1},
        ),
        protocol=protocol,
        options=RankOptions(k=k),
    )


def noisy(mean, seed, spread=0.2):
    return made(np.minimum(np.random.default_rng(seed).normal(mean, spread, 2 * N), -1e-3))


def test_planted_truth_wins_with_a_gap_above_zero():
    rng = np.random.default_rng(0)
    results = {}
    for name, shift in (("blind", 0.0), ("sees", 2.0), ("squints", 0.8)):
        real, fake = rng.standard_normal((2, N, 12), dtype=np.float32)
        fake[:, 0] += shift
        results[name] = evaluate(real, fake, protocol=FAIR, seed=0)
    board = rank(results)
    assert [r.name for r in board.rows] == ["sees", "squints", "blind"]
    assert [r.rank for r in board.rows] == [1, 2, 3]
    assert board.winner.name == "sees"
    assert all(r.gap_high < 0 for r in board.rows[1:])
    assert board.rows[0].p_best > 0.99
    assert [r.picked for r in board.rows] == [True, True, False]
    assert [r.above_chance for r in board.rows] == [True, True, False]
    low, high = board.rows[2].score_low, board.rows[2].score_high
    assert low - 1e-3 <= CHANCE <= high + 1e-3
    for r in board.rows:
        assert r.score_low <= r.score <= r.score_high


@pytest.mark.parametrize("protocol", [FAIR, PAPER])
def test_identical_sets_give_no_winner(protocol):
    winners = 0
    for seed in range(4):
        rng = np.random.default_rng(seed)
        results = {}
        for name in "abcd":
            real, fake = rng.standard_normal((2, 60, 8), dtype=np.float32)
            results[name] = evaluate(real, fake, protocol=protocol, seed=seed)
        board = rank(results, protocol=protocol.name)
        winners += board.winner is not None
        if board.winner is None:
            assert {r.rank for r in board.rows} == {1}
            assert all(r.tied and not r.picked for r in board.rows)
            assert [v.kind for v in board.verdicts] == ["no-winner"]
    assert winners == 0


def test_paper_winner_is_judged_by_accuracy():
    """Overconfident, below chance in nats, and right nine times in ten."""
    scores = np.where(np.arange(2 * N) % 10 == 0, -20.0, -0.01)
    board = rank({"a": made(scores)}, protocol="paper")
    assert board.rows[0].score < CHANCE
    assert board.winner.name == "a"


def program(features, seed):
    """Return the winner by the mean accuracy of three halves; ties go to the first in the list."""
    accuracies = []
    for real, fake in features.values():
        x, y = np.concatenate([real, fake]), np.repeat([0, 1], [len(real), len(fake)])
        found = []
        for train, test in splits(len(real), len(fake), PAPER, seed):
            probe = LogisticRegression(C=0.2, max_iter=5000, random_state=0)
            found.append(probe.fit(x[train], y[train]).score(x[test], y[test]))
        accuracies.append(np.mean(found))
    return list(features)[int(np.argmax(accuracies))]


def test_paper_orders_as_the_reference_program_does():
    """In draws where the score would have chosen others, and ties among them."""
    winners, by_score, ties = [], [], 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        features = {}
        for name, scale, shift in (("loud", 8, 1.0), ("quiet", 0.05, 1.0), ("clear", 1, 1.2)):
            real, fake = rng.standard_normal((2, 40, 12), dtype=np.float32)
            fake[:, :2] += shift
            features[name] = (real * scale, fake * scale)
        features["clear again"] = features["clear"]
        results = {
            n: evaluate(*tables, protocol=PAPER, seed=seed) for n, tables in features.items()
        }
        rows = rank(results, protocol="paper").rows
        winners.append(rows[0].name == program(features, seed))
        by_score.append(max(results, key=lambda n: results[n].score) == rows[0].name)
        ties += rows[0].name == "clear"
        accuracies = [row.accuracy for row in rows]
        assert accuracies == sorted(accuracies, reverse=True)
        assert [row.gap for row in rows] == [a - accuracies[0] for a in accuracies]
    assert all(winners) and ties
    assert not all(by_score)


def test_equal_accuracies_stay_in_the_banks_order_and_share_a_rank():
    """Whatever their score and cost: all are right about every image, and the list decides."""
    results = {n: made(np.full(2 * N, -x)) for n, x in (("b", 0.1), ("a", 0.01), ("c", 0.2))}
    facts = {"c": {"flops": 1}, "a": {"flops": 2}, "b": {"flops": 3}}
    board = rank(results, protocol="paper", facts=facts)
    assert [row.name for row in board.rows] == ["b", "a", "c"]
    assert {(row.rank, row.tied) for row in board.rows} == {(1, True)}
    assert [row.name for row in board.rows if row.picked] == ["b", "a"]
    assert [row.name for row in rank(results, facts=facts).rows] == ["a", "b", "c"]


def test_paper_judges_controls_and_the_null_row_by_accuracy():
    confident = made(np.where(np.arange(2 * N) % 10 == 0, -20.0, -0.01))  # right nine times in ten
    timid = made(np.where(np.arange(2 * N) % 5 == 0, -0.8, -0.6))  # right eight times in ten
    board = rank(
        {"timid": timid, "random": confident}, roles={"random": "control"}, protocol="paper",
        null=("timid", made(np.full(100, CHANCE - 0.01), 50)),
    )  # fmt: skip
    assert [row.role for row in board.rows] == ["control", "candidate", "null"]
    assert any("random has random weights and out-probes timid" in note for note in board.notes)
    assert board.rows[0].gap == pytest.approx(0.1) and board.rows[0].gap_low > 0
    # The interval of the score is about the score all the same.
    assert board.rows[0].score_low < board.rows[0].score < board.rows[0].score_high < -1


def test_a_record_by_an_unknown_protocol_is_refused():
    record = rank({"a": noisy(-0.3, 0)}).to_dict()
    with pytest.raises(ProbeError, match="Unknown protocol 'papr'. Did you mean 'paper'"):
        Leaderboard.from_dict({**record, "protocol": "papr"})


def test_close_backbones_share_a_rank():
    base = np.random.default_rng(0).normal(-0.5, 0.1, 2 * N)
    wobble = np.random.default_rng(1).normal(0, 0.2, (2, 2 * N))
    wobble -= wobble.mean(axis=1, keepdims=True)
    results = {
        "a": made(base),
        "b": made(np.minimum(base - 0.001 + wobble[0], -1e-4)),
        "c": made(base - 0.2),
    }
    board = rank(results)
    ranks = {r.name: (r.rank, r.tied) for r in board.rows}
    assert ranks == {"a": (1, True), "b": (1, True), "c": (3, False)}


def test_exactly_equal_scores_go_by_cost_then_name():
    same = noisy(-0.3, 0)
    facts = {"dear": {"flops": 9}, "cheap": {"flops": 1}, "b": {"flops": 5}, "a": {"flops": 5}}
    results = {"unknown": same, "dear": same, "b": same, "a": same, "cheap": same}
    board = rank(results, facts=facts)
    assert [r.name for r in board.rows] == ["cheap", "a", "b", "dear", "unknown"]
    assert {r.rank for r in board.rows} == {1}
    assert board.rows[0].p_best == pytest.approx(0.2)


def test_roles():
    results = {
        "random": noisy(-0.1, 0),
        "judge": noisy(-0.2, 1),
        "a": noisy(-0.4, 2),
        "weak": noisy(-0.6, 3),
    }
    board = rank(results, roles={"random": "control", "judge": "evaluator"})
    rows = {r.name: r for r in board.rows}
    assert [r.name for r in board.rows] == ["random", "judge", "a", "weak"]
    assert [r.rank for r in board.rows] == [None, 1, 2, 3]
    assert rows["random"].p_best is None
    assert rows["random"].gap_low > 0
    assert rows["judge"].gap == 0
    assert [r.name for r in board.rows if r.picked] == ["a", "weak"]
    assert any("random has random weights and out-probes judge, a, weak" in n for n in board.notes)
    assert board.notes[0] == "first"


def test_a_control_level_with_a_backbone_is_called_a_tie():
    base = np.random.default_rng(0).normal(-0.5, 0.1, 2 * N)
    wobble = np.random.default_rng(1).normal(0, 0.2, 2 * N)
    other = base + wobble - wobble.mean() - 0.002
    results = {"random": made(base), "a": made(np.minimum(other, -1e-4))}
    board = rank(results, roles={"random": "control"})
    assert board.rows[0].name == "random"
    assert "random has random weights and ties with a." in board.notes


def test_only_controls():
    board = rank({"r": noisy(-0.3, 0)}, roles={"r": "control"})
    assert board.winner is None
    assert board.rows[0].rank is None
    assert any("only randomly initialised" in n for n in board.notes)


def test_null_row_takes_no_rank():
    board = rank(
        {"a": noisy(-0.3, 0), "b": noisy(-0.9, 1)}, null=("a", made(np.full(100, CHANCE), 50))
    )
    assert [r.role for r in board.rows] == ["candidate", "null", "candidate"]
    assert board.rows[1].rank is None
    assert board.rows[1].gap is None
    assert not any(v.kind.startswith("null") for v in board.verdicts)
    bad = rank({"a": noisy(-0.3, 0)}, null=("a", made(np.full(100, -0.3), 50)))
    assert "null row is above chance" in bad.verdicts[0].sentence


def test_failures_are_rows_at_the_end():
    failures = {"gone": {"status": "unavailable", "reason": "no weights", "remedy": "fetch"}}
    board = rank({"a": noisy(-0.3, 0)}, failures=failures)
    last = board.rows[-1]
    assert (last.name, last.status, last.reason, last.remedy) == (
        "gone",
        "unavailable",
        "no weights",
        "fetch",
    )
    assert last.score is None
    assert board.exit_code == 3
    assert rank({"a": noisy(-0.3, 0)}).exit_code == 0


def test_nothing_to_rank():
    with pytest.raises(ProbeError, match="nothing to rank"):
        rank({}, failures={"gone": {"status": "failed", "reason": "x", "remedy": ""}})


def test_round_trip_through_json():
    board = rank(
        {"a": noisy(-0.3, 0), "r": noisy(-0.4, 1)},
        roles={"r": "control"},
        failures={"gone": {"status": "failed", "reason": "x", "remedy": ""}},
        null=("a", made(np.full(100, CHANCE), 50)),
    )
    again = Leaderboard.from_dict(json.loads(json.dumps(board.to_dict())))
    assert again == board
    assert again.winner == board.winner
    with pytest.raises(ProbeError, match="schema version"):
        Leaderboard.from_dict({**board.to_dict(), "schema_version": 99})


def test_frame():
    frame = rank(
        {"a": noisy(-0.3, 0), "r": noisy(-0.4, 1)},
        roles={"r": "control"},
        facts={"a": {"dim": 512}},
    ).to_frame()
    assert list(frame["name"]) == ["a", "r"]
    assert frame["dim"].iloc[0] == 512
    assert frame["rank"].isna().tolist() == [False, True]


def test_paper_rows_agree_with_their_intervals():
    real, fake = np.random.default_rng(0).standard_normal((2, N, 5), dtype=np.float32)
    fake[:, 0] += 1.5
    result = evaluate(real, fake, protocol=PAPER, seed=0)
    row = rank({"a": result}, protocol="paper").rows[0]
    assert row.score_low < row.score < row.score_high
