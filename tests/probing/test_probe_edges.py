"""The probe where it could go wrong: leaks, odd columns, huge margins, the solver's accuracy."""

import dataclasses
import warnings

import numpy as np
import pytest
from scipy.special import log_expit
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from probe.errors import ProbeError
from probe.probing import probes
from probe.probing.c_search import RATE, Folds, weigh_c
from probe.probing.fit import evaluate, reduce, standardise
from probe.probing.protocol import CHANCE, FAIR, PAPER, splits
from probe.streams import numpy_stream


@pytest.fixture(autouse=True)
def one_thread():
    """The plain fits here are as small as the probe's own: BLAS threads only slow them down."""
    with threadpool_limits(1, user_api="blas"):
        yield


def features(n=100, d=20, shift=0.0, seed=0):
    rng = np.random.default_rng(seed)
    real, fake = rng.standard_normal((2, n, d), dtype=np.float32)
    fake[:, 0] += shift
    return real, fake


def halves(n, d, shift):
    """Return (train, test), standardised by the former, and their labels."""
    x, y = np.concatenate(features(n, d, shift)), np.repeat([0, 1], n)
    train = x[::2].astype(np.float64)
    mean, scale = standardise(train)
    return train, (x[1::2] - mean) * scale, y[::2], y[1::2]


@pytest.mark.parametrize(("n", "d", "within"), [(16, 300, 0.15), (100, 400, 0.02), (500, 3, 0.004)])
def test_identical_distributions_sit_at_chance(n, d, within):
    scores = [evaluate(*features(n, d, seed=s), protocol=FAIR, seed=s).score for s in range(4)]
    assert np.mean(scores) == pytest.approx(CHANCE, abs=within)


def test_the_same_images_on_both_sides_are_not_told_apart():
    real, _ = features(200, 30)
    assert evaluate(real, real, protocol=FAIR, seed=0).score <= CHANCE + 1e-3


def test_shuffled_labels_give_chance():
    real, fake = features(150, 40, shift=4.0)
    pool = np.random.default_rng(5).permutation(np.concatenate([real, fake]))
    result = evaluate(pool[:150], pool[150:], protocol=FAIR, seed=0)
    assert result.score < CHANCE + 0.02
    assert 0.4 < result.auroc < 0.6


def test_held_out_features_do_not_touch_the_fit():
    """A held-out image may change as it likes: no other score of its split moves."""
    protocol = dataclasses.replace(FAIR, repeats=1, swap=False)
    real, fake = features(60, 10, shift=1.0)
    held_out = splits(60, 60, protocol, 0)[0][1]
    victim = held_out[held_out < 60][0]
    changed = real.copy()
    changed[victim] += 1000
    before = evaluate(real, fake, protocol=protocol, seed=0).image_scores
    after = evaluate(changed, fake, protocol=protocol, seed=0).image_scores
    others = np.arange(120) != victim
    np.testing.assert_allclose(before[others], after[others], rtol=1e-12)
    assert before[victim] != after[victim]


def test_columns_of_any_scale_count_the_same():
    real, fake = features(80, 30, shift=1.0)
    factors = np.geomspace(1e-12, 1e12, 30).astype(np.float32)
    plain = evaluate(real, fake, protocol=FAIR, seed=0)
    scaled = evaluate(real * factors, fake * factors, protocol=FAIR, seed=0)
    assert scaled.c_values == pytest.approx(plain.c_values, rel=1e-3)
    np.testing.assert_allclose(scaled.image_scores, plain.image_scores, atol=1e-3)


@pytest.mark.parametrize("value", [0.0, 0.1, -3e7])
def test_constant_columns_change_nothing(value):
    real, fake = features(50, 10, shift=1.0)
    flat = np.full((50, 2), value, np.float32)
    plain = evaluate(real, fake, protocol=FAIR, seed=0)
    padded = evaluate(np.hstack([real, flat]), np.hstack([fake, flat]), protocol=FAIR, seed=0)
    assert padded.score == pytest.approx(plain.score, abs=1e-4)


def test_nothing_but_constant_columns_is_chance():
    flat = np.ones((20, 5), np.float32)
    result = evaluate(flat, flat, protocol=FAIR, seed=0)
    assert result.score == pytest.approx(CHANCE, abs=1e-6)
    assert result.auroc == 0.5


@pytest.mark.parametrize(("protocol", "shift"), [(FAIR, 1e6), (PAPER, 100)])
def test_huge_margins_stay_finite(protocol, shift):
    result = evaluate(*features(40, 5, shift=shift), protocol=protocol, seed=0)
    assert np.isfinite(result.image_scores[result.image_counts > 0]).all()
    assert -0.05 < result.score <= 0
    assert result.accuracy == result.auroc == 1


def test_a_confidently_wrong_image_is_not_clipped():
    real, fake = features(40, 2, shift=50.0)
    fake[0, 0] = -1e5  # far on the side of the reals
    protocol = dataclasses.replace(FAIR, c_values=(100.0,), repeats=1, swap=False)
    seed = next(s for s in range(20) if 40 in splits(40, 40, protocol, s)[0][1])
    result = evaluate(real, fake, protocol=protocol, seed=seed)
    assert -np.inf < result.image_scores[40] < -100


def test_unequal_classes():
    real, fake = features(101, 6, shift=2.0)
    result = evaluate(real, fake[:40], protocol=FAIR, seed=0)
    assert (result.n_real, result.n_fake, len(result.image_scores)) == (101, 40, 141)
    assert (result.image_counts == 3).all()
    assert result.score == pytest.approx(result.image_scores.mean())


def test_features_of_different_widths_are_refused():
    real, fake = features(20, 4)
    with pytest.raises(ProbeError, match="same width"):
        evaluate(real, fake[:, :3], protocol=FAIR, seed=0)


def test_paper_equals_an_evaluation_with_its_own_splits():
    """Method 2.2 b-e written out with numpy and scikit-learn alone, classes of unequal size."""
    real, fake = features(75, 12, shift=1.5)
    real, fake = real * 3 + 1, fake[:60] * 3 + 1
    accuracies, scores = [], []
    for repeat in range(3):
        rng = numpy_stream(7, "split", repeat)
        r, f = real[rng.permutation(75)], fake[rng.permutation(60)]
        x, y = np.vstack([r[:38], f[:30]]), np.repeat([0, 1], [38, 30])
        held_x, held_y = np.vstack([r[38:], f[30:]]), np.repeat([0, 1], [37, 30])
        plain = LogisticRegression(C=0.2, max_iter=5000, random_state=0).fit(x, y)
        accuracies.append(plain.score(held_x, held_y))
        p = plain.predict_proba(held_x).astype(np.float64)[np.arange(67), held_y]
        scores.append(np.log(p).mean())
    result = evaluate(real, fake, protocol=PAPER, seed=7)
    assert result.accuracy == pytest.approx(np.mean(accuracies), abs=1e-6)
    assert result.score == pytest.approx(np.mean(scores), abs=1e-6)
    assert result.c_values == (0.2,) * 3


def test_paper_marks_images_that_were_never_held_out():
    result = evaluate(*features(100, 5), protocol=PAPER, seed=0)
    never = result.image_counts == 0
    assert 0 < never.sum() < 60
    np.testing.assert_array_equal(np.isnan(result.image_scores), never)
    np.testing.assert_array_equal(np.isnan(result.image_logits), never)
    weighted = np.average(result.image_scores[~never], weights=result.image_counts[~never])
    assert result.score == pytest.approx(weighted)


def test_rotation_equals_the_plain_fit():
    train, test, y, _ = halves(30, 200, shift=1.0)
    small, basis = reduce(train)
    held = test @ basis
    assert small.shape == (30, 30)
    for strength in (1e-4, 1e-2, 1.0):
        exact = LogisticRegression(C=strength, tol=1e-10, max_iter=5000)
        plain = exact.fit(train, y).decision_function(test)
        np.testing.assert_allclose(exact.fit(small, y).decision_function(held), plain, atol=1e-5)
        np.testing.assert_allclose(held @ exact.coef_[0], test @ (basis @ exact.coef_[0]))


@pytest.mark.parametrize("protocol", [FAIR, PAPER])
@pytest.mark.parametrize("d", [12, 400])  # as they come, and rotated
def test_the_weights_that_are_kept_are_the_probes_own(protocol, d):
    """On raw features they give a plain fit's log-odds; of several splits, the mean."""
    real, fake = features(60, d, shift=1.0)
    real, fake = real * 3 + 5, fake * 3 + 5
    real[:, 1] = fake[:, 1] = 7  # a constant
    x = np.concatenate([real, fake])
    protocol = dataclasses.replace(protocol, c_values=protocol.c_values[-4:][:1])
    one = dataclasses.replace(protocol, repeats=1, swap=False)
    found = evaluate(real, fake, protocol=one, seed=0)
    held = found.image_counts > 0
    logits = x @ found.weights + found.intercept
    np.testing.assert_allclose(logits[held], found.image_logits[held], atol=1e-4)
    y = np.repeat([0, 1], 60)
    scaler = StandardScaler(with_mean=protocol.standardise, with_std=protocol.standardise)
    plain = probes.PROBES[protocol.probe](found.c_values[0])
    plain.fit(scaler.fit_transform(x[~held].astype(float)), y[~held])
    np.testing.assert_allclose(plain.decision_function(scaler.transform(x)), logits, atol=1e-3)
    both = dataclasses.replace(protocol, repeats=1, swap=True)
    halves = evaluate(real, fake, protocol=both, seed=0)
    # Each image's logit by the probe that held it out, and by the one that trained on it.
    other = 2 * (x @ halves.weights + halves.intercept) - halves.image_logits
    np.testing.assert_allclose(other[~held], logits[~held], atol=1e-3)


def test_images_are_judged_in_pieces(monkeypatch):
    one = evaluate(*features(40, 30, shift=1.0), protocol=FAIR, seed=0)
    monkeypatch.setattr("probe.probing.fit.PIECE_BYTES", 1000)  # four rows
    many = evaluate(*features(40, 30, shift=1.0), protocol=FAIR, seed=0)
    np.testing.assert_allclose(many.image_logits, one.image_logits, atol=1e-12)


@pytest.mark.parametrize("shift", [1.5, 8.0])  # overlapping, and separable in training
def test_tolerance_costs_less_than_a_thousandth(shift):
    train, test, y, held_y = halves(200, 300, shift)
    for strength in (1e-4, 1e-2, 1.0, 100.0):
        exact = LogisticRegression(C=strength, tol=1e-11, max_iter=9999)
        scores = [
            log_expit((2 * held_y - 1) * probe.fit(train, y).decision_function(test)).mean()
            for probe in (exact, probes.logistic(strength))
        ]
        assert scores[1] == pytest.approx(scores[0], abs=5e-4)


def test_shares_of_c_match_an_exhaustive_search():
    """Ending early, warm starts and loose fits weigh as trying everything would."""
    x, _, y, _ = halves(200, 60, shift=1.5)
    weighed = weigh_c(x.astype(np.float32), y, np.arange(200), FAIR, np.random.default_rng(0))
    rng, fold = np.random.default_rng(0), np.empty(200, int)
    for label in (0, 1):
        fold[rng.permutation(np.flatnonzero(y == label))] = np.arange(100) % 3
    totals = []
    for c in FAIR.c_values:
        held = np.zeros(200)
        for f in range(3):
            fit = LogisticRegression(C=c, tol=1e-7, max_iter=5000)
            held[fold == f] = fit.fit(x[fold != f], y[fold != f]).decision_function(x[fold == f])
        totals.append(log_expit(np.where(y == 1, held, -held)).sum())
    expected = np.exp(RATE * (np.array(totals) - max(totals)))
    expected /= expected.sum()
    found = [
        dict(zip(weighed.values, weighed.shares, strict=True)).get(c, 0) for c in FAIR.c_values
    ]
    np.testing.assert_allclose(found, expected, atol=0.02)
    assert FAIR.c_values[0] < weighed.mean < FAIR.c_values[-1]


@pytest.mark.parametrize("piece", [1000, 2**22])  # rows in many pieces, and in one per fold
def test_folds_fitted_together_are_what_scikit_learn_fits_apart(piece, monkeypatch):
    monkeypatch.setattr("probe.probing.c_search.PIECE_BYTES", piece)
    x, _, y, _ = halves(100, 40, shift=1.5)
    fold = np.random.default_rng(0).permutation(np.arange(100) % 3)
    folds = Folds(x, y, fold)
    weights = folds.fit(folds.nothing_learnt(), 0.03, 1e-7)
    expected = np.empty(100)
    for f in range(3):
        apart = LogisticRegression(C=0.03, tol=1e-9, max_iter=5000)
        apart.fit(x[fold != f], y[fold != f])
        np.testing.assert_allclose(weights[f, :-1], apart.coef_[0], atol=1e-3)
        np.testing.assert_allclose(weights[f, -1], apart.intercept_[0], atol=1e-3)
        logits = apart.decision_function(x[fold == f])
        expected[fold == f] = log_expit(np.where(y[fold == f] == 1, logits, -logits))
    held_out = folds.held_out(weights)  # in the order of folds
    np.testing.assert_allclose(held_out, expected[np.argsort(fold, kind="stable")], atol=1e-3)


@pytest.mark.parametrize("protocol", [FAIR, PAPER])
def test_threads_change_nothing(protocol, monkeypatch):
    real, fake = features(60, 30, shift=1.0)
    serial = evaluate(real, fake, protocol=protocol, seed=0)
    monkeypatch.setattr("probe.probing.fit.THREADS_FROM_BYTES", 0)
    threaded = evaluate(real, fake, protocol=protocol, seed=0)
    for name, value in serial.to_arrays().items():
        np.testing.assert_array_equal(threaded.to_arrays()[name], value)


@pytest.mark.parametrize("threads_from", [0, 2**30])
def test_unconverged_fits_are_counted_and_silent(threads_from, monkeypatch):
    monkeypatch.setattr("probe.probing.fit.THREADS_FROM_BYTES", threads_from)
    short = {**probes.PROBES, "logistic": lambda c: LogisticRegression(C=c, max_iter=1)}
    monkeypatch.setattr("probe.probing.fit.PROBES", short)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = evaluate(*features(40, 30, shift=1.0), protocol=FAIR, seed=0)
    assert result.unconverged >= 6  # of six splits, and of each one's values of C
    assert caught == []
