"""How often the intervals of a ranking hold the truth, and how often it splits equal backbones.

    python benchmarks/coverage.py [--quick] [--draws 400] [--cells 'normal 32x* weak,…'] [--jobs 2]
        [--pool FILE.npz] [--journal FILE.jsonl] [--out FILE.json]

A cell is two sources of images and six backbones: drawn features in which the backbones are equal
in truth (half of their noise is the images' and common to all, half is their own), or rows of
photographs' features (`photographs.py`). It is drawn again and again, and every time the backbones
are scored and ranked as `probe rank` does. The truth is the mean over all draws: what probes that
are fitted to as many images are expected to reach on new ones.

Every draw is a line of the journal, so the script goes on where it was stopped; a finished cell
stays in the record. The cheapest cells come first: the whole grid takes weeks on two cores.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatch
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from common import Record, arguments
from scipy.special import stdtrit

from probe.probing.fit import evaluate
from probe.probing.protocol import CHANCE, PROTOCOLS
from probe.probing.uncertainty import LEVEL, Spread, ranks, spread
from probe.streams import numpy_stream

BACKBONES = 6
INFORMATIVE = [0, 1, -1, -2]  # columns in which the classes differ: two common, two of its own
IMAGES = (32, 100, 300, 1000, 3000)  # of each class
WIDTHS = (64, 512, 2048)
# By how many deviations the fakes are shifted in every informative column.
SIGNALS = {"none": 0.0, "weak": 0.5, "medium": 1.0, "strong": 2.0, "saturated": 6.0}
SOURCES = ("normal", "heavy", "photographs")
DIFFERENCES = (0.01, 0.03, 0.1)  # nats
COVERAGE = (0.93, 0.98)
Tables = list[tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Cell:
    """What is drawn.

    Attributes:
        source: "normal" noise, "heavy" tails (Student's t with 3 degrees of freedom) or
            "photographs".
        images: of each class.
        width: features of a backbone.
        signal: a name of `SIGNALS`.
        protocol: "fair", whose score is judged, or "paper", whose accuracy is.
    """

    source: str
    images: int
    width: int
    signal: str
    protocol: str = "fair"

    @property
    def name(self) -> str:
        """What `--cells` names."""
        start = "" if self.protocol == "fair" else f"{self.protocol} "
        return f"{start}{self.source} {self.images}x{self.width} {self.signal}"

    @property
    def cost(self) -> float:
        """About how long a draw takes: small ones spend their time around the products."""
        return 4e4 + self.images * self.width

    def draw(self, seed: int, pool: Path | None) -> Tables:
        """Return reals and fakes of every backbone."""
        rng = np.random.default_rng([seed, self.images, self.width])
        if self.source == "photographs":
            return photographs(self, rng, pool)
        return synthetic(self, rng)


def synthetic(cell: Cell, rng: np.random.Generator) -> Tables:
    """Return features of backbones that are equal in truth."""
    rows, half = 2 * cell.images, cell.width // 2

    def noise(width: int) -> np.ndarray:
        if cell.source == "heavy":
            return rng.standard_t(3, (rows, width)) / 3**0.5
        return rng.standard_normal((rows, width))

    common, tables = noise(half), []
    for _ in range(BACKBONES):
        x = np.hstack([common, noise(cell.width - half)]).astype(np.float32)
        x[cell.images :, INFORMATIVE] += SIGNALS[cell.signal]
        tables.append((x[: cell.images], x[cell.images :]))
    return tables


@cache
def stored(pool: Path) -> Mapping[str, np.ndarray]:
    """Return the tables of a pool, each (photographs, features)."""
    return dict(np.load(pool))


def photographs(cell: Cell, rng: np.random.Generator, pool: Path | None) -> Tables:
    """Return features of photographs, and of others with the damage of the signal.

    A backbone is the same random columns of all packaged ones in every draw.
    """
    assert pool is not None
    real, fake = stored(pool)["none"], stored(pool)[cell.signal]
    order = rng.permutation(len(real))
    first, second = order[: cell.images], order[cell.images : 2 * cell.images]
    tables = []
    for i in range(BACKBONES):
        columns = numpy_stream(i, "columns", cell.width).permutation(real.shape[1])[: cell.width]
        tables.append((real[np.ix_(first, columns)], fake[np.ix_(second, columns)]))
    return tables


def grid(pool: Path | None) -> list[Cell]:
    """Return all cells that can be drawn, the cheapest first."""
    every = map(Cell, *zip(*product(SOURCES, IMAGES, WIDTHS, SIGNALS), strict=True))
    fair = [cell for cell in every if possible(cell, pool)]
    return sorted((*fair, *(replace(c, protocol="paper") for c in fair)), key=order)


def possible(cell: Cell, pool: Path | None) -> bool:
    """Return whether a pool, if one is needed, has what a cell draws; no row is drawn twice."""
    if cell.source != "photographs":
        return True
    return (
        pool is not None
        and cell.signal in stored(pool)
        and 2 * cell.images <= len(stored(pool)["none"])
        and cell.width <= stored(pool)["none"].shape[1]
    )


def order(cell: Cell) -> tuple[float, str]:
    return cell.cost, cell.protocol


@dataclass(frozen=True)
class Drawn:
    """What one ranking said.

    Attributes:
        values: scores of every backbone, under "paper" accuracies.
        intervals: of every backbone's value, (backbones, 2).
        gaps: (backbones - 1, 2): the intervals of the gaps to the first of the list.
        split: whether they got different ranks.
        above: whether any was above chance.
        found: for each of `DIFFERENCES`, whether a backbone that is so much better than it is would
            be told from another.
    """

    values: Sequence[float]
    intervals: Sequence[Sequence[float]]
    gaps: Sequence[Sequence[float]]
    split: bool
    above: bool
    found: Sequence[bool]


def drawn(cell: Cell, pool: Path | None, seed: int) -> Drawn:
    """Draw a cell and rank its backbones."""
    protocol = PROTOCOLS[cell.protocol]
    results = [evaluate(*t, protocol=protocol, seed=seed) for t in cell.draw(seed, pool)]
    found = spread(results, protocol.criterion, seed)
    everyone = range(BACKBONES)
    best_first = np.argsort(-found.values, kind="stable")
    raised = [
        replace(found, values=found.values + np.where(np.arange(BACKBONES) == 0, more, 0))
        for more in DIFFERENCES
    ]
    chance = CHANCE if protocol.criterion == "score" else 0.5
    return Drawn(
        values=found.values.tolist(),
        intervals=[interval(found, i, protocol.criterion) for i in everyone],
        gaps=[found.gap(i, 0) for i in everyone[1:]],
        split=len(set(ranks(found.better(best_first)))) > 1,
        above=any(found.above(i, chance, BACKBONES) for i in everyone),
        found=[bool(one.better(everyone)[0, 1]) for one in raised],
    )


def interval(found: Spread, i: int, criterion: str) -> tuple[float, float]:
    """Return the 95 % interval of backbone i's value; that of an accuracy is symmetric."""
    if criterion == "score":
        return found.interval(i)
    error, freedom = found.error(found.contrast(i))
    reach = float(stdtrit(freedom, (1 + LEVEL) / 2)) * error
    return float(found.values[i]) - reach, float(found.values[i]) + reach


def summary(cell: Cell, draws: Sequence[Drawn]) -> dict[str, Any]:
    """Return what is told about a cell."""
    values = np.array([draw.values for draw in draws])
    bounds = np.array([draw.intervals for draw in draws])
    gaps = np.array([draw.gaps for draw in draws])
    equal = cell.source != "photographs"
    truth = np.full(BACKBONES, values.mean()) if equal else values.mean(axis=0)
    apart = truth[1:] - truth[0]
    inside = (bounds[..., 0] <= truth) & (truth <= bounds[..., 1])
    level = (gaps[..., 0] <= apart) & (apart <= gaps[..., 1])
    found = np.mean([draw.found for draw in draws], axis=0)
    return {
        "draws": len(draws),
        "score": float(truth.mean()),
        "sd": float((values - truth).std()),
        "width": float((bounds[..., 1] - bounds[..., 0]).mean()),
        "coverage": float(inside.mean()),
        "gaps": float(level.mean()),
        # What only equals can show:
        "split": float(np.mean([draw.split for draw in draws])) if equal else None,
        "above": float(np.mean([draw.above for draw in draws])),
        "fifth": float(np.quantile(values, 0.05)),
        **{
            str(more): float(share) if equal and cell.protocol == "fair" else None
            for more, share in zip(DIFFERENCES, found, strict=True)
        },
    }


class Journal:
    """The draws so far, a line of a file each, so that a stopped run goes on."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, cell: Cell, seed: int, draw: Drawn) -> None:
        """Append one draw, in one write."""
        line = json.dumps({"cell": cell.name, "seed": seed, **asdict(draw)})
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def read(self) -> dict[str, dict[int, Drawn]]:
        """Return cell → seed → draw; a line that was cut off is left out and drawn again."""
        found: dict[str, dict[int, Drawn]] = {}
        if not self.path.exists():
            return found
        for line in self.path.read_text("utf-8").splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue
            name, seed = entry.pop("cell"), entry.pop("seed")
            found.setdefault(name, {})[seed] = Drawn(**entry)
        return found


def kept(out: Path) -> dict[str, dict[str, Any]]:
    """Return the cells that a record holds."""
    return json.loads(out.read_text("utf-8"))["values"] if out.exists() else {}


def main() -> None:
    parser = arguments(__doc__, "coverage")
    parser.add_argument("--draws", type=int, help="of every cell (400; quick 2)")
    parser.add_argument("--cells", default="*", help="names or patterns, separated by commas")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--pool", type=Path, help="features of photographs, of photographs.py")
    parser.add_argument("--journal", type=Path, help="of draws (beside the record, .jsonl)")
    args: argparse.Namespace = parser.parse_args()
    count = args.draws or (2 if args.quick else 400)
    patterns = [pattern.strip() for pattern in args.cells.split(",")]
    cells = [c for c in grid(args.pool) if any(fnmatch(c.name, p) for p in patterns)]
    if not cells:
        parser.error(f"no cell is called {args.cells!r}, as in 'normal 32x64 weak'")
    journal = Journal(args.journal or args.out.with_suffix(".jsonl"))
    done, found = journal.read(), kept(args.out)
    with ProcessPoolExecutor(args.jobs) as pool:
        for cell in cells[:1] if args.quick else cells:
            if found.get(cell.name, {}).get("draws", 0) >= count:
                continue
            draws = done.get(cell.name, {})
            seeds = [seed for seed in range(count) if seed not in draws]
            for seed, draw in zip(
                seeds, pool.map(partial(drawn, cell, args.pool), seeds), strict=True
            ):
                journal.add(cell, seed, draw)
                draws[seed] = draw
            found[cell.name] = summary(cell, list(draws.values()))
            recorded(found, args.pool).finish(args.out, quick=args.quick)


def recorded(found: Mapping[str, Mapping[str, Any]], pool: Path | None) -> Record:
    """Return the record of the cells so far."""
    record = Record("coverage", "Do the intervals hold?")
    record.settings = {"backbones": BACKBONES}
    if pool is not None:
        record.settings["photographs"] = len(stored(pool)["none"])
    record.values = dict(found)
    keys = ("draws", "score", "sd", "width", "coverage", "gaps", "split", "above", "fifth",
            *map(str, DIFFERENCES))  # fmt: skip
    record.table(
        f"Source, images of each class x features, signal; {BACKBONES} backbones in every draw",
        [
            "cell", "draws", "score", "sd", "interval's width", "score covered", "gaps covered",
            "equals split", "any above chance", "5 % score below",
            *(f"{x:g} nats found" for x in DIFFERENCES),
        ],
        [[name, *(rounded(values[key]) for key in keys)] for name, values in found.items()],
    )  # fmt: skip
    least, most = COVERAGE
    for key, what in (("coverage", "scores"), ("gaps", "gaps")):
        held = [values[key] for values in found.values()]
        record.check(f"least coverage of {what}", min(held), at_least=least)
        record.check(f"largest coverage of {what}", max(held), at_most=most)
    splits = [values["split"] for values in found.values() if values["split"] is not None]
    if splits:
        record.check("equals split, all cells", float(np.mean(splits)), at_most=0.05)
    return record


def rounded(value: float | None) -> float | None:
    """Return a number with the digits that are worth keeping."""
    return round(value, 4) if isinstance(value, float) else value


if __name__ == "__main__":
    main()
