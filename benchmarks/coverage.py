"""How often the intervals of a ranking hold the truth, and how often it splits equal backbones.

    python benchmarks/coverage.py [--quick] [--draws 70] [--jobs 2] [--out FILE.json]

A world is two sources of images and six backbones that are equal in truth: half of their noise is
the images' and common to all, half is their own. It is drawn again and again, and every time the
backbones are scored and ranked as `probe rank` does. The truth is the mean score over all draws:
what probes that are fitted to as many images are expected to score on new ones.
"""

import argparse
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from common import Record, arguments

from probe.probing.fit import evaluate
from probe.probing.protocol import CHANCE, FAIR
from probe.probing.uncertainty import ranks, spread

BACKBONES = 6
INFORMATIVE = [0, 1, -1, -2]  # columns in which the classes differ: two common, two of its own
DIFFERENCES = (0.01, 0.03, 0.1)  # nats
LEAST_COVERAGE = 0.93


@dataclass(frozen=True)
class World:
    """What is drawn.

    Attributes:
        images: of each class.
        width: features of a backbone.
        shift: of the fakes in every informative column, in deviations.
        heavy: Student's t with 3 degrees of freedom instead of normal noise.
    """

    images: int
    width: int
    shift: float
    heavy: bool = False

    def draw(self, rng: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return reals and fakes of every backbone."""
        rows, half = 2 * self.images, self.width // 2

        def noise(width: int) -> np.ndarray:
            if self.heavy:
                return rng.standard_t(3, (rows, width)) / 3**0.5
            return rng.standard_normal((rows, width))

        common = noise(half)
        tables = []
        for _ in range(BACKBONES):
            x = np.hstack([common, noise(self.width - half)]).astype(np.float32)
            x[self.images :, INFORMATIVE] += self.shift
            tables.append((x[: self.images], x[self.images :]))
        return tables


WORLDS = (
    World(100, 64, 1.0),
    World(32, 64, 0.0),
    World(100, 64, 4.0),
    World(100, 64, 0.5, heavy=True),
    World(32, 64, 1.0),
    World(100, 512, 1.0),
    World(300, 64, 0.5),
)


@dataclass(frozen=True)
class Drawn:
    """What one ranking said.

    Attributes:
        scores: of every backbone.
        intervals: float64 (backbones, 2).
        gaps: float64 (backbones - 1, 2): the intervals of the gaps to the first of the list.
        split: whether the equals got different ranks.
        above: whether any was above chance.
        found: for each of `DIFFERENCES`, whether a backbone that is so much better than it is would
            be told from another.
    """

    scores: np.ndarray
    intervals: np.ndarray
    gaps: np.ndarray
    split: bool
    above: bool
    found: tuple[bool, ...]


def drawn(world: World, seed: int) -> Drawn:
    """Draw a world and rank its backbones."""
    rng = np.random.default_rng([seed, world.images, world.width])
    results = [evaluate(*table, protocol=FAIR, seed=seed) for table in world.draw(rng)]
    found = spread(results, "score", seed)
    everyone = range(BACKBONES)
    order = np.argsort(-found.values, kind="stable")
    raised = [
        replace(found, values=found.values + np.where(np.arange(BACKBONES) == 0, more, 0))
        for more in DIFFERENCES
    ]
    return Drawn(
        scores=found.values,
        intervals=np.array([found.interval(i) for i in everyone]),
        gaps=np.array([found.gap(i, 0) for i in everyone[1:]]),
        split=len(set(ranks(found.better(order)))) > 1,
        above=any(found.above(i, CHANCE, BACKBONES) for i in everyone),
        found=tuple(bool(one.better(everyone)[0, 1]) for one in raised),
    )


def summary(world: World, draws: Sequence[Drawn]) -> dict[str, float]:
    """Return what is told about a world."""
    scores = np.array([draw.scores for draw in draws])
    bounds = np.array([draw.intervals for draw in draws])
    gaps = np.array([draw.gaps for draw in draws])
    truth = float(scores.mean())
    inside = (bounds[..., 0] <= truth) & (truth <= bounds[..., 1])
    level = (gaps[..., 0] <= 0) & (gaps[..., 1] >= 0)
    return {
        "score": truth,
        "sd": float(scores.std()),
        "coverage": float(inside.mean()),
        "gaps": float(level.mean()),
        "width": float((bounds[..., 1] - bounds[..., 0]).mean()),
        "split": float(np.mean([draw.split for draw in draws])),
        "above": float(np.mean([draw.above for draw in draws])),
        "fifth": float(np.quantile(scores, 0.05)),
        **{
            str(more): float(np.mean([draw.found[i] for draw in draws]))
            for i, more in enumerate(DIFFERENCES)
        },
    }


def table(found: dict[World, dict[str, float]]) -> list[list[object]]:
    """Return the rows of the record's table."""
    keys = ("score", "sd", "coverage", "gaps", "split", "above", "fifth", *map(str, DIFFERENCES))
    return [
        [
            f"{w.images} x {w.width}, {'heavy-tailed' if w.heavy else 'normal'}, shift {w.shift:g}",
            *(round(values[key], 4) for key in keys),
        ]
        for w, values in found.items()
    ]


def main() -> None:
    parser = arguments(__doc__, "coverage")
    parser.add_argument("--draws", type=int, help="of every world (70; quick 2)")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    args: argparse.Namespace = parser.parse_args()
    count = args.draws or (2 if args.quick else 70)
    found: dict[World, dict[str, float]] = {}
    with ProcessPoolExecutor(args.jobs) as pool:
        for world in WORLDS[:1] if args.quick else WORLDS:
            found[world] = summary(world, list(pool.map(partial(drawn, world), range(count))))
            # After every world: the whole takes hours on two cores.
            recorded(found, count).finish(args.out, quick=args.quick)


def recorded(found: dict[World, dict[str, float]], draws: int) -> Record:
    """Return the record of the worlds so far."""
    record = Record("coverage", "Do the intervals hold?")
    record.settings = {"draws": draws, "backbones": BACKBONES}
    record.values = {str(world): values for world, values in found.items()}
    record.table(
        f"Images of each class x features, {draws} draws of {BACKBONES} backbones",
        [
            "world", "score", "sd", "score covered", "gaps covered", "equals split",
            "any above chance", "5 % score below", *(f"{x:g} nats found" for x in DIFFERENCES),
        ],
        table(found),
    )  # fmt: skip
    for key, what in (("coverage", "scores"), ("gaps", "gaps")):
        least = min(values[key] for values in found.values())
        record.check(f"least coverage of {what}", least, at_least=LEAST_COVERAGE)
    split = float(np.mean([values["split"] for values in found.values()]))
    record.check("equals split, all worlds", split, at_most=0.05)
    return record


if __name__ == "__main__":
    main()
