"""What `--until-sure` saves, and whether it finds the same first rank as all images do.

    python benchmarks/rounds.py [--quick] [--banks 100] [--jobs 1] [--out FILE.json]

A bank has eight backbones, two of them equal and best; half of their noise is in common. It is
ranked on all images, and by rounds in which backbones drop out.
"""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from common import Record, arguments

from probe.probing.fit import evaluate
from probe.probing.given import Named
from probe.probing.protocol import FAIR, ProbeResult
from probe.probing.rounds import beaten_by, race
from probe.probing.uncertainty import LEVEL, ranks, spread

WIDTH = 6  # features of a backbone
IMAGES = 2000  # of each class
BANKS = {
    "others far behind": (1.2, 1.2, 0.7, 0.6, 0.5, 0.4, 0.2, 0.0),
    "a third close behind": (1.2, 1.2, 0.95, 0.6, 0.5, 0.4, 0.2, 0.0),
}


@dataclass(frozen=True)
class Found:
    """What became of one bank.

    Attributes:
        same: whether the first rank is the same set.
        kept: whether both of the best are in the first rank of the rounds.
        share: of the backbone-images that all images take.
    """

    same: bool
    kept: bool
    share: float


def firsts(results: dict[str, ProbeResult], seed: int, level: float) -> set[str]:
    """Return the backbones with the first rank."""
    judged = spread([*results.values()], "score", seed, level)
    order = np.argsort(-judged.values, kind="stable")
    shared = ranks(judged.better(order))
    names = list(results)
    return {names[i] for i, rank in zip(order, shared, strict=True) if rank == 1}


def found(shifts: Sequence[float], seed: int) -> Found:
    """Draw a bank and rank it both ways."""
    rng, tables = np.random.default_rng(seed), {}
    common = rng.standard_normal((2, IMAGES, WIDTH // 2))
    for i, shift in enumerate(shifts):
        own = rng.standard_normal((2, IMAGES, WIDTH - WIDTH // 2))
        own[1, :, 0] += shift
        tables[f"b{i}"] = np.concatenate([common, own], axis=2).astype(np.float32)
    used = dict.fromkeys(tables, 0)

    def scored(names: Sequence[str], count: int) -> dict[str, ProbeResult]:
        used.update(dict.fromkeys(names, count))
        return {
            name: evaluate(*tables[name][:, :count], protocol=FAIR, seed=seed) for name in names
        }

    def compare(names: Sequence[str], count: int, level: float) -> dict[str, str | None]:
        return beaten_by(scored(names, count), "fair", seed, level)

    raced = race([Named(name) for name in tables], IMAGES, compare)
    rounds = firsts(scored(raced.left, raced.images), seed, raced.level)
    share = sum(used.values()) / (IMAGES * len(tables))
    whole = firsts(scored(list(tables), IMAGES), seed, LEVEL)
    return Found(rounds == whole, {"b0", "b1"} <= rounds, share)


def main() -> None:
    parser = arguments(__doc__, "rounds")
    parser.add_argument("--banks", type=int, help="of every kind (100; quick 1)")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    args = parser.parse_args()
    count = args.banks or (1 if args.quick else 100)
    kinds = dict(list(BANKS.items())[: 1 if args.quick else None])
    banks: dict[str, list[Found]] = {}
    with ProcessPoolExecutor(args.jobs) as pool:
        for name, shifts in kinds.items():
            banks[name] = list(pool.map(partial(found, shifts), range(count)))
            recorded(banks, count).finish(args.out, quick=args.quick)  # the whole takes long


def recorded(banks: dict[str, list[Found]], count: int) -> Record:
    """Return the record of the kinds of bank so far."""
    record = Record("rounds", "What do rounds save, and do they find the same?")
    record.settings = {"banks": count, "images": IMAGES}
    rows: list[list[object]] = []
    for name, ranked in banks.items():
        same, kept, share = (
            float(np.mean([getattr(bank, key) for bank in ranked]))
            for key in ("same", "kept", "share")
        )
        rows.append([name, same, kept, share, max(bank.share for bank in ranked)])
        record.check(f"same first rank, {name}", same, at_least=0.95)
        record.check(f"backbone-images, {name}", share, at_most=0.5)
    record.table(
        f"{count} banks of eight, {IMAGES} images of each class",
        ["the best two, and", "same first rank", "holds both", "backbone-images", "at most"],
        rows,
    )
    return record


if __name__ == "__main__":
    main()
