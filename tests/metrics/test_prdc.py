"""Precision, recall, density and coverage against their definitions, one pair at a time."""

from dataclasses import asdict

import numpy as np
import pytest

from probe.errors import ProbeError
from probe.metrics.prdc import neighbourhoods


def direct(real, fake, k):
    """The formulas of the two papers, as loops; density's balls are open, the others closed."""

    def distance(a, b):
        return np.sqrt(np.square(a.astype(np.float64) - b.astype(np.float64)).sum())

    def radius(i, table):
        return sorted(distance(table[i], table[j]) for j in range(len(table)) if j != i)[k - 1]

    radii_real = [radius(i, real) for i in range(len(real))]
    radii_fake = [radius(j, fake) for j in range(len(fake))]
    gaps = np.array([[distance(x, y) for y in fake] for x in real])
    within = gaps <= np.array(radii_real)[:, None]
    recalled = [
        any(distance(x, y) <= r for y, r in zip(fake, radii_fake, strict=True)) for x in real
    ]
    return (
        within.any(axis=0).mean(),
        np.mean(recalled),
        (gaps < np.array(radii_real)[:, None]).sum() / (k * len(fake)),
        within.any(axis=1).mean(),
    )


def values(found):
    return found.precision, found.recall, found.density, found.coverage


@pytest.mark.parametrize(("n", "m", "d", "k"), [(30, 40, 3, 5), (45, 25, 8, 3), (12, 12, 2, 1)])
def test_values_are_their_definitions(n, m, d, k):
    rng = np.random.default_rng(n)
    real = rng.normal(size=(n, d)).astype(np.float32)
    fake = (rng.normal(size=(m, d)) * 0.8 + 0.5).astype(np.float32)
    assert values(neighbourhoods(real, fake, k=k)) == pytest.approx(direct(real, fake, k))


def tables(kind):
    """Return (real, fake), float32: distinct samples, copies, or both mixed."""
    rng = np.random.default_rng(7)
    real = rng.normal(size=(60, 6)).astype(np.float32) + 100
    copies = real[rng.permutation(60)]
    fresh = (rng.normal(size=(60, 6)) * 0.8 + 100.3).astype(np.float32)
    return real, {
        "fresh": fresh,
        "copies": copies,
        "half": np.concatenate([copies[:30], fresh[:30]]),
        "collapsed": np.repeat(fresh[:12], 5, axis=0),
    }[kind]


# What prdc 0.2, the program of density's authors, says of these tables at k = 5.
PROGRAM = {
    "fresh": (0.95, 49 / 60, 1.1233333333333333, 56 / 60),
    "copies": (1.0, 1.0, 1.0, 1.0),
    "half": (59 / 60, 59 / 60, 1.1333333333333333, 59 / 60),
    "collapsed": (55 / 60, 22 / 60, 1.2833333333333334, 33 / 60),
}


@pytest.mark.parametrize("kind", PROGRAM)
def test_values_are_those_of_the_authors_program(kind):
    """Copies lie on the surface of balls, to the last bit or not: 1.2 would count it as inside."""
    assert values(neighbourhoods(*tables(kind))) == pytest.approx(PROGRAM[kind], abs=1e-12)


@pytest.mark.parametrize("kind", PROGRAM)
def test_the_recorded_values_are_what_the_program_says(kind, capsys):
    prdc = pytest.importorskip("prdc", reason="the oracle is no dependency: pip install prdc")
    found = prdc.compute_prdc(*(t.astype(np.float64) for t in tables(kind)), nearest_k=5)
    assert asdict(neighbourhoods(*tables(kind))) == pytest.approx(found, abs=1e-12)
    assert values(neighbourhoods(*tables(kind))) == pytest.approx(PROGRAM[kind], abs=1e-12)


def test_density_of_copies_does_not_depend_on_the_numbers_or_the_scale():
    for n, d, scale in ((20, 2, 1.0), (300, 40, 1e-3), (1100, 8, 1e4)):
        rng = np.random.default_rng(n)
        real = (rng.normal(size=(n, d)) * scale).astype(np.float32)
        assert values(neighbourhoods(real, real[rng.permutation(n)])) == (1, 1, 1, 1)


def test_a_ball_of_no_size_holds_its_own_copies_and_adds_no_density():
    """Six reals that are one image have radius 0 at k = 5; a fake that is the same covers them."""
    rng = np.random.default_rng(4)
    real = rng.normal(size=(40, 3)).astype(np.float32)
    real[:6] = 20
    fake = np.concatenate([real[:1], rng.normal(size=(39, 3)).astype(np.float32) + 50])
    found = neighbourhoods(real, fake)
    assert values(found) == pytest.approx(direct(real, fake, 5))
    assert (found.precision, found.coverage, found.density) == (1 / 40, 6 / 40, 0)


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
