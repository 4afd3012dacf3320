"""Precision, recall, density and coverage against their definitions, one pair at a time."""

import numpy as np
import pytest

from probe.errors import ProbeError
from probe.metrics.prdc import neighbourhoods


def direct(real, fake, k):
    """The formulas of the two papers, as loops."""

    def distance(a, b):
        return np.sqrt(np.square(a.astype(np.float64) - b.astype(np.float64)).sum())

    def radius(i, table):
        return sorted(distance(table[i], table[j]) for j in range(len(table)) if j != i)[k - 1]

    radii_real = [radius(i, real) for i in range(len(real))]
    radii_fake = [radius(j, fake) for j in range(len(fake))]
    inside = np.array(
        [[distance(x, y) <= r for y in fake] for x, r in zip(real, radii_real, strict=True)]
    )
    recalled = [
        any(distance(x, y) <= r for y, r in zip(fake, radii_fake, strict=True)) for x in real
    ]
    return (
        inside.any(axis=0).mean(),
        np.mean(recalled),
        inside.sum() / (k * len(fake)),
        inside.any(axis=1).mean(),
    )


def values(found):
    return found.precision, found.recall, found.density, found.coverage


@pytest.mark.parametrize(("n", "m", "d", "k"), [(30, 40, 3, 5), (45, 25, 8, 3), (12, 12, 2, 1)])
def test_values_are_their_definitions(n, m, d, k):
    rng = np.random.default_rng(n)
    real = rng.normal(size=(n, d)).astype(np.float32)
    fake = (rng.normal(size=(m, d)) * 0.8 + 0.5).astype(np.float32)
    assert values(neighbourhoods(real, fake, k=k)) == pytest.approx(direct(real, fake, k))


def test_blocks_do_not_change_values(monkeypatch):
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(50, 4)), rng.normal(size=(70, 4)) + 0.3
    whole = neighbourhoods(real, fake)
    monkeypatch.setattr("probe.metrics.prdc.BLOCK", 16)
    assert neighbourhoods(real, fake) == whole


def test_a_large_offset_does_not_change_values():
    rng = np.random.default_rng(1)
    real, fake = rng.normal(size=(60, 6)), rng.normal(size=(60, 6)) * 1.1
    assert values(neighbourhoods(real + 1e4, fake + 1e4)) == pytest.approx(
        values(neighbourhoods(real, fake))
    )


def test_equal_distributions_have_density_one_and_wrong_ones_are_told_apart():
    rng = np.random.default_rng(2)
    real = rng.normal(size=(600, 4))
    same = neighbourhoods(real, rng.normal(size=(600, 4)))
    assert same.density == pytest.approx(1, abs=0.1) and same.coverage > 0.9
    narrow = neighbourhoods(real, rng.normal(size=(600, 4)) * 0.3)  # good images, few kinds
    assert narrow.precision > 0.95 and narrow.recall < 0.4
    wide = neighbourhoods(real, rng.normal(size=(600, 4)) * 3)  # all kinds, bad images
    assert wide.precision < 0.4 and wide.recall > 0.9
    far = neighbourhoods(real, rng.normal(size=(600, 4)) + 50)
    assert values(far) == (0, 0, 0, 0)


def test_one_real_far_out_makes_precision_and_not_density():
    """Naeem et al. 2020, figure 2: fakes around an outlier count for precision."""
    rng = np.random.default_rng(3)
    real = rng.normal(size=(200, 2))
    real[0] = (30, 30)
    found = neighbourhoods(real, rng.normal(size=(100, 2)) + 25)
    assert found.precision > 0.9 and found.density < 0.3


@pytest.mark.parametrize(
    ("real", "fake", "k", "words"),
    [
        (np.ones((5, 3)), np.ones((9, 3)), 5, "more images"),
        (np.ones((9, 3)), np.ones((5, 3)), 5, "more images"),
        (np.ones((9, 3)), np.ones((9, 3)), 0, "more images"),
        (np.ones((9, 3)), np.ones((9, 4)), 5, "same width"),
        (np.ones((9, 3)), np.full((9, 3), np.inf), 5, "NaN or infinite"),
    ],
)
def test_tables_that_cannot_be_measured_are_refused(real, fake, k, words):
    with pytest.raises(ProbeError, match=words):
        neighbourhoods(real, fake, k=k)
