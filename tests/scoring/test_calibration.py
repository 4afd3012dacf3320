"""Probabilities that mean what they say, and error rates with their intervals."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import binomtest

from probe.scoring.calibration import calibrate, error_rates


def sample(n, slope=1.0, intercept=0.0, seed=0):
    """Log-odds whose true probability of "generated" is sigmoid(slope · log-odds + intercept)."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=3, size=n)
    return logits, rng.random(n) < expit(slope * logits + intercept)


def test_it_is_the_least_of_platts_loss():
    logits, generated = sample(300, slope=0.4)
    found = calibrate(logits, generated)
    n, m = (~generated).sum(), generated.sum()
    target = np.where(generated, (m + 1) / (m + 2), 1 / (n + 2))
    weight = np.where(generated, 1 / m, 1 / n)

    def loss(ab):
        p = expit(ab[0] * logits + ab[1])
        return -(weight * (target * np.log(p) + (1 - target) * np.log(1 - p))).sum()

    best = minimize(loss, [1.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12})
    assert (found.slope, found.intercept) == pytest.approx(tuple(best.x), abs=1e-4)


@pytest.mark.parametrize("slope", [0.2, 1.0, 4.0])  # overconfident, right, timid
def test_probabilities_are_frequencies(slope):
    logits, generated = sample(20_000, slope=slope, seed=1)
    found = calibrate(logits, generated)
    fresh, truth = sample(20_000, slope=slope, seed=2)
    p = found.probability(fresh)
    for low in np.arange(0, 1, 0.2):
        bin_ = (p >= low) & (p < low + 0.2)
        assert truth[bin_].mean() == pytest.approx(p[bin_].mean(), abs=0.03)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_separable_classes_never_reach_certainty_and_scale_does_not_matter(scale):
    logits = np.concatenate([np.linspace(-9, -1, 50), np.linspace(1, 9, 50)]) * scale
    generated = np.arange(100) >= 50
    p = calibrate(logits, generated).probability(logits)
    assert (p[generated] > 0.5).all() and (p[~generated] < 0.5).all()
    assert 0.9 < p.max() < 1 and 0 < p.min() < 0.1
    assert p.mean() == pytest.approx(0.5, abs=1e-6) and p[generated].mean() > 0.9


@pytest.mark.parametrize("logits", [np.zeros(40), np.linspace(1, -1, 40), np.full(40, 1e300)])
def test_a_probe_that_knows_nothing_says_one_half(logits):
    found = calibrate(logits, np.arange(40) >= 20)
    assert found.probability(logits) == pytest.approx(0.5, abs=1e-3)
    assert found.slope >= 0


def test_unequal_numbers_do_not_tilt():
    """The probability is for equal numbers of both classes, whatever was held out."""
    rng = np.random.default_rng(3)
    logits = np.concatenate([rng.normal(-1, 1, 4000), rng.normal(1, 1, 200)])
    found = calibrate(logits, np.arange(4200) >= 4000)
    assert found.slope == pytest.approx(2, abs=0.3) and found.intercept == pytest.approx(0, abs=0.3)


@pytest.mark.parametrize(("wrong", "n"), [(0, 30), (3, 50), (50, 50)])
def test_error_rates_and_their_exact_intervals(wrong, n):
    probabilities = np.r_[np.full(wrong, 0.9), np.full(n - wrong, 0.1), np.full(20, 0.4)]
    positive, negative = error_rates(probabilities, np.arange(n + 20) >= n, 0.5)
    assert positive.value == wrong / n and positive.count == n and negative.value == 1
    interval = binomtest(wrong, n).proportion_ci(method="exact")
    assert (positive.low, positive.high) == pytest.approx((interval.low, interval.high), abs=1e-9)
    assert error_rates(probabilities, np.arange(n + 20) >= n, 0.3)[1].value == 0
