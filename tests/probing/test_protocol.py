"""How a backbone is scored: planted truths, honesty, invariances, the paper's procedure."""

import dataclasses
import math

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from probe.errors import ImagesError, ProbeError
from probe.probing.fit import evaluate
from probe.probing.protocol import CHANCE, FAIR, PAPER, ProbeResult, splits


def draw(n=200, d=32, gap=0.0, seed=0, rank=1):
    """Return reals and fakes, fakes moved by `gap` in `rank` directions."""
    rng = np.random.default_rng(seed)
    real, fake = rng.standard_normal((2, n, d))
    fake[:, :rank] += gap
    return real.astype(np.float32), fake.astype(np.float32)


def test_chance_when_nothing_differs():
    result = evaluate(*draw(n=400), protocol=FAIR, seed=0)
    spread = result.image_scores.std() / math.sqrt(800)
    assert abs(result.score - CHANCE) < max(0.02, 3 * spread)
    assert 0.4 < result.auroc < 0.6


def test_score_rises_with_the_gap():
    scores = [evaluate(*draw(gap=g), protocol=FAIR, seed=0).score for g in (0, 1, 2, 4)]
    assert scores == sorted(scores) and scores[-1] > -0.15


def test_score_is_close_to_the_truth_of_known_gaussians():
    # Two unit Gaussians 2 apart: the Bayes-optimal logit is 2x - 2.
    real, fake = draw(n=4000, d=1, gap=2.0)
    best = np.concatenate([2 - 2 * real[:, 0], 2 * fake[:, 0] - 2])
    truth = -np.log1p(np.exp(-best)).mean()
    assert evaluate(real, fake, protocol=FAIR, seed=0).score == pytest.approx(truth, abs=5e-3)


@pytest.mark.parametrize("n", [60, 300])  # more and fewer dimensions than images
@pytest.mark.parametrize("factor", [0.01, 100.0])
def test_scale_of_features_does_not_matter(n, factor):
    real, fake = draw(n=n, d=128, gap=0.8)
    plain = evaluate(real, fake, protocol=FAIR, seed=0).score
    scaled = evaluate(real * factor, fake * factor, protocol=FAIR, seed=0).score
    assert scaled == pytest.approx(plain, abs=1e-3)
    shifted = evaluate(real * factor + 5, fake * factor + 5, protocol=FAIR, seed=0).score
    assert shifted == pytest.approx(plain, abs=1e-3)


def test_scale_of_single_columns_does_not_matter():
    real, fake = draw(n=100, d=64, gap=1.0)
    factors = 10 ** np.random.default_rng(1).uniform(-2, 2, 64).astype(np.float32)
    plain = evaluate(real, fake, protocol=FAIR, seed=0).score
    scaled = evaluate(real * factors, fake * factors, protocol=FAIR, seed=0).score
    assert scaled == pytest.approx(plain, abs=1e-3)


def test_constant_and_repeated_columns_are_harmless():
    real, fake = draw(n=400, d=16, gap=2.0)
    plain = evaluate(real, fake, protocol=FAIR, seed=0).score
    ones = np.full((400, 3), 7.0, np.float32)
    real, fake = np.hstack([real, ones, real[:, 8:]]), np.hstack([fake, ones, fake[:, 8:]])
    assert evaluate(real, fake, protocol=FAIR, seed=0).score == pytest.approx(plain, abs=0.02)


def test_separable_classes_score_near_zero_and_stay_finite():
    real, fake = draw(n=100, gap=1000.0)
    result = evaluate(real, fake, protocol=FAIR, seed=0)
    assert -0.01 < result.score <= 0 and result.accuracy == 1.0
    assert np.isfinite(result.image_scores).all()


def test_nothing_leaks_from_the_held_out_half():
    # With more dimensions than images a fit on all of them would be perfect.
    real, fake = draw(n=40, d=500)
    result = evaluate(real, fake, protocol=FAIR, seed=0)
    assert result.accuracy < 0.7 and result.score < -0.6


def test_every_image_is_held_out_once_per_repeat():
    seen = np.zeros(60, int)
    for train, test in splits(30, 30, FAIR, 0):
        assert not set(train) & set(test)
        assert (train < 30).sum() == (train >= 30).sum()
        seen[test] += 1
    assert (seen == FAIR.repeats).all()


def test_deterministic_and_seeded():
    real, fake = draw(gap=1.0)
    one, two = (evaluate(real, fake, protocol=FAIR, seed=0) for _ in range(2))
    assert one.score == two.score and (one.image_scores == two.image_scores).all()
    assert evaluate(real, fake, protocol=FAIR, seed=1).score != one.score


def test_score_is_the_mean_of_the_image_scores():
    result = evaluate(*draw(gap=1.0), protocol=FAIR, seed=0)
    assert result.score == pytest.approx(result.image_scores.mean(), abs=1e-12)
    # Positive logits say "generated".
    assert result.image_logits[200:].mean() > result.image_logits[:200].mean()


def test_rotating_to_fewer_coordinates_loses_nothing():
    # The held-out score of d > n, against scikit-learn on the features as they are.
    real, fake = draw(n=40, d=300, gap=1.0)
    x, y = np.concatenate([real, fake]).astype(float), np.repeat([0, 1], 40)
    one = dataclasses.replace(FAIR, c_values=(0.03,))
    result = evaluate(real, fake, protocol=one, seed=0)
    scores = []
    for (train, test), strength in zip(splits(40, 40, FAIR, 0), result.c_values, strict=True):
        mean, std = x[train].mean(axis=0), x[train].std(axis=0)
        probe = LogisticRegression(C=strength, tol=1e-8, max_iter=10_000)
        probe.fit((x[train] - mean) / std, y[train])
        scores.append(-log_loss(y[test], probe.predict_proba((x[test] - mean) / std)))
    assert result.score == pytest.approx(np.mean(scores), abs=1e-3)


def test_paper_protocol_is_a_plain_scikit_learn_evaluation():
    real, fake = draw(n=101, d=20, gap=0.7)
    x, y = np.concatenate([real, fake]), np.repeat([0, 1], 101)
    accuracies, scores = [], []
    for train, test in splits(101, 101, PAPER, 3):
        assert len(train) == 2 * 51  # the larger half trains
        probe = LogisticRegression(C=0.2, solver="lbfgs", max_iter=5000, random_state=0)
        probe.fit(x[train], y[train])
        accuracies.append(probe.score(x[test], y[test]))
        scores.append(-log_loss(y[test], probe.predict_proba(x[test])))
    result = evaluate(real, fake, protocol=PAPER, seed=3)
    assert len(scores) == 3
    assert result.accuracy == pytest.approx(np.mean(accuracies), abs=1e-6)
    assert result.score == pytest.approx(np.mean(scores), abs=1e-6)


def test_paper_protocol_depends_on_feature_scale_and_ours_does_not():
    real, fake = draw(n=100, d=64, gap=0.5)
    paper = [evaluate(real * f, fake * f, protocol=PAPER, seed=0).score for f in (0.01, 10)]
    assert abs(paper[0] - paper[1]) > 0.05


def test_sixteen_images_are_enough_and_fifteen_are_refused():
    assert np.isfinite(evaluate(*draw(n=16, d=64), protocol=FAIR, seed=0).score)
    with pytest.raises(ImagesError, match="at least 16"):
        evaluate(*draw(n=15), protocol=FAIR, seed=0)


def test_features_that_are_not_finite_are_refused():
    real, fake = draw()
    real[3, 3] = np.nan
    with pytest.raises(ProbeError, match="NaN"):
        evaluate(real, fake, protocol=FAIR, seed=0)


def test_result_survives_its_arrays():
    result = evaluate(*draw(n=40, gap=1.0), protocol=PAPER, seed=0)
    again = ProbeResult.from_arrays(result.to_arrays())
    np.testing.assert_array_equal(again.image_scores, result.image_scores)
    assert (again.score, again.accuracy, again.auroc, again.c_values, again.n_real) == (
        result.score, result.accuracy, result.auroc, result.c_values, 40
    )  # fmt: skip
