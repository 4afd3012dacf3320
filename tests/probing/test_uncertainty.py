"""Uncertainty: influences, coverage, pairing, ranks that do not split equals."""

import dataclasses

import numpy as np
import pytest

from probe.probing import protocol as protocol_module
from probe.probing.agreement import greedy_picks
from probe.probing.fit import evaluate
from probe.probing.protocol import CHANCE, FAIR, PAPER, splits
from probe.probing.uncertainty import Spread, ranks, spread


def draw(rng, n, d, signal=0.0, backbones=1):
    """Return reals and fakes of backbones that are equal in truth, half of their noise shared."""
    shared = rng.standard_normal((2 * n, d // 2))
    tables = []
    for _ in range(backbones):
        x = np.hstack([shared, rng.standard_normal((2 * n, d - d // 2))]).astype(np.float32)
        x[n:, [0, -1]] += signal
        tables.append((x[:n], x[n:]))
    return tables


def simple(effects, values):
    """Return a spread of independent images without effects in pairs."""
    return Spread(
        np.asarray(values, float), np.asarray(effects, float), np.zeros((1, len(values))), 0
    )


@pytest.mark.parametrize(
    "protocol", [dataclasses.replace(FAIR, c_values=(0.01,)), PAPER], ids=["fair", "paper"]
)
@pytest.mark.parametrize("d", [20, 200])  # as they come, and rotated
def test_influence_is_what_leaving_an_image_out_does(protocol, d, monkeypatch):
    n = 40
    real, fake = draw(np.random.default_rng(0), n, d, 0.8)[0]
    x, known = np.concatenate([real, fake]), splits(n, n, protocol, 0)
    whole = evaluate(real, fake, protocol=protocol, seed=0)
    found, exact = [], []
    for out in range(0, 2 * n, 5):
        kept = np.delete(np.arange(2 * n), out)
        place = np.empty(2 * n, int)
        place[kept] = np.arange(2 * n - 1)
        pairs = [tuple(place[half[half != out]] for half in pair) for pair in known]
        monkeypatch.setattr(protocol_module, "splits", lambda *_, pairs=pairs: pairs)
        less = evaluate(x[kept[kept < n]], x[kept[kept >= n]], protocol=protocol, seed=0)
        exact.append(less.score - whole.score)
        found.append(whole.influences["score"][out, 0])
    assert np.corrcoef(found, exact)[0, 1] > 0.97
    assert np.std(found) == pytest.approx(np.std(exact), rel=0.15)


def test_intervals_cover_and_equals_share_their_rank():
    """A small grid of benchmarks/coverage.py: three equal backbones, over and over."""
    for signal in (0.0, 0.9):
        scores, inside, gaps, split = [], [], [], 0
        for seed in range(20):
            tables = draw(np.random.default_rng(seed), 48, 12, signal, backbones=3)
            results = [evaluate(*table, protocol=FAIR, seed=seed) for table in tables]
            found = spread(results, "score", seed)
            scores.append(found.values)
            inside.append([found.interval(i) for i in range(3)])
            gaps.append([found.gap(i, 0) for i in (1, 2)])
            order = np.argsort(-found.values)
            split += len(set(ranks(found.better(order)))) > 1
        truth, bounds, gaps = np.mean(scores), np.array(inside), np.array(gaps)
        assert ((bounds[..., 0] <= truth) & (truth <= bounds[..., 1])).mean() >= 0.88
        assert ((gaps[..., 0] <= 0) & (gaps[..., 1] >= 0)).mean() >= 0.88
        assert split <= 4
        # And not by being wide.
        assert (bounds[..., 1] - bounds[..., 0]).mean() < 6 * np.std(scores)


def test_a_true_difference_is_found():
    rng = np.random.default_rng(0)
    clear, dim = draw(rng, 300, 12, 1.0)[0], draw(rng, 300, 12, 0.4)[0]
    found = spread([evaluate(*x, protocol=FAIR, seed=0) for x in (clear, dim)], "score", 0)
    assert ranks(found.better([0, 1])) == [1, 2]
    assert found.gap(1, 0)[1] < 0 < found.best(np.ones(2, bool))[0]


@pytest.mark.parametrize("n", [16, 32])
def test_identical_sets_are_not_judged_with_confidence(n):
    scores = []
    for seed in range(15):
        real, fake = draw(np.random.default_rng(seed), n, 128)[0]
        scores.append(evaluate(real, fake, protocol=FAIR, seed=seed).score)
    assert np.median(scores) == pytest.approx(CHANCE, abs=0.03)
    assert sum(score < -0.75 for score in scores) <= 2


def test_agrees_with_the_textbook_standard_error():
    deviations = np.random.default_rng(1).normal(0, 0.2, 800)
    found = simple((deviations / 800)[:, None], [-0.5])
    low, high = found.interval(0)
    assert (high - low) / 2 == pytest.approx(1.96 * deviations.std() / np.sqrt(800), rel=0.02)


def test_an_interval_of_a_score_near_zero_stays_below_it():
    found = simple(np.full((4, 1), 0.01), [-0.001])
    low, high = found.interval(0)
    assert low < -0.001 < high < 0


def test_pairing_makes_a_small_steady_gap_visible():
    hard = np.random.default_rng(2).normal(0, 0.5, 300) / 300
    found = simple(np.stack([hard, hard], axis=1), [-0.5, -0.51])
    assert found.gap(1, 0) == pytest.approx((-0.01, -0.01))
    assert found.interval(1)[1] > found.interval(0)[0]
    assert found.best(np.ones(2, bool)) == pytest.approx([1, 0])
    assert ranks(found.better([0, 1])) == [1, 2]


def test_what_acts_in_pairs_is_not_counted_twice_and_never_halves_a_variance():
    effects = np.random.default_rng(0).normal(size=(50, 1))
    some = Spread(np.zeros(1), effects, 0.5 * effects, 0).error(np.ones(1))[0]
    much = Spread(np.zeros(1), effects, 9 * effects, 0).error(np.ones(1))[0]
    whole = simple(effects, [0]).error(np.ones(1))[0]
    assert whole > some > much == pytest.approx(whole / np.sqrt(2))


def test_best_shares_ties_and_leaves_others_out():
    row = np.random.default_rng(5).normal(size=60) / 60
    found = simple(np.stack([row] * 4, axis=1), [0, 0, 9, -9])
    best = found.best(np.array([True, True, False, True]))
    assert best == pytest.approx([0.5, 0.5, 0, 0])


def test_equal_backbones_are_never_told_apart():
    row = np.random.default_rng(5).normal(size=60)
    assert not simple(np.stack([row] * 3, axis=1), [0, 0, 0]).better([0, 1, 2]).any()


@pytest.mark.parametrize("count", [2, 6, 20])
def test_equals_are_split_in_few_rankings(count):
    """Over all pairs together, with gaps that are exactly normal."""
    split = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        effects = rng.normal(size=(100, count)) / 10
        found = dataclasses.replace(simple(effects, effects.sum(axis=0)), seed=seed)
        split += found.better(range(count)).any()
    assert split <= 8  # 3 are expected


@pytest.mark.parametrize("seed", range(20))
def test_properties_of_ranks(seed):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 12))
    values = np.sort(rng.normal(0, 1, count))[::-1]
    found = simple(rng.normal(size=(60, count)) * rng.uniform(0.01, 0.3, count), values)
    better = found.better(range(count))
    shared = ranks(better)
    assert shared[0] == 1 and shared == sorted(shared)
    for low in range(count):
        assert not better[low, :low].any()
        if not better[:, low].any():
            assert shared[: low + 1] == [1] * (low + 1)


def test_a_greedy_list_ends_where_nothing_is_gained():
    rng = np.random.default_rng(0)
    tables = {
        "clear": draw(rng, 150, 8, 1.2)[0],
        "blind": draw(rng, 150, 8, 0.0)[0],
        "blind too": draw(rng, 150, 8, 0.0)[0],
    }
    results = {n: evaluate(*table, protocol=FAIR, seed=0) for n, table in tables.items()}
    assert [pick.name for pick in greedy_picks(results, list(results), 3)] == ["clear"]
    assert greedy_picks(results, ["blind", "blind too"], 3) == []
