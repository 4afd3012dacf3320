"""The bootstrap: coverage, pairing, determinism."""

import numpy as np
import pytest

from probe.probing import uncertainty as score
from probe.probing.uncertainty import bootstrap


def halves(n):
    return np.arange(2 * n) < n


def test_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        scores = rng.exponential(1.0, (1, 200)) * -1
        low, high = bootstrap(scores, halves(100), seed=trial, resamples=300).interval(0)
        hits += low <= -1 <= high
    assert 0.88 <= hits / 200 <= 0.99


def test_agrees_with_the_textbook_standard_error():
    rng = np.random.default_rng(1)
    scores = rng.normal([[-0.5], [-0.6]], 0.2, (2, 800))
    spread = bootstrap(scores, halves(400), seed=0)
    low, high = spread.interval(0)
    assert (high - low) / 2 == pytest.approx(1.96 * 0.2 / np.sqrt(800), rel=0.1)
    assert (low + high) / 2 == pytest.approx(scores[0].mean(), abs=0.002)


def test_pairing_makes_a_small_steady_gap_visible():
    hard = np.random.default_rng(2).normal(-0.5, 0.5, 300)
    scores = np.stack([hard, hard - 0.01])
    spread = bootstrap(scores, halves(150), seed=0)
    assert spread.gap(1, 0) == pytest.approx((-0.01, -0.01))
    assert spread.interval(1)[1] > spread.interval(0)[0]
    assert spread.best(np.ones(2, bool)) == pytest.approx([1, 0])


def test_resampling_is_stratified():
    """Scores that differ between the classes alone do not vary."""
    scores = np.where(halves(50), -1.0, -0.2)[None]
    assert bootstrap(scores, halves(50), seed=0).interval(0) == pytest.approx((-0.6, -0.6))


def test_same_resamples_whatever_the_company():
    scores = np.random.default_rng(3).normal(size=(4, 100))
    all_four = bootstrap(scores, halves(50), seed=0)
    alone = bootstrap(scores[2:3], halves(50), seed=0)
    np.testing.assert_allclose(all_four.scores[:, 2], alone.scores[:, 0])
    other = bootstrap(scores, halves(50), seed=1)
    assert not np.allclose(all_four.scores, other.scores)


def test_memory_bound_does_not_change_the_numbers(monkeypatch):
    scores = np.random.default_rng(3).normal(size=(2, 100))
    whole = bootstrap(scores, halves(50), seed=0, resamples=50).scores
    monkeypatch.setattr(score, "CHUNK_BYTES", 8 * 100 * 7)
    np.testing.assert_allclose(bootstrap(scores, halves(50), seed=0, resamples=50).scores, whole)


def test_weights_count_images_as_often_as_they_were_held_out():
    scores = np.random.default_rng(4).normal(size=(1, 80))
    weights = np.tile([0, 1, 2, 3], 20)
    scores[:, weights == 0] = np.nan
    spread = bootstrap(scores, halves(40), seed=0, weights=weights)
    mean = np.average(scores[0, weights > 0], weights=weights[weights > 0])
    assert np.isfinite(spread.scores).all()
    assert spread.scores.mean() == pytest.approx(mean, abs=0.02)


def test_best_shares_ties_and_leaves_others_out():
    row = np.random.default_rng(5).normal(size=60)
    spread = bootstrap(np.stack([row, row, row + 9, row - 9]), halves(30), seed=0)
    best = spread.best(np.array([True, True, False, True]))
    assert best == pytest.approx([0.5, 0.5, 0, 0])
