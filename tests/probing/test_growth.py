"""The learning curve: nested subsets of what is there, at a bounded cost."""

from dataclasses import replace

import numpy as np
import pytest

import probe
from probe.probing import fit
from probe.probing.fit import evaluate
from probe.probing.protocol import FAIR, PROTOCOLS


def features(n=80, d=6):
    rng = np.random.default_rng(0)
    tables = {}
    for name, shift in (("clear", 1.5), ("dim", 0.7)):
        real, fake = rng.standard_normal((2, n, d))
        fake[:, 0] += shift
        tables[name] = (real, fake)
    return tables


@pytest.mark.parametrize("protocol", ["fair", "paper"])
def test_points_are_scores_of_the_first_images(protocol):
    tables = features()
    options = probe.RankOptions(protocol=protocol)
    ranking = probe.rank_features(tables, options=options)
    board = ranking.leaderboard
    assert [(p.name, p.images) for p in board.curve] == [
        (row.name, images) for row in board.ranked for images in (20, 40, 80)
    ]
    for row in board.ranked:
        points = {p.images: p for p in board.curve if p.name == row.name}
        assert (points[80].score, points[80].score_low) == (row.score, row.score_low)
        for images in (20, 40):
            real, fake = (
                np.asarray(table[ranking.indices[kind][:images]], np.float32)
                for kind, table in zip(("real", "fake"), tables[row.name], strict=True)
            )
            once = replace(PROTOCOLS[protocol], repeats=1)
            assert points[images].score == evaluate(real, fake, protocol=once, seed=0).score
            assert points[images].score_low < points[images].score < points[images].score_high


def test_too_few_images_have_no_curve():
    assert {p.images for p in probe.rank_features(features(60)).leaderboard.curve} == {30, 60}
    assert {p.images for p in probe.rank_features(features(20)).leaderboard.curve} == {20}


def test_a_curve_costs_less_than_half_of_the_scores(monkeypatch):
    """In rows that probes are fitted to."""
    spent = {"scores": 0, "curve": 0}

    def counted(real, fake, *, protocol, **others):
        fits = protocol.repeats * (1 + protocol.swap)
        part = "scores" if protocol.repeats == FAIR.repeats else "curve"
        spent[part] += fits * (len(real) + len(fake)) // 2
        return evaluate(real, fake, protocol=protocol, **others)

    monkeypatch.setattr(fit, "evaluate", counted)
    probe.rank_features(features())
    assert 0 < spent["curve"] < 0.5 * spent["scores"]


def test_the_page_draws_it(tmp_path):
    ranking = probe.rank_features(features(), out=tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "Score against images" in page
    for point in ranking.leaderboard.curve:
        assert f"{point.score:.3f}" in page
    assert probe.Leaderboard.from_dict(ranking.leaderboard.to_dict()) == ranking.leaderboard
    few = probe.rank_features(features(20), out=tmp_path / "few")
    assert few.leaderboard.curve and "Score against" not in (
        (tmp_path / "few" / "report.html").read_text()
    )
