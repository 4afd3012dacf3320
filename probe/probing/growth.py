"""How a ranking grows with the number of images, and how many would tell the first two apart."""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import ndtr

from probe.probing.leaderboard import Leaderboard, Learned
from probe.probing.protocol import ProbeResult
from probe.probing.uncertainty import Spread, spread

SHARES = (4, 2)  # a learning curve has points at these fractions of the images, and at all
POWER = 0.8  # with which the images that are named tell two backbones apart
MOST_TIMES, STEPS = 1e9, 4000


def learning_curve(
    board: Leaderboard, fewer: Mapping[int, Mapping[str, ProbeResult]]
) -> list[Learned]:
    """Return the scores of the ranked backbones against the number of images.

    Args:
        board: the ranking on all images.
        fewer: images of each class → backbone → its result on so many of them.
    """
    points = []
    for row in board.ranked:
        for images, results in fewer.items():
            result = results[row.name]
            bounds = spread([result], "score", board.seed).interval(0)
            points.append(Learned(row.name, images, result.score, *bounds))
        assert row.score is not None and row.score_low is not None and row.score_high is not None
        whole = min(board.n_real, board.n_fake)
        points.append(Learned(row.name, whole, row.score, row.score_low, row.score_high))
    return points


def images_needed(judged: Spread, members: Sequence[int], images: int) -> float:
    """Return how many images of each class would tell the first two apart; see `times_needed`.

    Args:
        judged: how the backbones vary together.
        members: the backbones that are compared, the first two in front.
        images: of each class, that they were scored on.
    """
    one, other = members[:2]
    error, _ = judged.error(judged.contrast(one, other))
    gap = float(judged.values[one] - judged.values[other])
    least = judged.least_difference(one, other, members)
    return images * times_needed(gap / error, least / error)


def times_needed(gap: float, bar: float) -> float:
    """Return how many times the images tell two backbones apart with a chance of `POWER`.

    Standard errors shrink with the root of the number of images. The chance is a mean over what the
    true gap may be, normal around the measured one (the assurance of O'Hagan and others, 2005): a
    plan that takes the measured gap for the true one fails more often than it says.

    Args:
        gap: the measured gap, in standard errors.
        bar: the gap at which they are told apart, in standard errors.
    """
    times = np.geomspace(1, MOST_TIMES, STEPS)
    mean, deviation = abs(gap) * np.sqrt(times), np.sqrt(1 + times)
    told = ndtr((mean - bar) / deviation) + ndtr((-mean - bar) / deviation)  # never falls
    return float(times[np.argmax(told >= POWER)])
