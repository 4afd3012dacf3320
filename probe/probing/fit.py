"""A backbone's features become its score: splits prepared, C weighed, probes fitted, judged.

Kept apart from `protocol` because scikit-learn takes 0.8 s to import, and a ranking whose results
are remembered fits nothing.
"""

import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import sklearn
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

from probe.errors import ImagesError, ProbeError
from probe.probing.c_search import PIECE_BYTES, WeighedC, weigh_c
from probe.probing.config import LEAST_IMAGES
from probe.probing.influence import DIRECTIONS, Fitted, HeldOut, influences, log_likelihood
from probe.probing.probes import PROBES
from probe.probing.protocol import ProbePlan, ProbeResult, Protocol
from probe.probing.units import strata
from probe.streams import numpy_stream

MOST_WORKERS = 3  # each holds a standardised training half, in double and in single precision
# Fewer features are fitted faster by one thread: many products of microseconds each wait for
# Python's lock (2 000 x 1 280 took 1.4 s in two threads and 1.0 s in one).
THREADS_FROM_BYTES = 16 * 2**20


def evaluate(
    real: np.ndarray,
    fake: np.ndarray,
    *,
    protocol: Protocol,
    seed: int,
    groups: np.ndarray | None = None,
) -> ProbeResult:
    """Score one backbone's features by the splits, probes and judge of a protocol.

    Args:
        real: float32 (N, d).
        fake: float32 (M, d).
        protocol: `FAIR` or `PAPER`.
        seed: of the splits and folds.
        groups: int (N + M,), reals first, the same for copies of one image, which no split parts;
            no copies by default.

    Raises:
        ImagesError: fewer than 16 of a class.
        ProbeError: features of different widths, or not finite.
    """
    real, fake = _check(real, fake)
    groups = np.arange(len(real) + len(fake)) if groups is None else groups
    plan = ProbePlan(
        n_real=len(real), n_fake=len(fake), protocol=protocol, seed=seed, groups=groups
    )
    large = real.nbytes + fake.nbytes >= THREADS_FROM_BYTES
    workers = min(MOST_WORKERS, os.cpu_count() or 1) if large else 1
    numbers = range(len(plan.pairs))
    with _calm() as caught, ThreadPoolExecutor(workers) as pool:
        done = list(pool.map(lambda number: _split(real, fake, plan, number), numbers))
    return join_splits(plan, done, _unconverged(caught))


def evaluate_split(
    real: np.ndarray, fake: np.ndarray, plan: ProbePlan, number: int
) -> tuple["Split", int]:
    """Do one split of `evaluate`, which is what `join_splits` of all of them gives.

    Args:
        real: float32 (N, d).
        fake: float32 (M, d).
        plan: see `ProbePlan`.
        number: of the split.

    Returns:
        What the split gives, and how many of its fits did not converge.

    Raises:
        ImagesError: fewer than 16 of a class.
        ProbeError: features of different widths, or not finite.
    """
    real, fake = _check(real, fake)
    with _calm() as caught:
        split = _split(real, fake, plan, number)
    return split, _unconverged(caught)


@contextmanager
def _calm() -> Iterator[list[warnings.WarningMessage]]:
    """Run BLAS in one thread and collect warnings.

    Products with one matrix row at a time gain nothing from BLAS threads, and where other programs
    run these threads wait for each other (60 times slower was measured). Warnings belong to the
    process: they are caught once, around all threads.
    """
    with (
        threadpool_limits(1, user_api="blas"),
        warnings.catch_warnings(record=True) as caught,
    ):
        warnings.simplefilter("always")
        yield caught


def _unconverged(caught: Sequence[warnings.WarningMessage]) -> int:
    return sum(issubclass(w.category, ConvergenceWarning) for w in caught)


def _split(real: np.ndarray, fake: np.ndarray, plan: ProbePlan, number: int) -> "Split":
    """Fit and judge the probe of one split."""
    (train, test), y, protocol = plan.pairs[number], plan.y, plan.protocol
    # What is standardised is so in double precision: gathered in it, it is held once.
    dtype = np.float64 if protocol.standardise else np.float32
    fit_x, space = _prepare(_rows(real, fake, train, dtype), protocol)
    rng = numpy_stream(plan.seed, "folds", number)
    c = weigh_c(fit_x, y[train], plan.groups[train], protocol, rng)
    fitted = Fitted(fit_x, y[train], c, _fit(fit_x, y[train], c, protocol))
    held = _held(real, fake, test, space)
    logits = held.apply(fitted.members.T)
    signs = _signs(plan)
    return Split(
        c=c.mean,
        logits=logits @ c.shares,
        weights=space.raw(fitted.weights[:, None])[:, 0],
        influences=influences(fitted, held, logits, (signs[train], signs[test]), protocol.judges),
    )


@dataclass(frozen=True)
class Split:
    """What one split gives.

    Attributes:
        c: the mean of the values of C.
        logits: float64 (h,): log-odds of the held-out half.
        weights: float64 (d + 1,), on features as they come.
        influences: see `influences`.
    """

    c: float
    logits: np.ndarray
    weights: np.ndarray
    influences: dict[str, tuple[np.ndarray, np.ndarray]]


def _signs(plan: ProbePlan) -> np.ndarray:
    """Return the random directions in which pairs of images act, (n, `DIRECTIONS`)."""
    unit, _ = strata(plan.y, plan.groups)
    rng = numpy_stream(plan.seed, "pairs")
    return rng.choice([-1.0, 1.0], (unit.max() + 1, DIRECTIONS))[unit]


def join_splits(plan: ProbePlan, done: Sequence[Split], unconverged: int) -> ProbeResult:
    """Return what all splits of a plan say together.

    Args:
        plan: see `ProbePlan`.
        done: one per split, in order.
        unconverged: how many fits did not converge.
    """
    pairs, y = plan.pairs, plan.y
    logits = np.full((len(pairs), len(y)), np.nan)
    accuracies, aurocs = [], []
    total = {judge: np.zeros((len(y), 1 + DIRECTIONS)) for judge in done[0].influences}
    for i, ((train, test), split) in enumerate(zip(pairs, done, strict=True)):
        logits[i, test] = split.logits
        accuracies.append(float(((split.logits > 0) == y[test]).mean()))
        aurocs.append(float(roc_auc_score(y[test], split.logits)))
        for judge, (of_train, of_test) in split.influences.items():
            total[judge][train] += len(test) * of_train
            total[judge][test] += len(test) * of_test
    scores = log_likelihood(logits, np.where(y == 1, 1, -1))[0]
    counts = np.isfinite(scores).sum(axis=0)
    known = np.where(counts > 0, counts, np.nan)
    mean_weights = np.mean([split.weights for split in done], axis=0)
    return ProbeResult(
        score=float(np.nansum(scores) / counts.sum()),
        accuracy=float(np.mean(accuracies)),
        auroc=float(np.mean(aurocs)),
        image_scores=np.nansum(scores, axis=0) / known,
        image_logits=np.nansum(logits, axis=0) / known,
        image_counts=counts,
        influences={j: (v / counts.sum()).astype(np.float32) for j, v in total.items()},
        groups=plan.groups,
        c_values=tuple(split.c for split in done),
        weights=mean_weights[:-1],
        intercept=float(mean_weights[-1]),
        unconverged=unconverged,
        n_real=plan.n_real,
        n_fake=plan.n_fake,
    )


def _fit(x: np.ndarray, y: np.ndarray, c: WeighedC, protocol: Protocol) -> np.ndarray:
    """Return the weights of one probe per C, float64 (m, k + 1), the intercept last."""
    probe = PROBES[protocol.probe](float(c.values[0])).set_params(warm_start=True)
    members = []
    with sklearn.config_context(assume_finite=True):  # contexts do not reach into threads
        for value in c.values:
            probe.set_params(C=float(value)).fit(x, y)
            members.append(np.append(probe.coef_[0], probe.intercept_))
    return np.array(members, dtype=np.float64)


def _check(real: np.ndarray, fake: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return features that a probe can be fitted to, float32."""
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
        real, fake = (x.astype(np.float32, copy=False) for x in (real, fake))
    broken = sum(int((~np.isfinite(x)).any(axis=1).sum()) for x in (real, fake))
    if broken:
        raise ProbeError(
            f"The features of {broken} of {len(real) + len(fake)} images hold NaN or infinite "
            "values; run the backbone with --precision fp32, or leave it out."
        )
    return real, fake


def _rows(
    real: np.ndarray, fake: np.ndarray, indices: np.ndarray, dtype: type = np.float32
) -> np.ndarray:
    """Return rows by their numbers, fakes counted on from the reals; one table would be a copy."""
    x = np.empty((len(indices), real.shape[1]), dtype)
    is_fake = indices >= len(real)
    x[~is_fake] = real[indices[~is_fake]]
    x[is_fake] = fake[indices[is_fake] - len(real)]
    return x


def _held(real: np.ndarray, fake: np.ndarray, indices: np.ndarray, space: "_Space") -> HeldOut:
    """Return some rows as the held-out half.

    In pieces: in double precision the rows would be the largest table of a fit.
    """
    step = max(1, PIECE_BYTES // (8 * real.shape[1]))
    parts = [slice(start, start + step) for start in range(0, len(indices), step)]

    def apply(weights: np.ndarray) -> np.ndarray:
        weights = space.raw(weights)
        products = [_rows(real, fake, indices[part]) @ weights[:-1] for part in parts]
        return np.concatenate(products) + weights[-1]

    def gather(values: np.ndarray) -> np.ndarray:
        sums = sum(_rows(real, fake, indices[part]).T @ values[part] for part in parts)
        return space.fitted(np.vstack([sums, values.sum(axis=0)]))

    return HeldOut((indices >= len(real)).astype(int), apply, gather)


@dataclass(frozen=True)
class _Space:
    """Where a probe is fitted: features less a mean, times a scale, in the coordinates of a basis.

    Attributes:
        mean, scale: float64 (d,).
        basis: float64 (d, k), or None if the coordinates are the features'.
    """

    mean: np.ndarray
    scale: np.ndarray
    basis: np.ndarray | None = None

    def raw(self, weights: np.ndarray) -> np.ndarray:
        """Take weights (k + 1, c), the intercept last, to features as they come, (d + 1, c)."""
        inner = weights[:-1] if self.basis is None else self.basis @ weights[:-1]
        inner = self.scale[:, None] * inner
        return np.vstack([inner, weights[-1:] - self.mean @ inner])

    def fitted(self, sums: np.ndarray) -> np.ndarray:
        """Take sums over features as they come (d + 1, c) to fitted ones: transposed `raw`."""
        inner = self.scale[:, None] * (sums[:-1] - self.mean[:, None] * sums[-1])
        return np.vstack([inner if self.basis is None else self.basis.T @ inner, sums[-1:]])


def _prepare(train: np.ndarray, protocol: Protocol) -> tuple[np.ndarray, _Space]:
    """Return a training half as the probe sees it: standardised in place, or untouched."""
    if not protocol.standardise:
        return train, _Space(np.zeros(train.shape[1]), np.ones(train.shape[1]))
    mean, scale = standardise(train)
    train, basis = reduce(train)
    return train, _Space(mean, scale, basis)


def standardise(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centre and scale in place, so that feature scale cannot matter.

    A column whose deviation is lost in float32 rounding is constant and becomes zero: a probe can
    learn nothing from it.

    Args:
        x: float64 (n, d), changed.

    Returns:
        What was subtracted and what was multiplied by, (d,) each.
    """
    largest = np.maximum(x.max(axis=0), -x.min(axis=0))
    mean = x.mean(axis=0)
    x -= mean
    deviation = np.sqrt(np.einsum("ij,ij->j", x, x) / len(x))
    constant = deviation <= 1e-7 * largest
    scale = np.where(constant, 0.0, 1 / np.where(constant, 1.0, deviation))
    x *= scale
    return mean, scale


def reduce(x: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Rotate wide features into the space of their rows: n coordinates instead of d.

    Exact: the weights of an L2-regularised linear probe lie in the span of its training rows, and
    neither loss nor penalty changes under rotation. Done where d > 2 n; below, the rotation costs
    more than it saves.

    Args:
        x: float64 (n, d).

    Returns:
        The rows, and the basis (d, n) of the new coordinates, None where nothing was rotated.
    """
    if x.shape[1] <= 2 * len(x):
        return x, None
    factors = scipy.linalg.qr(x.T, mode="economic", check_finite=False)
    basis, coordinates = map(np.asarray, factors)
    return np.ascontiguousarray(coordinates.T), basis
