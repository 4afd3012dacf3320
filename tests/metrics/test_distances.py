"""Fréchet and kernel distances against direct formulas."""

import numpy as np
import pytest
import scipy.linalg

from probe.errors import ProbeError
from probe.features.moments import moments
from probe.metrics.frechet import FrechetReference, frechet_distance
from probe.metrics.kernel import kernel_distance

RNG = np.random.default_rng(0)


def table(n, d, scale=1.0, shift=0.0, seed=0):
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(d, d)) / np.sqrt(d)
    return (rng.normal(size=(n, d)) @ mixing * scale + shift).astype(np.float32)


def direct_frechet(x, y):
    c1, c2 = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    shift = np.square(x.mean(0, dtype=np.float64) - y.mean(0, dtype=np.float64)).sum()
    return shift + np.trace(c1 + c2 - 2 * scipy.linalg.sqrtm(c1 @ c2).real)


@pytest.mark.parametrize(("n", "m", "d"), [(200, 300, 20), (5000, 4500, 64)])
def test_frechet_is_its_definition(n, m, d):
    x, y = table(n, d, seed=1), table(m, d, scale=1.3, shift=0.2, seed=2)
    x, y = x.astype(np.float64), y.astype(np.float64)
    found = FrechetReference(x).distance(y)
    assert found == pytest.approx(direct_frechet(x, y), rel=1e-6)
    assert found == pytest.approx(FrechetReference(y).distance(x), rel=1e-9)


def test_frechet_with_fewer_samples_than_dimensions_is_real_and_right():
    """Where one set varies along one axis alone the last trace has a closed form."""
    x = np.zeros((10, 100))
    x[:, 0] = np.arange(10.0)
    y = RNG.normal(size=(30, 100))
    c1 = np.var(x[:, 0], ddof=1)
    c2 = np.cov(y, rowvar=False)
    expected = np.square(x.mean(0) - y.mean(0)).sum() + c1 + np.trace(c2)
    expected -= 2 * np.sqrt(c1 * c2[0, 0])
    assert FrechetReference(x).distance(y) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("n", "d"), [(16, 1280), (500, 40), (10_000, 8)])
def test_frechet_of_identical_sets_is_zero_and_a_shift_is_its_square(n, d):
    x = table(n, d, seed=3)
    reference = FrechetReference(x)
    size = moments(x).variance
    assert abs(reference.distance(x)) < 1e-9 * size
    shift = np.linspace(0, 1, d)
    moved = x.astype(np.float64) + shift
    assert reference.distance(moved) == pytest.approx(np.square(shift).sum(), abs=1e-6 * size)


def test_moments_do_not_depend_on_blocks():
    x = table(9000, 12, seed=4)
    found = moments(x)
    np.testing.assert_allclose(found.root.T @ found.root, np.cov(x, rowvar=False), rtol=1e-5)
    assert frechet_distance(found, moments(x[::-1])) == pytest.approx(0, abs=1e-9)


def direct_kernel(x, y):
    def k(a, b):
        return (np.dot(a, b) / len(a) + 1) ** 3

    n, m = len(x), len(y)
    within_x = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    within_y = sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return within_x + within_y - 2 * sum(k(a, b) for a in x for b in y) / (n * m)


def symmetric_root(c):
    values, vectors = np.linalg.eigh(c)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


@pytest.mark.parametrize(("n", "m", "d"), [(40, 30, 200), (20, 300, 100), (600, 500, 48)])
def test_frechet_of_features_as_backbones_give_them(n, m, d):
    """float32, nowhere negative, columns of very different sizes, more or fewer than samples.

    tr (C₁C₂)^½ = tr (C₁^½ C₂ C₁^½)^½, whose inner matrix is symmetric.
    """
    sizes = np.geomspace(1e-2, 1e2, d).astype(np.float32)
    x = np.maximum(table(n, d, shift=0.3, seed=11), 0) * sizes
    y = np.maximum(table(m, d, shift=0.5, seed=12), 0) * sizes
    x64, y64 = x.astype(np.float64), y.astype(np.float64)
    c1, c2 = np.cov(x64, rowvar=False), np.cov(y64, rowvar=False)
    half = symmetric_root(c1)
    middle = half @ c2 @ half
    last = np.sqrt(np.maximum(np.linalg.eigvalsh((middle + middle.T) / 2), 0)).sum()
    expected = np.square(x64.mean(0) - y64.mean(0)).sum() + np.trace(c1) + np.trace(c2) - 2 * last
    assert FrechetReference(x).distance(y) == pytest.approx(expected, rel=1e-6)


def test_kernel_of_wide_float32_features_is_its_definition():
    x, y = table(50, 1280, shift=0.4, seed=13), table(60, 1280, shift=0.5, seed=14)

    def kernels(a, b):
        products = np.einsum("id,jd->ij", a.astype(np.float64), b.astype(np.float64))
        return (products / 1280 + 1) ** 3

    xx, yy, xy = kernels(x, x), kernels(y, y), kernels(x, y)
    expected = (xx.sum() - np.trace(xx)) / (50 * 49) + (yy.sum() - np.trace(yy)) / (60 * 59)
    expected -= 2 * xy.mean()
    assert kernel_distance(x, y, seed=0).value == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("n", "m"), [(15, 20), (45, 60)])
def test_kernel_is_its_definition(n, m):
    x, y = table(n, 6, seed=5).astype(np.float64), table(m, 6, shift=0.5, seed=6).astype(np.float64)
    found = kernel_distance(x, y, seed=0)
    assert found.value == pytest.approx(direct_kernel(x, y), rel=1e-9)
    assert np.isnan(found.low) == (n < 40)


def test_the_kernels_interval_holds_the_truth_about_as_often_as_it_says():
    """Identical distributions: the truth is 0."""
    inside = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        found = kernel_distance(rng.normal(size=(200, 5)), rng.normal(size=(200, 5)), seed=seed)
        inside += found.low <= 0 <= found.high
    assert inside >= 52


def test_kernel_sees_a_difference_and_is_deterministic():
    x, y = table(300, 10, seed=7), table(300, 10, scale=1.5, seed=8)
    first, second = (kernel_distance(x, y, seed=1) for _ in range(2))
    assert first == second and first.low > 0


@pytest.mark.parametrize(
    ("real", "fake", "words"),
    [
        (np.ones((5, 3)), np.ones((5, 4)), "same width"),
        (np.ones((1, 3)), np.ones((5, 3)), "two real images"),
        (np.ones((5, 3)), np.full((5, 3), np.nan), "generated images hold NaN"),
    ],
)
def test_tables_that_cannot_be_measured_are_refused(real, fake, words):
    with pytest.raises(ProbeError, match=words):
        kernel_distance(real, fake, seed=0)
    with pytest.raises(ProbeError, match=words):
        FrechetReference(real).distance(fake)
