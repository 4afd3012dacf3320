"""What several backbones have in common: do they find the same images telling?

Works on the held-out log-odds of a ranking alone, so it costs no further pass and no probe on
thousands of features.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from scipy.stats import rankdata

from probe.probing.protocol import CHANCE, ProbeResult
from probe.probing.units import error_of_mean, images_of, strata
from probe.streams import numpy_stream

CLIP = 12.0  # nats of log-odds: beyond this an image is as clear as any


@dataclass(frozen=True)
class Pick:
    """One backbone of a greedy choice.

    Attributes:
        name: the backbone's.
        score: of all picks so far together, nats; by held-out stacking, see `greedy_picks`.
        gain: score minus that of the picks before; of the first, minus chance.
    """

    name: str
    score: float
    gain: float


def agreement(results: Mapping[str, ProbeResult]) -> np.ndarray:
    """Return how alike two backbones order the images of a class.

    Spearman's correlation of the held-out log-odds, taken within reals and within generated images
    and averaged: taken over both, any two backbones that work would agree.

    Args:
        results: name → result of the same images.

    Returns:
        float64 (B, B) in [-1, 1], symmetric, ones on the diagonal; NaN where a backbone gives all
        images of a class the same log-odds.
    """
    logits, y, _ = _logits(results)
    total = np.zeros((len(logits), len(logits)))
    for part in (logits[:, ~y], logits[:, y]):
        ranks = np.apply_along_axis(rankdata, 1, part)
        with np.errstate(invalid="ignore", divide="ignore"):
            total += np.atleast_2d(np.corrcoef(ranks))
    return total / 2


def greedy_picks(results: Mapping[str, ProbeResult], names: Sequence[str], k: int) -> list[Pick]:
    """Return the k backbones that together tell the images apart best, one added at a time.

    Those picked so far are joined by a logistic regression on their held-out log-odds, scored on
    the half that it was not fitted on. That is stacking (Wolpert 1992): cheaper than a joint probe
    on all their features, which `--strategy greedy` fits, and not always of one mind with it. The
    list ends where the best gain may be luck, counting how many were tried.

    Args:
        results: name → result of the same images.
        names: those that may be picked.
        k: how many, at most.
    """
    left = [name for name in names if name in results]
    if not left:
        return []
    table, y, groups = _logits({name: results[name] for name in left})
    logits = dict(zip(left, table, strict=True))
    chosen: list[Pick] = []
    before = np.full(len(y), CHANCE)
    while left and len(chosen) < k:
        taken = [logits[pick.name] for pick in chosen]
        found = {n: _stacked(np.stack([*taken, logits[n]]), y, groups) for n in left}
        best = max(left, key=lambda n: found[n].mean())
        gain = found[best] - before
        if not _beyond_luck(gain, y, groups, len(left)):
            break
        chosen.append(Pick(best, float(found[best].mean()), float(gain.mean())))
        before = found[best]
        left.remove(best)
    return chosen


def _beyond_luck(gain: np.ndarray, y: np.ndarray, groups: np.ndarray, tried: int) -> bool:
    """Return whether a mean gain is above 0, at a false alarm of 2.5 % over all that were tried.

    A stack learns few weights, so that only the images' own variation counts; near 0 it is that
    of pairs of images, which doubles it.
    """
    unit, _ = strata(y, groups)
    residual = gain.copy()
    for label in (False, True):
        residual[y == label] -= gain[y == label].mean()
    error = math.sqrt(2) * error_of_mean(residual, unit)
    return float(gain.mean()) > error * NormalDist().inv_cdf(1 - 0.025 / tried)


def _logits(
    results: Mapping[str, ProbeResult],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return log-odds of the images that every backbone held out, (B, n).

    And whether each was generated, and its group, (n,) both.
    """
    first = next(iter(results.values()))
    logits = np.stack([result.image_logits for result in results.values()])
    known = np.isfinite(logits).all(axis=0)
    generated = np.arange(logits.shape[1]) >= first.n_real
    return logits[:, known], generated[known], first.groups[known]


def _stacked(logits: np.ndarray, y: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return the held-out log-probabilities (n,) of a regression on log-odds (B, n), nats."""
    from sklearn.linear_model import LogisticRegression

    x = logits.T.clip(-CLIP, CLIP)
    rng = numpy_stream(0, "stacking")
    unit, parts = strata(y, groups)
    order = np.concatenate([rng.permutation(part) for part in parts])
    halves = [images_of(units, unit) for units in (order[0::2], order[1::2])]
    found = np.empty(len(y))
    for fit, held in (halves, halves[::-1]):
        model = LogisticRegression(class_weight="balanced").fit(x[fit], y[fit])
        found[held] = model.predict_log_proba(x[held])[np.arange(len(held)), y[held].astype(int)]
    return found
