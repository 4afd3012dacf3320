"""Copies of an image: no split, fold or resample parts them; without any, nothing changes."""

import numpy as np
import pytest

from probe.probing import c_search
from probe.probing.agreement import _stacked as stacked
from probe.probing.fit import evaluate
from probe.probing.protocol import CHANCE, FAIR, PAPER, splits
from probe.probing.standing import Setting, build_rows
from probe.probing.uncertainty import spread
from probe.probing.units import firsts, images_of, strata
from probe.streams import numpy_stream

SETTING = Setting(failures={}, facts={}, resolution=None, audit=[], notes=[], config={})


def draw(n, d, gap=0.0, seed=0):
    rng = np.random.default_rng(seed)
    real, fake = rng.standard_normal((2, n, d), dtype=np.float32)
    fake[:, 0] += gap
    return real, fake


def repeated(table, groups):
    """Return rows such that images of one group are the same."""
    return table[np.unique(groups, return_inverse=True)[1]]


def crossed(groups, parts):
    """Return the groups that stand in more than one part."""
    found = [set(groups[part]) for part in parts]
    return {g for i, one in enumerate(found) for other in found[i + 1 :] for g in one & other}


# Three reals and two fakes are copied; image 4 is real and generated.
MIXED = np.array([0, 1, 0, 3, 4, 5, 0, 7, 8, 4, 10, 11, 11, 13, 14, 15])
Y = np.repeat([0, 1], 8)


def test_units_are_images_by_class_and_copies_are_one():
    unit, parts = strata(Y, MIXED)
    assert unit.tolist() == [0, 1, 0, 2, 3, 4, 0, 5, 6, 3, 7, 8, 8, 9, 10, 11]
    assert [part.tolist() for part in parts] == [[0, 1, 2, 4, 5], [6, 7, 8, 9, 10, 11], [3]]
    assert images_of(np.array([3, 0, 5]), unit).tolist() == [4, 9, 0, 2, 6, 7]
    once = np.flatnonzero(firsts(Y, MIXED)).tolist()
    assert once == [0, 1, 3, 4, 5, 7, 8, 9, 10, 11, 13, 14, 15]


@pytest.mark.parametrize(("n", "m"), [(60, 60), (75, 60), (17, 16)])
@pytest.mark.parametrize("protocol", [FAIR, PAPER])
def test_without_copies_splits_deal_out_single_images(n, m, protocol):
    expected = []
    for repeat in range(protocol.repeats):
        rng = numpy_stream(5, "split", repeat)
        real, fake = rng.permutation(n), n + rng.permutation(m)
        a, b = -(-n // 2), -(-m // 2)
        halves = np.append(real[:a], fake[:b]), np.append(real[a:], fake[b:])
        expected += [halves, halves[::-1]] if protocol.swap else [halves]
    for groups in (None, np.arange(n + m), np.random.default_rng(0).permutation(n + m)):
        for found, known in zip(splits(n, m, protocol, 5, groups), expected, strict=True):
            np.testing.assert_array_equal(found[0], known[0])
            np.testing.assert_array_equal(found[1], known[1])


def folds_of(monkeypatch, x, y, groups, seed=3):
    """Return the folds that a search for the strength uses."""
    seen = []

    class Spy(c_search.Folds):
        def __init__(self, x, y, fold):
            seen.append(fold)
            super().__init__(x, y, fold)

    monkeypatch.setattr(c_search, "Folds", Spy)
    c_search.weigh_c(x, y, groups, FAIR, np.random.default_rng(seed))
    return seen[0]


def test_without_copies_folds_deal_out_single_images(monkeypatch):
    x, y = np.concatenate(draw(40, 5, 1.0)), np.repeat([0, 1], 40)
    rng, expected = np.random.default_rng(3), np.empty(80, int)
    for label in (0, 1):
        members = np.flatnonzero(y == label)
        expected[rng.permutation(members)] = np.arange(40) % 3
    np.testing.assert_array_equal(folds_of(monkeypatch, x, y, np.arange(80) * 7), expected)


def copies(n, distinct, seed=0):
    """Return groups of n images of which `distinct` differ, some copied often."""
    rng = np.random.default_rng(seed)
    extra = rng.choice(distinct, size=n - distinct, p=rng.dirichlet(np.ones(distinct)))
    return rng.permutation(np.concatenate([np.arange(distinct), extra]))


@pytest.mark.parametrize("protocol", [FAIR, PAPER])
def test_no_split_parts_copies_and_each_half_gets_half_of_what_is_distinct(protocol):
    groups = np.concatenate([copies(60, 25), 100 + copies(60, 40, seed=1)])
    groups[60:70] = groups[:10]  # and some are in both sets
    for train, test in splits(60, 60, protocol, 0, groups):
        assert sorted([*train, *test]) == list(range(120))
        assert not crossed(groups, (train, test))
        for part in (train, test):
            assert 0.35 < len(np.unique(groups[part])) / len(np.unique(groups)) < 0.65
            assert {0, 1} == set(part >= 60)


def test_no_fold_parts_copies(monkeypatch):
    groups = np.concatenate([copies(40, 20), 100 + copies(40, 30, seed=1)])
    groups[40:44] = groups[:4]
    x, y = np.concatenate(draw(40, 5, 1.0)), np.repeat([0, 1], 40)
    fold = folds_of(monkeypatch, x, y, groups)
    assert set(fold) == {0, 1, 2}
    assert not crossed(groups, [fold == f for f in range(3)])


@pytest.mark.parametrize("protocol", [FAIR, PAPER])
def test_copies_leak_unless_they_are_known(protocol):
    """Sets that differ in nothing, each of 20 images copied five times."""
    groups = np.concatenate([np.repeat(np.arange(20), 5), 20 + np.repeat(np.arange(20), 5)])
    told = {True: [], False: []}
    for seed in range(5):
        real, fake = (np.repeat(x, 5, axis=0) for x in draw(20, 60, seed=seed))
        for known in (True, False):
            found = evaluate(
                real, fake, protocol=protocol, seed=seed, groups=groups if known else None
            )
            told[known].append(found.accuracy)
    assert np.mean(told[False]) > 0.95
    assert 0.35 < np.mean(told[True]) < 0.6


def test_doubling_every_image_tells_nothing_new():
    """Neither the score nor its interval takes a copy for one more image."""
    real, fake = draw(60, 10, 2.5)
    once = evaluate(real, fake, protocol=FAIR, seed=0)
    twice = evaluate(
        np.repeat(real, 2, axis=0), np.repeat(fake, 2, axis=0), protocol=FAIR, seed=0,
        groups=np.repeat(np.arange(120), 2),
    )  # fmt: skip
    assert twice.score == pytest.approx(once.score, abs=0.02)
    np.testing.assert_array_equal(twice.image_scores[::2], twice.image_scores[1::2])
    widths = []
    for result in (once, twice):
        low, high = spread([result], "score", 0).interval(0)
        widths.append(high - low)
    assert widths[1] == pytest.approx(widths[0], rel=0.1)


def test_images_in_both_sets_are_not_told_apart_and_the_others_are():
    real, fake = draw(80, 10, 4.0)
    fake[:30] = real[:30]
    groups = np.arange(160)
    groups[80:110] = groups[:30]
    found = evaluate(real, fake, protocol=FAIR, seed=0, groups=groups)
    pairs = found.image_logits[:30], found.image_logits[80:110]
    np.testing.assert_allclose(pairs[0], pairs[1])
    both = np.concatenate([found.image_scores[:30], found.image_scores[80:110]])
    alone = np.concatenate([found.image_scores[30:80], found.image_scores[110:]])
    assert both.mean() < CHANCE < -0.5 < alone.mean()


class Entry:
    def __init__(self, name):
        self.name, self.role = name, "candidate"
        self.task = self.data = self.license = ""


def test_many_copies_of_few_images_are_no_evidence():
    """Twenty images each, of which luck alone has 12 right, seem told apart when copied tenfold."""
    rng = np.random.default_rng(1)
    real, fake = (np.repeat(x, 10, axis=0) for x in rng.standard_normal((2, 20, 3), np.float32))
    groups = np.repeat(np.arange(40), 10)
    result = evaluate(real, fake, protocol=PAPER, seed=0, groups=groups)
    hits = np.repeat((np.arange(40) % 20) < 12, 10)  # 60 % right, by twenty images of each class
    side = np.where(np.arange(400) < 200, -1, 1)
    lucky = {
        "image_scores": np.where(hits, -0.5, -0.9),
        "image_logits": np.where(hits, side, -side),
        "influences.accuracy": np.stack([(0.6 - hits) / 399, np.zeros(400)], axis=1),
        "numbers": np.array([-0.66, 0.6, 0.7, 0, 200, 200]),
    }
    counts = {"image_counts": np.full(400, 3)}
    above = []
    for known in (groups, np.arange(400)):
        arrays = {**result.to_arrays(), **lucky, **counts, "groups": known}
        one = type(result).from_arrays(arrays)
        rows, _ = build_rows([Entry("a")], {"a": one}, SETTING, protocol="paper", seed=0)
        above.append(rows[0].above_chance)
    assert above == [False, True]


def test_stacking_keeps_copies_together():
    """A log-odds that says which image it is helps on copies alone."""
    rng = np.random.default_rng(0)
    logits = np.stack([np.repeat(rng.normal(size=40), 5) for _ in range(12)])
    y, groups = np.arange(200) >= 100, np.repeat(np.arange(40), 5)
    apart = stacked(logits, y, np.arange(200)).mean()
    assert stacked(logits, y, groups).mean() < CHANCE < apart
