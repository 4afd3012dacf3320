"""Does the number of images that a ranking names tell its first two apart?

    python benchmarks/planning.py [--quick] [--draws 60] [--jobs 1] [--out FILE.json]

Backbones see one source of fakes from another by more or less, half of their noise in common. They
are ranked on few images; if the first two share a rank, as many images as the ranking names are
drawn anew, and the two are compared on them. "Plain" is the number that the measured gap alone
gives, at the same power.
"""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from common import Record, arguments

from probe.probing.fit import evaluate
from probe.probing.growth import POWER, images_needed
from probe.probing.protocol import FAIR
from probe.probing.uncertainty import Spread, spread

WIDTH = 6  # features of a backbone
MOST = 20_000  # images of each class that are still drawn
DEVIATE = 0.8416  # of a chance of `POWER`


@dataclass(frozen=True)
class World:
    """What is drawn.

    Attributes:
        images: of each class, at first.
        shifts: of the fakes in one feature of each backbone, in deviations.
    """

    images: int
    shifts: tuple[float, ...]


WORLDS = (
    World(100, (1.2, 1.0)),
    World(100, (1.5, 1.0)),
    World(300, (1.2, 1.1)),
    World(300, (1.2, 1.0, 0.8, 0.5, 0.0)),
)


def judged(world: World, images: int, seed: int) -> Spread:
    """Draw a world and return how its backbones' scores vary."""
    rng = np.random.default_rng([seed, images, len(world.shifts)])
    common, results = rng.standard_normal((2 * images, WIDTH // 2)), []
    for shift in world.shifts:
        own = rng.standard_normal((2 * images, WIDTH - WIDTH // 2))
        own[images:, 0] += shift
        x = np.hstack([common, own]).astype(np.float32)
        results.append(evaluate(x[:images], x[images:], protocol=FAIR, seed=seed))
    return spread(results, "score", seed)


@dataclass(frozen=True)
class Planned:
    """What became of one ranking whose first two shared a rank.

    Attributes:
        named: images of each class.
        told: whether so many told them apart; None if they are too many to be drawn.
        plain: whether those that the measured gap alone names did.
    """

    named: float
    told: bool | None
    plain: bool | None


def planned(world: World, seed: int) -> Planned | None:
    """Rank, plan and draw anew; None if the first two were told apart at once."""
    found = judged(world, world.images, seed)
    order = [int(i) for i in np.argsort(-found.values, kind="stable")]
    if found.better(order)[0, 1]:
        return None
    one, other = order[:2]
    error, _ = found.error(found.contrast(one, other))
    gap, least = found.values[one] - found.values[other], found.least_difference(one, other, order)
    plain = world.images * max(1.0, ((least + DEVIATE * error) / max(gap, 1e-9)) ** 2)

    def told(images: float) -> bool | None:
        if images > MOST:
            return None
        again = judged(world, round(images), 10_000 + seed)
        better = again.better(order)
        return bool(better[0, 1] or better[1, 0])

    named = images_needed(found, order, world.images)
    return Planned(named, told(named), told(plain))


def row(world: World, found: Sequence[Planned | None]) -> list[object]:
    """Return a world's row of the table."""
    plans = [plan for plan in found if plan is not None]
    told = [plan.told for plan in plans if plan.told is not None]
    plain = [plan.plain for plan in plans if plan.plain is not None]
    named = [plan.named for plan in plans]
    return [
        f"{world.images} images, shifts {', '.join(f'{s:g}' for s in world.shifts)}",
        len(plans) / len(found),
        *(np.quantile(named, (0.1, 0.5, 0.9)).round(-1).tolist() if named else [np.nan] * 3),
        float(np.mean(told)) if told else np.nan,
        float(np.mean(plain)) if plain else np.nan,
    ]


def main() -> None:
    parser = arguments(__doc__, "planning")
    parser.add_argument("--draws", type=int, help="of every world (60; quick 2)")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    args = parser.parse_args()
    count = args.draws or (2 if args.quick else 60)
    worlds = WORLDS[:1] if args.quick else WORLDS
    found: dict[World, list[Planned | None]] = {}
    with ProcessPoolExecutor(args.jobs) as pool:
        for world in worlds:
            found[world] = list(pool.map(partial(planned, world), range(count)))
            recorded(found, count).finish(args.out, quick=args.quick)  # the whole takes long


def recorded(found: dict[World, list[Planned | None]], draws: int) -> Record:
    """Return the record of the worlds so far."""
    record = Record("planning", "Do as many images as are named tell the first two apart?")
    record.settings = {"draws": draws, "most images": MOST, "power": POWER}
    record.table(
        f"{draws} rankings of each world, and a fresh draw for each whose first two shared a rank",
        ["world", "shared", "named, 10 %", "median", "90 %", "told", "told, plain"],
        [row(*item) for item in found.items()],
    )
    plans = [plan for world in found.values() for plan in world if plan is not None]
    drawn = [plan.told for plan in plans if plan.told is not None]
    record.check("told by as many as were named, all worlds", float(np.mean(drawn or [1])),
                 at_least=POWER)  # fmt: skip
    return record


if __name__ == "__main__":
    main()
