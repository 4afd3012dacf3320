"""Plots: what is cut off, what is labelled, and what is best for its cost."""

import re

import numpy as np
import pytest

from probe.probing.leaderboard import Leaderboard, Row
from probe.reports.cost import cost_figure, frontier
from probe.reports.page import whiskers
from probe.reports.svg import Dots, PointLabels, fitting, log_ticks, plot

CONFIG = {"real": {"path": "a"}, "fake": {"path": "b"}}


def board(*scores: float, speeds=None) -> Leaderboard:
    rows = tuple(
        Row(name=f"b{i}", role="candidate", rank=i + 1, score=score, score_low=score - 0.02,
            score_high=score + 0.01, accuracy=0.9, auroc=0.9,
            images_per_second=None if speeds is None else speeds[i])
        for i, score in enumerate(scores)
    )  # fmt: skip
    return Leaderboard(protocol="fair", seed=0, n_real=9, n_fake=9, resolution=32, rows=rows,
                       config=CONFIG)  # fmt: skip


def dot(whisker: str) -> float | None:
    found = re.search(r'<circle cx="([0-9.]+)"', whisker)
    return float(found[1]) if found else None


def test_one_bad_score_does_not_squash_the_rest():
    drawn = whiskers(board(-0.1, -0.2, -0.25, -5.0))
    assert dot(drawn["b0"]) - dot(drawn["b2"]) > 60  # pixels of 150
    assert dot(drawn["b3"]) is None and "l-8 5l8 5" in drawn["b3"]  # an arrow in its place
    assert not any("l-8 5l8 5" in drawn[name] for name in ("b0", "b1", "b2"))


@pytest.mark.parametrize("scores", [(-0.1, -5.0), (-0.1, -0.3, -0.6), (-0.1, -0.2, -5.0, -5.1)])
def test_what_is_no_outlier_is_shown(scores):
    drawn = whiskers(board(*scores))
    assert all(dot(it) is not None for it in drawn.values())


def test_a_range_without_outliers():
    assert fitting([0, 1, 2], [1, 2, 3]) == (0, 3)
    low, high = fitting([-100, -1, -2, -1.5], [0, 0, 0, 0])
    assert high == 0 and -2.5 < low <= -2


def test_points_below_the_axis_are_arrows():
    points = np.array([[1.0, 0.5], [2.0, -9.0]])
    drawn = plot([Dots(points, "c0")], x=(0, 3), y=(0, 1), xlabel="", ylabel="", label="")
    assert len(re.findall(r"h0", drawn)) == 1 and len(re.findall(r"l3 5l3-5", drawn)) == 1


def test_labels_do_not_cover_each_other():
    points = np.array([[1.0, 1.0], [1.0, 1.01], [1.0, 2.0]])
    layer = PointLabels(points, ["first", "second", "third"])
    drawn = plot([layer], x=(0, 3), y=(0, 3), xlabel="", ylabel="", label="")
    assert "first" in drawn and "third" in drawn and "second" not in drawn


def test_logarithmic_ticks_are_round_and_inside():
    assert log_ticks(3, 120) == [5, 10, 20, 50, 100]
    assert log_ticks(0.1, 1e6) == [10.0**p for p in range(-1, 7)]
    drawn = plot([], x=(1, 100), y=(0, 1), xlabel="", ylabel="", label="", log_x=True)
    at = {t: float(u) for u, t in re.findall(r'x="([0-9.]+)" y="207">([0-9]+)<', drawn)}
    assert at["10"] - at["1"] == pytest.approx(at["100"] - at["10"], abs=0.2)


def test_the_best_for_its_cost():
    shown = board(-0.1, -0.2, -0.3, -0.4, speeds=(5.0, 50.0, 20.0, 200.0))
    assert [row.name for row in frontier(shown.rows)] == ["b0", "b1", "b3"]
    figure = cost_figure(shown)
    assert figure is not None and ("b2", "20", "-0.300") in figure.rows
    assert cost_figure(board(-0.1, -0.2)) is None
