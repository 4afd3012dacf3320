"""A backbone's features become its score: splits prepared, strengths chosen, probes fitted, judged.

Kept apart from `protocol` because scikit-learn takes 0.8 s to import, and a ranking whose results
are remembered fits nothing.
"""

import os
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import scipy.linalg
import sklearn
from scipy.special import log_expit
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

from probe.errors import ImagesError, ProbeError
from probe.probing.config import LEAST_IMAGES
from probe.probing.probes import PROBES
from probe.probing.protocol import ProbeResult, Protocol, splits
from probe.probing.strength import choose_strength
from probe.runtime import numpy_stream

MOST_WORKERS = 3  # each holds a standardised copy of the features, in double precision
# Fewer features are fitted faster by one thread: many products of microseconds each wait for
# Python's lock (2 000 x 1 280 took 1.4 s in two threads and 1.0 s in one).
THREADS_FROM_BYTES = 16 * 2**20


def evaluate(real: np.ndarray, fake: np.ndarray, *, protocol: Protocol, seed: int) -> ProbeResult:
    """Score one backbone's features (design 1.2, steps 2 and 3; method 2.2).

    Args:
        real: float32 (N, d).
        fake: float32 (M, d).
        protocol: `FAIR` or `PAPER`.
        seed: of the splits and folds.

    Raises:
        ImagesError: fewer than 16 of a class.
        ProbeError: features of different widths, or not finite.
    """
    x, y = _stack(real, fake)
    pairs = splits(len(real), len(fake), protocol, seed)

    def score(number: int) -> tuple[float, np.ndarray, np.ndarray]:
        """Return the strength, the held-out log-odds and the weights of one split."""
        train, test = pairs[number]
        fit_x, held_x, raw = _prepare(x[train], x[test], protocol)
        strength = protocol.strengths[0]
        if len(protocol.strengths) > 1:
            rng = numpy_stream(seed, "folds", number)
            strength = choose_strength(fit_x, y[train], protocol, rng)
        with sklearn.config_context(assume_finite=True):  # contexts do not reach into threads
            probe = PROBES[protocol.probe](strength).fit(fit_x, y[train])
            return strength, probe.decision_function(held_x), raw(probe.coef_[0], probe.intercept_)

    workers = min(MOST_WORKERS, os.cpu_count() or 1) if x.nbytes >= THREADS_FROM_BYTES else 1
    # Products with one matrix row at a time gain nothing from BLAS threads, and where other
    # programs run these threads wait for each other (60 times slower was measured). Warnings
    # belong to the process: they are caught once, around all threads.
    with (
        threadpool_limits(1, user_api="blas"),
        warnings.catch_warnings(record=True) as caught,
        ThreadPoolExecutor(workers) as pool,
    ):
        warnings.simplefilter("always")
        strengths, held_out, weights = zip(*pool.map(score, range(len(pairs))), strict=True)
    logits = np.full((len(pairs), len(y)), np.nan)
    accuracies, aurocs = [], []
    for i, ((_, test), found) in enumerate(zip(pairs, held_out, strict=True)):
        logits[i, test] = found
        accuracies.append(float(((found > 0) == y[test]).mean()))
        aurocs.append(float(roc_auc_score(y[test], found)))
    scores = _log_likelihood(logits, y)
    counts = np.isfinite(scores).sum(axis=0)
    known = np.where(counts > 0, counts, np.nan)
    mean_weights = np.mean(weights, axis=0)
    return ProbeResult(
        score=float(np.nansum(scores) / counts.sum()),
        accuracy=float(np.mean(accuracies)),
        auroc=float(np.mean(aurocs)),
        image_scores=np.nansum(scores, axis=0) / known,
        image_logits=np.nansum(logits, axis=0) / known,
        image_counts=counts,
        strengths=strengths,
        weights=mean_weights[:-1],
        intercept=float(mean_weights[-1]),
        unconverged=sum(issubclass(w.category, ConvergenceWarning) for w in caught),
        n_real=len(real),
        n_fake=len(fake),
    )


def _stack(real: np.ndarray, fake: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return checked features (N + M, d), reals first, and labels: 1 for fakes."""
    if min(len(real), len(fake)) < LEAST_IMAGES:
        raise ImagesError(
            f"{len(real)} real and {len(fake)} generated images are too few for a probe; at least "
            f"{LEAST_IMAGES} of each are needed."
        )
    if real.ndim != 2 or real.shape[1:] != fake.shape[1:] or real.shape[1] == 0:
        raise ProbeError(
            f"Features of reals {real.shape} and fakes {fake.shape} do not go together; two "
            "tables of the same width are needed."
        )
    with np.errstate(over="ignore"):  # found just below
        x = np.concatenate([real, fake]).astype(np.float32, copy=False)
    broken = int((~np.isfinite(x)).any(axis=1).sum())
    if broken:
        raise ProbeError(
            f"The features of {broken} of {len(x)} images hold NaN or infinite values; run the "
            "backbone with --precision fp32, or leave it out."
        )
    return x, np.repeat([0, 1], [len(real), len(fake)])


def _log_likelihood(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return log p(correct class), nats, of log-odds for class 1; stable at any margin."""
    return log_expit(np.where(y == 1, logits, -logits))


def _prepare(
    train: np.ndarray, test: np.ndarray, protocol: Protocol
) -> tuple[np.ndarray, np.ndarray, Callable[[np.ndarray, np.ndarray], np.ndarray]]:
    """Return both halves as the probe sees them: float64 when standardised, else untouched.

    And a function that takes a probe's weights and intercept back to features as they come.
    """
    if not protocol.standardise:
        return train, test, lambda weights, intercept: np.append(weights, intercept)
    train, test, mean, scale = standardise(train, test)
    train, test, basis = reduce(train, test)

    def raw(weights: np.ndarray, intercept: np.ndarray) -> np.ndarray:
        weights = scale * (weights if basis is None else basis @ weights)
        return np.append(weights, intercept - weights @ mean)

    return train, test, raw


def standardise(
    train: np.ndarray, test: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Centre and scale by the training half's statistics, so that feature scale cannot matter.

    A column whose deviation is lost in float32 rounding is constant and becomes zero in both
    halves: the training half can say nothing about it.

    Args:
        train: float (n, d).
        test: float (m, d).

    Returns:
        float64 copies, what was subtracted and what was multiplied by, (d,).
    """
    train, test = train.astype(np.float64), test.astype(np.float64)
    largest = np.maximum(train.max(axis=0), -train.min(axis=0))
    mean = train.mean(axis=0)
    train -= mean
    test -= mean
    deviation = np.sqrt(np.einsum("ij,ij->j", train, train) / len(train))
    constant = deviation <= 1e-7 * largest
    scale = np.where(constant, 0.0, 1 / np.where(constant, 1.0, deviation))
    train *= scale
    test *= scale
    return train, test, mean, scale


def reduce(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Rotate wide features into the row space of the training half: n coordinates instead of d.

    Exact: the weights of an L2-regularised linear probe lie in the span of its training rows, and
    neither loss nor penalty changes under rotation. Done where d > 2 n; below, the rotation costs
    more than it saves.

    Args:
        train: float64 (n, d).
        test: float64 (m, d).

    Returns:
        Both halves, and the basis (d, n) of the new coordinates, None where nothing was rotated.
    """
    if train.shape[1] <= 2 * len(train):
        return train, test, None
    basis, coordinates = scipy.linalg.qr(train.T, mode="economic", check_finite=False)
    return np.ascontiguousarray(coordinates.T), test @ basis, basis
