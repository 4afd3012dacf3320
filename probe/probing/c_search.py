"""The choice of a probe's C: cross-validation inside one training half."""

import math

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, log_expit

from probe.probing.protocol import CHANCE, Protocol
from probe.probing.units import error_of_mean, strata

# The walk from strong to weak regularisation ends where the cross-validated loss lies this far
# above its least value. A smaller bump is no end: directions of large variance are fitted first,
# and those that tell the classes apart may come later.
RISE = 0.01
# Tolerance of the fits that only compare values of C; it shrinks with the loss, as gradients do
# where the classes separate. On 1 000 x 1 280 training features the final score moved by at most
# 5e-4 nats against a search at 1e-6, from scores of -0.44 to -0.0002.
SEARCH_TOLERANCE = 3e-4
PIECE_BYTES = 4 * 2**20  # of features at a time: read once from memory, then from the cache


def choose_c(
    x: np.ndarray,
    y: np.ndarray,
    groups: np.ndarray,
    protocol: Protocol,
    rng: np.random.Generator,
) -> float:
    """Return the C with the least cross-validated log loss.

    Walks from strong to weak regularisation, each fit starting where the two before it point, and
    ends where the loss has clearly risen. Where the best gain over chance is within its standard
    error, the strongest is taken instead, which learns next to nothing: on real features of
    identical sets a lucky weak one is overconfident and was seen to score -1.0. At 100 images
    this costs faint differences about 0.01 nats.

    Args:
        x: float (n, d), standardised.
        y: int (n,), 0 or 1.
        groups: int (n,), the same for copies of one image, which share a fold.
        protocol: gives the values of C and the folds.
        rng: of the folds.
    """
    unit, parts = strata(y, groups)
    fold = np.empty(unit.max() + 1, dtype=int)
    for part in parts:
        fold[rng.permutation(part)] = np.arange(len(part)) % protocol.folds
    folds = Folds(x, y, fold[unit])
    unit = unit[folds.order]
    weights = before = folds.nothing_learnt()
    best, least, doubtful = protocol.c_values[0], math.inf, True
    for c in protocol.c_values:
        tolerance = SEARCH_TOLERANCE * max(1e-4, min(1.0, least / -CHANCE))
        # The path is smooth: the next weights lie about as far on as these from those before.
        before, weights = weights, folds.fit(2 * weights - before, c, tolerance)
        gain = folds.held_out(weights) - CHANCE
        loss = -CHANCE - float(gain.mean())
        if loss < least:
            best, least = c, loss
            doubtful = gain.mean() <= error_of_mean(gain - gain.mean(), unit)
        if loss > least + RISE:
            break
    return protocol.c_values[0] if doubtful else best


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
