"""Turn held-out log-odds into probabilities, and measure a threshold's error rates."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import betaincinv, expit, log_expit, logit

LEVEL = 0.95  # of the error rates' intervals


@dataclass(frozen=True)
class Calibration:
    """Platt scaling: probability = sigmoid(slope · log-odds + intercept).

    Attributes:
        slope: at least 0, since a probe that ranks held-out images in reverse has learned nothing.
        intercept: in nats.
    """

    slope: float
    intercept: float

    def probability(self, logits: np.ndarray) -> np.ndarray:
        """Return the probability of being generated, assuming equal numbers of both classes."""
        return expit(self.slope * logits + self.intercept)


@dataclass(frozen=True)
class ErrorRate:
    """The share of held-out images that a threshold gets wrong.

    Attributes:
        value: the share.
        low, high: its 95 % interval (Clopper and Pearson 1934).
        count: number of images in the denominator.
    """

    value: float
    low: float
    high: float
    count: int


def calibrate(logits: np.ndarray, generated: np.ndarray) -> Calibration:
    """Fit the scaling to held-out log-odds (Platt 1999, with its smoothed targets).

    It has two parameters and is monotone, so it keeps the order of images, and a threshold on the
    probability is a threshold on the log-odds. Isotonic regression needs a thousand images or more
    and outputs 0 and 1 if it saw no error there; smoothed targets avoid that even if the classes
    separate. Both classes have the same total weight, regardless of their sizes.

    Args:
        logits: float (n,), finite, from probes that had not seen the image.
        generated: bool (n,); both classes must occur.
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
        threshold: images above it are called generated.

    Returns:
        The share of reals called generated, and the share of fakes not called generated.
    """
    called = probabilities > threshold
    return _rate(called[~generated]), _rate(~called[generated])


def _rate(wrong: np.ndarray) -> ErrorRate:
    k, n, tail = int(wrong.sum()), len(wrong), (1 - LEVEL) / 2
    low = float(betaincinv(k, n - k + 1, tail)) if k else 0.0
    high = float(betaincinv(k + 1, n - k, 1 - tail)) if k < n else 1.0
    return ErrorRate(k / n, low, high, n)
