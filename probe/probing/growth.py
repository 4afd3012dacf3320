"""How a ranking grows with the number of images: how many would tell the first two apart."""

import math

from scipy.optimize import brentq
from scipy.special import ndtr

POWER = 0.8  # with which the images that are named tell two backbones apart
MOST_TIMES = 1e9


def times_needed(gap: float, bar: float) -> float:
    """Return how many times the images tell two backbones apart with a chance of `POWER`.

    Standard errors shrink with the root of the number of images. The chance is a mean over what the
    true gap may be, normal around the measured one (the assurance of O'Hagan and others, 2005): a
    plan that takes the measured gap for the true one fails far more often.

    Args:
        gap: the measured gap, in standard errors.
        bar: the gap at which they are told apart, in standard errors.
    """

    def lacking(log_times: float) -> float:
        times = math.exp(log_times)
        mean, deviation = abs(gap) * math.sqrt(times), math.sqrt(1 + times)
        told = ndtr((mean - bar) / deviation) + ndtr((-mean - bar) / deviation)
        return POWER - float(told)

    if lacking(0.0) <= 0:
        return 1.0
    return math.exp(brentq(lacking, 0.0, math.log(MOST_TIMES)))
