"""How one backbone is scored: the protocols, the splits they ask for, the result.

`FAIR` is the default: standardised features, C weighed on the training half alone, both halves
held out in turn. `PAPER` is the procedure of "Ensembling Off-the-shelf Models for GAN Training" as
its code runs it. `probe.probing.fit.evaluate` follows them.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from probe.probing.units import images_of, strata
from probe.streams import numpy_stream

CHANCE = -math.log(2)


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """A way to score features.

    Attributes:
        name: "fair" or "paper".
        probe: a name of `PROBES`.
        standardise: whether to use zero mean and unit deviation of the training half.
        c_values: values of C, ascending; the probes of several are averaged, weighed by the
            cross-validated log loss of a logistic regression on the training half alone; one is
            used as it is.
        repeats: number of random half/half splits.
        folds: of the inner cross-validation.
        swap: whether each half is held out in turn, so that every image is.
        criterion: what orders the backbones, and must lie above chance for the sets to count as
            told apart: "score" or "accuracy".
    """

    name: str
    probe: str
    standardise: bool
    c_values: tuple[float, ...]
    repeats: int = 3
    folds: int = 3
    swap: bool = True
    criterion: Literal["score", "accuracy"] = "score"

    @property
    def judges(self) -> tuple[str, ...]:
        """What has a variance: the score, and what orders the backbones."""
        return tuple(dict.fromkeys(("score", self.criterion)))


# From so strong that nothing is learnt (identical sets must sit at chance, not below) to so weak
# that separable sets are fitted.
FAIR = Protocol(
    name="fair",
    probe="logistic",
    standardise=True,
    c_values=tuple(10.0**e for e in range(-6, 3)),
)
# docs/leaderboard.md lists the differences from the reference program.
PAPER = Protocol(
    name="paper",
    probe="reference",
    standardise=False,
    c_values=(0.2,),
    swap=False,
    criterion="accuracy",
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
        influences: "score" and what else the protocol judges by → float32 (n_real + n_fake,
            1 + directions): what leaving each image out does to it, and the part that acts in
            pairs of images, in random directions; see `probe.probing.influence`.
        groups: int64 (n_real + n_fake,): the same number for copies of one image.
        c_values: the mean C of every split, in the order of `splits`.
        weights: float64 (d,) of the mean of all splits' probes, on features as they come: its
            log-odds are `features @ weights + intercept`.
        intercept: of the same.
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
    influences: Mapping[str, np.ndarray]
    groups: np.ndarray
    c_values: tuple[float, ...]
    weights: np.ndarray
    intercept: float
    unconverged: int
    n_real: int
    n_fake: int

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return the result as arrays, for the store."""
        return {
            "image_scores": self.image_scores,
            "image_logits": self.image_logits,
            "image_counts": self.image_counts,
            **{f"influences.{judge}": table for judge, table in self.influences.items()},
            "groups": self.groups,
            "c_values": np.array(self.c_values, dtype=np.float64),
            "weights": np.append(self.weights, self.intercept),
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
            influences={
                name.removeprefix("influences."): table
                for name, table in arrays.items()
                if name.startswith("influences.")
            },
            groups=arrays["groups"],
            c_values=tuple(arrays["c_values"].tolist()),
            weights=arrays["weights"][:-1],
            intercept=float(arrays["weights"][-1]),
            unconverged=int(unconverged),
            n_real=int(n_real),
            n_fake=int(n_fake),
        )


def splits(
    n_real: int, n_fake: int, protocol: Protocol, seed: int, groups: np.ndarray | None = None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (training, held-out) indices into the stacked reals and fakes, one pair per fit.

    Stratified: half of each class, the larger half in training first if a class is odd. Copies of
    an image stay together, and half of the distinct images are dealt out; so a half can have more
    images than the other. A pure function of its arguments, so every backbone sees the same splits.

    Args:
        n_real: number of reals.
        n_fake: number of fakes.
        protocol: says how many repeats, and whether the halves swap.
        seed: of the permutations.
        groups: int (n_real + n_fake,), the same for copies of one image; no copies by default.

    Returns:
        int64 arrays; `repeats` pairs, twice as many when halves swap.
    """
    y = np.repeat([0, 1], [n_real, n_fake])
    unit, parts = strata(y, np.arange(len(y)) if groups is None else groups)
    pairs = []
    for repeat in range(protocol.repeats):
        rng = numpy_stream(seed, "split", repeat)
        orders = [rng.permutation(part) for part in parts]
        halves = (
            np.concatenate([order[: -(-len(order) // 2)] for order in orders]),
            np.concatenate([order[-(-len(order) // 2) :] for order in orders]),
        )
        first, second = (images_of(half, unit) for half in halves)
        pairs.append((first, second))
        if protocol.swap:
            pairs.append((second, first))
    return pairs


@dataclass(frozen=True, kw_only=True)
class ProbePlan:
    """What the probes of all backbones have in common.

    Attributes:
        n_real: number of reals.
        n_fake: number of fakes.
        protocol: `FAIR` or `PAPER`.
        seed: of the splits and folds.
        groups: int (n_real + n_fake,), reals first, the same for copies of one image, which no
            split parts.
    """

    n_real: int
    n_fake: int
    protocol: Protocol
    seed: int
    groups: np.ndarray

    @property
    def y(self) -> np.ndarray:
        """The class of each image, 0 for reals and 1 for fakes."""
        return np.repeat([0, 1], [self.n_real, self.n_fake])

    @cached_property
    def pairs(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Training and held-out indices of each fit, see `splits`."""
        return splits(self.n_real, self.n_fake, self.protocol, self.seed, self.groups)
