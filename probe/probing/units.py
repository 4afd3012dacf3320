"""What a split deals out: single images, and all copies of one image together.

Copies are given as groups: int (n,), the same number for images that are the same. Images that are
their own only copy are dealt out as if nobody had asked.
"""

import math

import numpy as np


def strata(y: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return each image's unit, and the units that one class has alone or both have in common.

    Units are numbered as they first appear, so that without copies a unit is its image.

    Args:
        y: int (n,), 0 for reals and 1 for fakes.
        groups: int (n,), the same for copies of one image.

    Returns:
        int64 (n,), and the units of reals alone, of fakes alone and of both; none of them is empty.
    """
    _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    unit = np.argsort(np.argsort(first))[inverse]
    real, fake = (np.bincount(unit[y == label], minlength=len(first)) > 0 for label in (0, 1))
    held = (real & ~fake, fake & ~real, real & fake)
    return unit, [np.flatnonzero(part) for part in held if part.any()]


def images_of(units: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """Return the images of some units, in the units' order.

    Args:
        units: without repeats.
        unit: of each image, see `strata`.
    """
    place = np.full(int(unit.max()) + 1, -1)
    place[units] = np.arange(len(units))
    images = np.flatnonzero(place[unit] >= 0)
    return images[np.argsort(place[unit[images]], kind="stable")]


def error_of_mean(residuals: np.ndarray, unit: np.ndarray) -> float:
    """Return the standard error of a mean over images; copies of one say one thing together.

    Args:
        residuals: float (n,), the values less their mean.
        unit: of each image, see `strata`.
    """
    together = np.bincount(unit, weights=residuals)
    return math.sqrt(float(together @ together)) / len(residuals)


def firsts(y: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return which images are the first of their copies in their class, bool (n,)."""
    _, first = np.unique(np.stack([y, groups]), axis=1, return_index=True)
    found = np.zeros(len(y), dtype=bool)
    found[first] = True
    return found
