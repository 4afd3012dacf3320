"""Uncertainty: the same images' influences on every backbone become intervals and comparisons."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import ndtr, ndtri, stdtr, stdtrit

from probe.probing.protocol import ProbeResult
from probe.probing.units import strata
from probe.streams import numpy_stream

LEVEL = 0.95
DRAWS = 4000
# A jackknife counts what acts in pairs of images twice (Efron and Stein 1981). Half of the surplus
# is taken off: all of it would leave intervals too narrow on few images, where the surplus itself
# is uncertain. docs/leaderboard.md has the coverage.
SURPLUS = 0.5
LEAST_FREEDOM = 3.0
NOTHING = 1e-12  # a variance below is rounding


@dataclass(frozen=True)
class Spread:
    """The values of several backbones on the same images, and how they vary together.

    The variation is that of drawing the images anew, fitting and choosing C again included.

    Attributes:
        values: float64 (B,).
        effects: float64 (units, B): the influence of every image, copies together.
        pairs: float64 (units · directions, B): what of it acts in pairs; its mean square over
            directions, summed over units, is twice the variance of the pairs.
        seed: of draws.
        level: at which claims of who is better hold together; intervals are of 95 %.
    """

    values: np.ndarray
    effects: np.ndarray
    pairs: np.ndarray
    seed: int
    level: float = LEVEL

    @cached_property
    def covariance(self) -> np.ndarray:
        """Of the values, float64 (B, B)."""
        return self.effects.T @ self.effects - SURPLUS / 2 * self.pairs.T @ self.pairs

    @cached_property
    def draws(self) -> np.ndarray:
        """Deviations of the values as other images could give, float64 (`DRAWS`, B)."""
        size, axes = np.linalg.eigh(self.covariance)
        size[size < NOTHING * size.max()] = 0  # equal backbones have equal draws
        normal = numpy_stream(self.seed, "draws").standard_normal((DRAWS, len(self.values)))
        return normal @ (axes * np.sqrt(size)).T

    def error(self, contrast: np.ndarray) -> tuple[float, float]:
        """Return the standard error of a combination of values, and its degrees of freedom.

        The freedom is Satterthwaite's: a few images with large influence make a sum of squares
        uncertain.

        Args:
            contrast: float (B,).
        """
        squares = (self.effects @ contrast) ** 2
        whole = float(squares.sum())
        surplus = SURPLUS / 2 * float(((self.pairs @ contrast) ** 2).sum())
        freedom = 2 * whole**2 / max(float(((squares - squares.mean()) ** 2).sum()), 1e-300)
        return max(whole - surplus, whole / 2) ** 0.5, max(freedom, LEAST_FREEDOM)

    def contrast(self, i: int, other: int | None = None) -> np.ndarray:
        """Return the combination that is backbone i's value, or its value minus the other's."""
        contrast = np.zeros(len(self.values))
        contrast[i] = 1
        if other is not None:
            contrast[other] -= 1
        return contrast

    def interval(self, i: int) -> tuple[float, float]:
        """Return the 95 % interval of backbone i's score, which is never above 0.

        Symmetric in the logarithm of the loss: near 0 a score varies more the larger it is.
        """
        error, freedom = self.error(self.contrast(i))
        loss = max(-float(self.values[i]), 1e-300)
        reach = min(float(stdtrit(freedom, (1 + LEVEL) / 2)) * error / loss, 700.0)
        return -loss * float(np.exp(reach)), -loss * float(np.exp(-reach))

    def gap(self, i: int, other: int) -> tuple[float, float]:
        """Return the 95 % interval of backbone i's value minus the other's, on the same images."""
        error, freedom = self.error(self.contrast(i, other))
        gap = float(self.values[i] - self.values[other])
        reach = float(stdtrit(freedom, (1 + LEVEL) / 2)) * error
        return gap - reach, gap + reach

    def above(self, i: int, bar: float, tried: int) -> bool:
        """Return whether i is above a bar, at a false alarm of 2.5 % over all that were tried."""
        error, freedom = self.error(self.contrast(i))
        # The floor is for features that hold nothing at all, where both sides are rounding.
        reach = float(stdtrit(freedom, 1 - (1 - LEVEL) / 2 / tried)) * error
        return float(self.values[i]) - bar > max(1e-9, reach)

    def best(self, contenders: np.ndarray) -> np.ndarray:
        """Return each backbone's share of draws in which no contender is better.

        Args:
            contenders: bool (B,), at least one True; the others get 0.

        Returns:
            float64 (B,), sum 1: exact ties share a draw evenly.
        """
        able = np.where(contenders, self.values + self.draws, -np.inf)
        top = able >= able.max(axis=1, keepdims=True) - 1e-9
        return (top / top.sum(axis=1, keepdims=True)).mean(axis=0)

    def better(self, members: Sequence[int]) -> np.ndarray:
        """Return who is better than whom, all of it true with the chance `level`, 95 % by default.

        All pairs are compared with the largest of their differences in draws from their joint
        distribution, and those that are left once more (step-down, Romano and Wolf 2005).

        Args:
            members: the backbones that are compared.

        Returns:
            bool (members, members): whether that of the row is better than that of the column.
        """
        found = np.zeros((len(members), len(members)), dtype=bool)
        tests = self._tests(members)
        if not tests:
            return found
        size = np.array([abs(deviate) for deviate, _ in tests.values()])
        drawn = np.abs(np.stack([draws for _, draws in tests.values()]))
        left = np.ones(len(tests), dtype=bool)
        while left.any():
            bar = np.quantile(drawn[left].max(axis=0), self.level)
            told = left & (size > bar)
            if not told.any():
                break
            left &= ~told
        for ((a, b), (deviate, _)), still in zip(tests.items(), left, strict=True):
            if not still:
                better, worse = (a, b) if deviate > 0 else (b, a)
                found[better, worse] = True
        return found

    def least_difference(self, i: int, other: int, members: Sequence[int]) -> float:
        """Return the least difference of two that `better` tells in its first step.

        A true difference of this size is found in half of all draws; infinite if the two are equal
        on every image.

        Args:
            i: one of the two.
            other: the other one.
            members: the backbones that are compared, both among them.
        """
        tests = self._tests(members)
        if self._compare(i, other) is None:
            return float("inf")
        drawn = np.abs(np.stack([draws for _, draws in tests.values()]))
        error, freedom = self.error(self.contrast(i, other))
        bar = np.quantile(drawn.max(axis=0), self.level)
        return -float(stdtrit(freedom, ndtr(-bar))) * error

    def _tests(self, members: Sequence[int]) -> dict[tuple[int, int], tuple[float, np.ndarray]]:
        """Return the comparisons of all pairs that differ, by positions in `members`."""
        pairs = [(a, b) for a in range(len(members)) for b in range(a)]
        compared = {(a, b): self._compare(members[a], members[b]) for a, b in pairs}
        return {pair: test for pair, test in compared.items() if test is not None}

    def _compare(self, i: int, other: int) -> tuple[float, np.ndarray] | None:
        """Return the difference of two as a normal deviate, and such deviates in all draws.

        None if they are equal on every image.
        """
        contrast = self.contrast(i, other)
        error, freedom = self.error(contrast)
        gap = float(self.values @ contrast)
        drawn = self.draws @ contrast
        deviation = float(drawn.std())
        if error**2 < NOTHING and abs(gap) < NOTHING**0.5:
            return None
        size = -float(ndtri(max(stdtr(freedom, -abs(gap) / max(error, 1e-12)), 1e-300)))
        return float(np.copysign(size, gap)), drawn / max(deviation, 1e-12)


def spread(results: Sequence[ProbeResult], judge: str, seed: int, level: float = LEVEL) -> Spread:
    """Return how backbones vary together.

    Args:
        results: of the same images and splits.
        judge: "score" or "accuracy", which the results' protocol judges by.
        seed: of the draws.
        level: see `Spread`.
    """
    first = results[0]
    y = np.arange(first.n_real + first.n_fake) >= first.n_real
    unit, _ = strata(y, first.groups)
    columns = []
    for result in results:
        table = result.influences[judge].astype(np.float64)
        for label in (False, True):
            table[y == label, 0] -= table[y == label, 0].mean()
        together = np.zeros((int(unit.max()) + 1, table.shape[1]))
        np.add.at(together, unit, table)
        columns.append(together)
    effects = np.stack([column[:, 0] for column in columns], axis=1)
    pairs = np.stack([column[:, 1:].ravel() for column in columns], axis=1)
    values = np.array([getattr(result, judge) for result in results])
    return Spread(values, effects, pairs / max(1, columns[0].shape[1] - 1) ** 0.5, seed, level)


def ranks(better: np.ndarray) -> list[int]:
    """Return ranks, best first: one more than the number of those that are better.

    One that is not told from a higher one takes its rank, and so do all between them: no rank
    contradicts the order, and whoever may be the best has rank 1.

    Args:
        better: bool (B, B) in the order of the values, see `Spread.better`.
    """
    found = 1 + better.sum(axis=0)
    return [int(rank) for rank in np.minimum.accumulate(found[::-1])[::-1]]
