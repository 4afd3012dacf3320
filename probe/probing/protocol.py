"""How one backbone is scored from the features of reals and fakes.

`FAIR` is the design's protocol (design 1.2): standardised features, a strength chosen on the
training half alone, both halves held out in turn. `PAPER` is the procedure of "Ensembling
Off-the-shelf Models for GAN Training" as its code runs it (method 2.2).
"""

import math
import os
import warnings
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

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
from probe.runtime import numpy_stream

CHANCE = -math.log(2)

# The walk from strong to weak regularisation ends where the cross-validated loss lies this far
# above its least value. A smaller bump is no end: directions of large variance are fitted first,
# and those that tell the classes apart may come later.
RISE = 0.01
# Tolerance of the fits that only compare strengths; it shrinks with the loss, as gradients do
# where the classes separate. On 1 000 x 1 280 training features the final score moved by at most
# 5e-4 nats against a search at 1e-6, from scores of -0.44 to -0.0002.
SEARCH_TOLERANCE = 3e-4
MOST_WORKERS = 3


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """A way to score features.

    Attributes:
        name: "fair" or "paper".
        probe: a name of `PROBES`.
        standardise: whether to use zero mean and unit deviation of the training half.
        strengths: values of C, ascending; several are chosen among by cross-validated log loss
            on the training half alone, one is used as it is.
        repeats: number of random half/half splits.
        folds: of the inner cross-validation.
        swap: whether each half is held out in turn, so that every image is.
        above_chance: what must lie above chance for the sets to count as told apart: the "score",
            or the "accuracy" where fixed regularisation makes a good probe overconfident.
    """

    name: str
    probe: str
    standardise: bool
    strengths: tuple[float, ...]
    repeats: int = 3
    folds: int = 3
    swap: bool = True
    above_chance: Literal["score", "accuracy"] = "score"


# From so strong that nothing is learnt (identical sets must sit at chance, not below) to so weak
# that separable sets are fitted.
FAIR = Protocol(
    name="fair",
    probe="logistic",
    standardise=True,
    strengths=tuple(10 ** (e / 2) for e in range(-12, 5)),
)
# Method 2.2 d-e. The stated difference: the reference draws fresh fakes in each repeat, here they
# are generated once and each repeat splits them anew, as it does the reals.
PAPER = Protocol(
    name="paper",
    probe="reference",
    standardise=False,
    strengths=(0.2,),
    swap=False,
    above_chance="accuracy",
)
PROTOCOLS: Mapping[str, Protocol] = {"fair": FAIR, "paper": PAPER}


@dataclass(frozen=True)
class ProbeResult:
    """The score of one backbone.

    Attributes:
        score: mean held-out log-probability of the correct class, nats, at most 0; chance is
            -0.693. The mean over images under `FAIR`, over splits under `PAPER`; both are the
            mean of `image_scores` weighted by `image_counts`.
        accuracy: held-out share of images on the right side of probability 1/2, mean over splits.
        auroc: held-out area under the ROC curve, mean over splits.
        image_scores: float64 (n_real + n_fake,), reals first: each image's log-probability of its
            class, nats, mean over the splits that held it out. NaN where none did, which happens
            to about one image in eight under `PAPER`, never under `FAIR`.
        image_logits: float64 (n_real + n_fake,): mean held-out log-odds, positive for
            "generated"; NaN likewise.
        image_counts: int64 (n_real + n_fake,): by how many splits the image was held out.
        strengths: the C of every fit, in the order of `splits`.
        unconverged: how many of these fits stopped before they met their tolerance.
        n_real: number of reals.
        n_fake: number of fakes.
    """

    score: float
    accuracy: float
    auroc: float
    image_scores: np.ndarray
    image_logits: np.ndarray
    image_counts: np.ndarray
    strengths: tuple[float, ...]
    unconverged: int
    n_real: int
    n_fake: int

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return the result as arrays, for the store."""
        return {
            "image_scores": self.image_scores,
            "image_logits": self.image_logits,
            "image_counts": self.image_counts,
            "strengths": np.array(self.strengths, dtype=np.float64),
            "numbers": np.array(
                [self.score, self.accuracy, self.auroc, self.unconverged, self.n_real, self.n_fake],
                dtype=np.float64,
            ),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "ProbeResult":
        """Return the result that `to_arrays` wrote."""
        score, accuracy, auroc, unconverged, n_real, n_fake = arrays["numbers"].tolist()
        return cls(
            score=score,
            accuracy=accuracy,
            auroc=auroc,
            image_scores=arrays["image_scores"],
            image_logits=arrays["image_logits"],
            image_counts=arrays["image_counts"],
            strengths=tuple(arrays["strengths"].tolist()),
            unconverged=int(unconverged),
            n_real=int(n_real),
            n_fake=int(n_fake),
        )


def splits(
    n_real: int, n_fake: int, protocol: Protocol, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (training, held-out) indices into the stacked reals and fakes, one pair per fit.

    Stratified: half of each class, the larger half in training first where a class is odd. A pure
    function of its arguments, so every backbone sees the same splits.

    Args:
        n_real: number of reals.
        n_fake: number of fakes.
        protocol: says how many repeats, and whether the halves swap.
        seed: of the permutations.

    Returns:
        int64 arrays; `repeats` pairs, twice as many when halves swap.
    """
    pairs = []
    for repeat in range(protocol.repeats):
        rng = numpy_stream(seed, "split", repeat)
        real = rng.permutation(n_real)
        fake = n_real + rng.permutation(n_fake)
        middle_real, middle_fake = -(-n_real // 2), -(-n_fake // 2)
        first = np.concatenate([real[:middle_real], fake[:middle_fake]])
        second = np.concatenate([real[middle_real:], fake[middle_fake:]])
        pairs.append((first, second))
        if protocol.swap:
            pairs.append((second, first))
    return pairs


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
    shape = (len(pairs), len(y))
    logits, accuracies, aurocs, unconverged = np.full(shape, np.nan), [], [], 0
    # Products with one matrix row at a time gain nothing from BLAS threads, and where other
    # programs run these threads wait for each other (60 times slower was measured).
    with threadpool_limits(1, user_api="blas"), sklearn.config_context(assume_finite=True):
        strengths = _choose_strengths(x, y, pairs, protocol, seed)
        for i, ((train, test), strength) in enumerate(zip(pairs, strengths, strict=True)):
            fit_x, held_x = _prepare(x[train], x[test], protocol)
            logits[i, test], converged = _fit(fit_x, y[train], held_x, strength, protocol)
            accuracies.append(float(((logits[i, test] > 0) == y[test]).mean()))
            aurocs.append(float(roc_auc_score(y[test], logits[i, test])))
            unconverged += not converged
    scores = _log_likelihood(logits, y)
    counts = np.isfinite(scores).sum(axis=0)
    known = np.where(counts > 0, counts, np.nan)
    return ProbeResult(
        score=float(np.nansum(scores) / counts.sum()),
        accuracy=float(np.mean(accuracies)),
        auroc=float(np.mean(aurocs)),
        image_scores=np.nansum(scores, axis=0) / known,
        image_logits=np.nansum(logits, axis=0) / known,
        image_counts=counts,
        strengths=tuple(strengths),
        unconverged=unconverged,
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


def _fit(
    x: np.ndarray, y: np.ndarray, held_out: np.ndarray, strength: float, protocol: Protocol
) -> tuple[np.ndarray, bool]:
    """Return the held-out log-odds of one fit, and whether it met its tolerance."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        probe = PROBES[protocol.probe](strength).fit(x, y)
    converged = not any(issubclass(w.category, ConvergenceWarning) for w in caught)
    return probe.decision_function(held_out), converged


def _prepare(
    train: np.ndarray, test: np.ndarray, protocol: Protocol
) -> tuple[np.ndarray, np.ndarray]:
    """Return both halves as the probe sees them: float64 when standardised, else untouched."""
    if not protocol.standardise:
        return train, test
    return reduce(*standardise(train, test))


def standardise(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centre and scale by the training half's statistics, so that feature scale cannot matter.

    A column whose deviation is lost in float32 rounding is constant and becomes zero in both
    halves: the training half can say nothing about it.

    Args:
        train: float (n, d).
        test: float (m, d).

    Returns:
        float64 copies.
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
    return train, test


def reduce(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rotate wide features into the row space of the training half: n coordinates instead of d.

    Exact: the weights of an L2-regularised linear probe lie in the span of its training rows, and
    neither loss nor penalty changes under rotation. Done where d > 2 n; below, the rotation costs
    more than it saves.

    Args:
        train: float64 (n, d).
        test: float64 (m, d).
    """
    if train.shape[1] <= 2 * len(train):
        return train, test
    basis, coordinates = scipy.linalg.qr(train.T, mode="economic", check_finite=False)
    return np.ascontiguousarray(coordinates.T), test @ basis


def _choose_strengths(
    x: np.ndarray,
    y: np.ndarray,
    pairs: list[tuple[np.ndarray, np.ndarray]],
    protocol: Protocol,
    seed: int,
) -> list[float]:
    """Return the strength for each split, found on its training half alone."""
    if len(protocol.strengths) == 1:
        return list(protocol.strengths) * len(pairs)

    def choose(number: int) -> float:
        train = pairs[number][0]
        fit_x, _ = _prepare(x[train], x[train[:1]], protocol)
        rng = numpy_stream(seed, "folds", number)
        # Contexts do not reach into threads.
        with sklearn.config_context(assume_finite=True):
            return choose_strength(fit_x.astype(np.float32), y[train], protocol, rng)

    workers = min(MOST_WORKERS, len(pairs), os.cpu_count() or 1)
    # Filters belong to the process: set once around all threads. An unconverged fit here only
    # blurs the choice of a strength; the fits that give scores are watched one by one.
    with warnings.catch_warnings(), ThreadPoolExecutor(workers) as pool:
        warnings.simplefilter("ignore")
        return list(pool.map(choose, range(len(pairs))))


def choose_strength(
    x: np.ndarray, y: np.ndarray, protocol: Protocol, rng: np.random.Generator
) -> float:
    """Return the strength with the least cross-validated log loss.

    Walks from strong to weak regularisation, each fit starting from the one before, and ends
    where the loss has clearly risen. Where the best gain over chance is within its standard
    error, the strongest is taken instead, which learns next to nothing: on real features of
    identical sets a lucky weak one is overconfident and was seen to score -1.0. At 100 images
    this costs faint differences about 0.01 nats.

    Args:
        x: float32 (n, d), standardised.
        y: int (n,), 0 or 1.
        protocol: gives strengths, folds and the probe.
        rng: of the folds.
    """
    fold = np.empty(len(y), dtype=int)
    for label in (0, 1):
        members = np.flatnonzero(y == label)
        fold[rng.permutation(members)] = np.arange(len(members)) % protocol.folds
    probes, parts = [], []
    for f in range(protocol.folds):
        probe = PROBES[protocol.probe](protocol.strengths[0])
        probes.append(probe.set_params(warm_start=True))
        parts.append((x[fold != f], y[fold != f], x[fold == f], y[fold == f]))
    best, least, doubtful = protocol.strengths[0], math.inf, True
    for strength in protocol.strengths:
        gains = []
        tolerance = SEARCH_TOLERANCE * max(1e-4, min(1.0, least / -CHANCE))
        for probe, (fit_x, fit_y, held_x, held_y) in zip(probes, parts, strict=True):
            probe.set_params(C=strength, tol=tolerance).fit(fit_x, fit_y)
            gains.append(_log_likelihood(probe.decision_function(held_x), held_y) - CHANCE)
        gain = np.concatenate(gains)
        loss = -CHANCE - float(gain.mean())
        if loss < least:
            best, least = strength, loss
            doubtful = gain.mean() <= gain.std() / math.sqrt(len(gain))
        if loss > least + RISE:
            break
    return protocol.strengths[0] if doubtful else best
