"""Rounds: backbones that are clearly not among the best drop out before all images are used.

Successive elimination. Every round compares as `Spread.better` does, at an error of 5 % divided by
the number of rounds, so that the best one drops out of at most 5 % of rankings.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from probe.probing.protocol import PROTOCOLS, ProbeResult
from probe.probing.standing import Entry
from probe.probing.uncertainty import LEVEL, spread

CONTROL = "random weights win no rank, and --until-sure looks for the first alone"
FIRST = 250  # images of each class in the first round; each next one has twice as many


def schedule(most: int) -> list[int]:
    """Return how many images of each class every round uses, the last one all of them."""
    counts = []
    while FIRST << len(counts) < most:
        counts.append(FIRST << len(counts))
    return [*counts, most]


def level_of(rounds: int) -> float:
    """Return the level at which each of several rounds compares, so that all keep 95 % together."""
    return 1 - (1 - LEVEL) / rounds


# (names, images of each class, level) → each backbone that has a result → one that is better, None
# if there is none.
Compare = Callable[[Sequence[str], int, float], Mapping[str, str | None]]


@dataclass(frozen=True)
class Race:
    """What the rounds before the last left.

    Attributes:
        left: the backbones that may be the best, and those that gave no result.
        images: of each class, that they are ranked on.
        dropped: name → why it dropped out.
        level: at which they are compared.
    """

    left: tuple[str, ...]
    images: int
    dropped: Mapping[str, str]
    level: float

    @property
    def failures(self) -> dict[str, dict[str, str]]:
        """Name → status, reason and remedy of those that dropped out."""
        return {
            name: {"status": "dropped", "reason": reason, "remedy": ""}
            for name, reason in self.dropped.items()
        }


def race(entries: Sequence[Entry], most: int, compare: Compare) -> Race:
    """Run rounds until one backbone is left or only the last round is.

    Controls take no part, unless there is nothing else: they have no rank to win.

    Args:
        entries: the backbones.
        most: images of each class that there are.
        compare: see `Compare`.
    """
    counts = schedule(most)
    left = [e.name for e in entries if e.role != "control"] or [e.name for e in entries]
    dropped = {e.name: CONTROL for e in entries if e.name not in left}
    level, silent, images = level_of(len(counts)), list[str](), most
    for count in counts[:-1]:
        found = compare(left, count, level)
        silent += [name for name in left if name not in found]
        dropped |= {
            name: f"worse than {better} on {count} images of each class"
            for name, better in found.items()
            if better is not None
        }
        left = [name for name, better in found.items() if better is None]
        if len(left) <= 1:
            images = count
            break
    return Race((*left, *silent), images, dropped, level)


def beaten_by(
    results: Mapping[str, ProbeResult], protocol: str, seed: int, level: float
) -> dict[str, str | None]:
    """Return name → the best of those that are told to be better, None if there is none.

    Args:
        results: name → result of the same images.
        protocol: a name of `PROTOCOLS`.
        seed: of the draws.
        level: at which all claims hold together.
    """
    names = list(results)
    if len(names) < 2:
        return dict.fromkeys(names)
    judged = spread([*results.values()], PROTOCOLS[protocol].criterion, seed, level)
    better = judged.better(range(len(names)))
    above = [np.flatnonzero(better[:, i]) for i in range(len(names))]
    return {
        name: names[max(js, key=lambda j: judged.values[j])] if len(js) else None
        for name, js in zip(names, above, strict=True)
    }
