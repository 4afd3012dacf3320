"""How strongly a probe is regularised: a cross-validation inside one training half weighs C."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, log_expit

from probe.probing.protocol import CHANCE, Protocol
from probe.probing.units import strata

# The walk from strong to weak regularisation ends where the cross-validated loss lies this far
# above its least value. A smaller bump is no end: directions of large variance are fitted first,
# and those that tell the classes apart may come later.
RISE = 0.01
# How fast evidence moves the average from one C to another. At 1 the best C takes nearly all, and
# the score jumps between its neighbours from draw to draw, by more than its influences tell.
RATE = 0.1
LEAST_SHARE = 1e-3  # of the total; a C with less is not worth a fit
# Tolerance of the fits that only compare values of C; it shrinks with the loss, as gradients do
# where the classes separate. On 1 000 x 1 280 training features the final score moved by at most
# 5e-4 nats against a search at 1e-6, from scores of -0.44 to -0.0002.
SEARCH_TOLERANCE = 3e-4
PIECE_BYTES = 4 * 2**20  # of features at a time: read once from memory, then from the cache


@dataclass(frozen=True)
class WeighedC:
    """The values of C whose probes are averaged.

    Attributes:
        values: float64 (m,), ascending.
        shares: float64 (m,), positive, sum 1.
        gains: float64 (m, n): each training image's cross-validated log-probability of its class
            less chance, nats, shared among its copies; zero if there was no choice.
    """

    values: np.ndarray
    shares: np.ndarray
    gains: np.ndarray

    @property
    def mean(self) -> float:
        """The geometric mean of the values by their shares."""
        return float(np.exp(self.shares @ np.log(self.values)))


def weigh_c(
    x: np.ndarray,
    y: np.ndarray,
    groups: np.ndarray,
    protocol: Protocol,
    rng: np.random.Generator,
) -> WeighedC:
    """Weigh the values of C by exp(`RATE` · sum of the cross-validated gains).

    Probes are averaged instead of one being chosen: a choice jumps, so its variation cannot be
    told from one data set, and on real features of identical sets a lucky weak C was seen to
    score -1.0.

    Walks from strong to weak regularisation, each fit starting where the two before it point, and
    ends where the loss has clearly risen.

    Args:
        x: float (n, d), as the probe sees it.
        y: int (n,), 0 or 1.
        groups: int (n,), the same for copies of one image, which share a fold.
        protocol: gives values of C and folds.
        rng: of the folds.
    """
    if len(protocol.c_values) == 1:
        return WeighedC(np.array(protocol.c_values), np.ones(1), np.zeros((1, len(y))))
    gains = _gains(x, y, groups, protocol, rng) * (len(np.unique(groups)) / len(groups))
    evidence = RATE * gains.sum(axis=1)
    shares = np.exp(evidence - evidence.max())
    kept = shares > LEAST_SHARE * shares.sum()
    values = np.array(protocol.c_values[: len(gains)])
    return WeighedC(values[kept], shares[kept] / shares[kept].sum(), gains[kept])


def _gains(
    x: np.ndarray,
    y: np.ndarray,
    groups: np.ndarray,
    protocol: Protocol,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return every image's cross-validated gain over chance at each C that was tried, (m, n)."""
    unit, parts = strata(y, groups)
    fold = np.empty(unit.max() + 1, dtype=int)
    for part in parts:
        fold[rng.permutation(part)] = np.arange(len(part)) % protocol.folds
    folds = Folds(x, y, fold[unit])
    weights = before = folds.nothing_learnt()
    gains, least = [], math.inf
    for c in protocol.c_values:
        tolerance = SEARCH_TOLERANCE * max(1e-4, min(1.0, least / -CHANCE))
        # The path is smooth: the next weights lie about as far on as these from those before.
        before, weights = weights, folds.fit(2 * weights - before, c, tolerance)
        gain = np.empty(len(y))
        gain[folds.order] = folds.held_out(weights) - CHANCE
        gains.append(gain)
        loss = -CHANCE - float(gain.mean())
        least = min(least, loss)
        if loss > least + RISE:
            break
    return np.array(gains)


class Folds:
    """L2 logistic regressions that each leave one fold out, fitted as one problem.

    What they minimise is scikit-learn's, summed over folds. Apart, they took three times as long
    at 500 x 500, most of it around the products, and each needed its own copy of its rows.
    """

    def __init__(self, x: np.ndarray, y: np.ndarray, fold: np.ndarray) -> None:
        self.order = order = np.argsort(fold, kind="stable")
        self.x: np.ndarray = np.empty(x.shape, np.float32)
        step = max(1, PIECE_BYTES // self.x[0].nbytes)
        for start in range(0, len(x), step):  # at once, they would be held once more
            self.x[start : start + step] = x[order[start : start + step]]
        self.sign = np.where(y == 1, 1, -1).astype(np.float32)[order]
        sizes = np.bincount(fold)
        self.rows = len(y) - sizes  # that each regression is fitted to
        ends = np.cumsum(sizes)
        self.held = [slice(*bounds) for bounds in zip(ends - sizes, ends, strict=True)]
        self.pieces = [
            (slice(start, min(start + step, held.stop)), [i for i in range(len(sizes)) if i != out])
            for out, held in enumerate(self.held)
            for start in range(held.start, held.stop, step)
        ]

    def nothing_learnt(self) -> np.ndarray:
        """Return weights (folds, d + 1) of zero; the last of a row is its intercept."""
        return np.zeros((len(self.held), self.x.shape[1] + 1))

    def fit(self, start: np.ndarray, c: float, tolerance: float) -> np.ndarray:
        """Return the weights at `c`, searched from others."""
        options = {"gtol": tolerance, "ftol": 64 * np.finfo(float).eps, "maxiter": 5000}
        found = minimize(
            self.loss,
            start.ravel(),
            args=(c,),
            jac=True,
            method="L-BFGS-B",
            options={**options, "maxls": 50},
        )
        return found.x.reshape(start.shape)

    def loss(self, weights: np.ndarray, c: float) -> tuple[float, np.ndarray]:
        """Return the penalised loss, summed over folds, and its gradient.

        Args:
            weights: float64, flat.
            c: scikit-learn's C.
        """
        weights = weights.reshape(len(self.held), -1)
        w, b = weights[:, :-1].astype(np.float32), weights[:, -1].astype(np.float32)
        losses, gradient = np.zeros(len(weights)), np.zeros_like(weights)
        for rows, fitted in self.pieces:
            x, sign = self.x[rows], self.sign[rows]
            for i in fitted:
                margin = sign * (x @ w[i] + b[i])
                losses[i] -= log_expit(margin).sum(dtype=np.float64)
                slope = sign * expit(-margin)
                gradient[i, :-1] -= slope @ x
                gradient[i, -1] -= slope.sum()
        penalty = weights[:, :-1] / c
        losses += np.einsum("ij,ij->i", weights[:, :-1], penalty) / 2
        gradient[:, :-1] += penalty
        gradient /= self.rows[:, None]
        return float((losses / self.rows).sum()), gradient.ravel()

    def held_out(self, weights: np.ndarray) -> np.ndarray:
        """Return every image's log p(correct class) by the regression that left it out.

        The images are in the order of `order`.
        """
        w, b = weights[:, :-1].astype(np.float32), weights[:, -1]
        logits = [self.x[held] @ w[i] + b[i] for i, held in enumerate(self.held)]
        return log_expit(self.sign * np.concatenate(logits))
