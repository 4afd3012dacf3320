"""Held-out log-odds become probabilities, and a threshold gets its error rates."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import betaincinv, expit, log_expit, logit

LEVEL = 0.95  # of the error rates' intervals


@dataclass(frozen=True)
class Calibration:
    """Platt scaling: probability = sigmoid(slope · log-odds + intercept).

    Attributes:
        slope: at least 0: a probe that ranks held-out images the wrong way round knows nothing.
        intercept: in nats.
    """

    slope: float
    intercept: float

    def probability(self, logits: np.ndarray) -> np.ndarray:
        """Return the probability of being generated, equal numbers of both classes assumed."""
        return expit(self.slope * logits + self.intercept)


@dataclass(frozen=True)
class ErrorRate:
    """A share of held-out images that a threshold gets wrong.

    Attributes:
        value: the share.
        low, high: its 95 % interval (Clopper and Pearson 1934).
        count: how many images it is a share of.
    """

    value: float
    low: float
    high: float
    count: int


def calibrate(logits: np.ndarray, generated: np.ndarray) -> Calibration:
    """Fit the scaling to held-out log-odds (Platt 1999, with its smoothed targets).

    Two parameters and a monotone curve: the order of images is kept, and a threshold on the
    probability is one on the log-odds. Isotonic regression needs a thousand images and more, and
    says 0 and 1 where it has seen no error; with smoothed targets these are never reached, even
    where the classes separate. Both classes weigh the same whatever their numbers.

    Args:
        logits: float (n,), finite, of probes that had not seen the image.
        generated: bool (n,); both classes.
    """
    n, m = int((~generated).sum()), int(generated.sum())
    target = np.where(generated, (m + 1) / (m + 2), 1 / (n + 2))
    weight = np.where(generated, 0.5 / m, 0.5 / n)
    size = max(float(np.abs(logits).mean()), 1e-12)
    design = np.stack([logits / size, np.ones(len(logits))])

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        z = parameters @ design
        likelihood = target * log_expit(z) + (1 - target) * log_expit(-z)
        return -float(weight @ likelihood), design @ (weight * (expit(z) - target))

    parameters = minimize(loss, np.zeros(2), jac=True, method="BFGS", options={"gtol": 1e-9}).x
    if parameters[0] < 0:
        share = float(weight @ target)
        parameters = np.array([0.0, logit(share)])
    return Calibration(float(parameters[0] / size), float(parameters[1]))


def error_rates(
    probabilities: np.ndarray, generated: np.ndarray, threshold: float
) -> tuple[ErrorRate, ErrorRate]:
    """Return the false positive and the false negative rate of a threshold.

    Args:
        probabilities: float (n,), held out.
        generated: bool (n,).
        threshold: above it an image is called generated.

    Returns:
        The share of reals that are called generated, and that of fakes that are not.
    """
    called = probabilities > threshold
    return _rate(called[~generated]), _rate(~called[generated])


def _rate(wrong: np.ndarray) -> ErrorRate:
    k, n, tail = int(wrong.sum()), len(wrong), (1 - LEVEL) / 2
    low = float(betaincinv(k, n - k + 1, tail)) if k else 0.0
    high = float(betaincinv(k + 1, n - k, 1 - tail)) if k < n else 1.0
    return ErrorRate(k / n, low, high, n)
