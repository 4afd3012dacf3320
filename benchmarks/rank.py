"""A whole ranking: `probe rank` from a cold start against the reference procedure, and warm.

    python benchmarks/rank.py [--quick] [--images 512] [--repeats 3] [--out FILE.json]

Both sides are processes of their own, timed from outside, start included. They are given the same
reals, generator and backbones. `probe rank` runs with its default options and an empty feature
cache; the reference is reference.py. Warm is the same command once more. The system's own cache of
files is warm for all of them.
"""

import argparse
import json
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from common import PACKAGED, ROOT, Finished, Record, arguments, run_probe, run_python, scratch
from common import speedup as faster
from inputs import build_generator, save_generator, write_demo_reals

COLD_TARGET, WARM_TARGET = 15.0, 10.0


@dataclass
class Times:
    """Seconds of every run of each side, and what the last one printed."""

    reference: list[float] = field(default_factory=list)
    cold: list[float] = field(default_factory=list)
    warm: list[float] = field(default_factory=list)
    answer: dict[str, Any] = field(default_factory=dict)
    board: dict[str, Any] = field(default_factory=dict)
    paper: dict[str, Any] = field(default_factory=dict)


def parse() -> argparse.Namespace:
    parser = arguments(__doc__, "rank")
    parser.add_argument("--images", type=int, help="of each class (512; quick 16)")
    parser.add_argument("--repeats", type=int, help="of the reference (3; quick 1)")
    parser.add_argument("--rounds", type=int, default=1, help="of everything")
    parser.add_argument("--warm-runs", type=int, help="warm runs per round (5; quick 1)")
    parser.add_argument("--resolution", type=int, help="of the generator (64; quick 16)")
    parser.add_argument("--channel-base", type=int, help="of the generator (16384; quick 1024)")
    parser.add_argument("--batch", type=int, default=64, help="of the reference")
    parser.add_argument("--backbones", default=",".join(PACKAGED), help="names, comma-separated")
    parser.add_argument(
        "--modulation",
        choices=("factored", "grouped"),
        default="grouped",
        help="how the reference's generator convolves: with a weight per sample, or as ours",
    )
    args = parser.parse_args()
    usual = {"images": 512, "repeats": 3, "warm_runs": 5, "resolution": 64, "channel_base": 16384}
    tiny = {"images": 16, "repeats": 1, "warm_runs": 1, "resolution": 16, "channel_base": 1024}
    for name, value in (tiny if args.quick else usual).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    return args


def rank(args: argparse.Namespace, folder: Path, cache: Path, *options: str) -> Finished:
    """Run `probe rank` with its defaults but for what must be said."""
    command = ["rank", "--real", folder / "reals", "--gen", folder / "g.safetensors"]
    number = ["--num", str(args.images), "--backbones", args.backbones, "--offline"]
    return run_probe(*command, *number, "--format", "json", *options, cache=cache)


def reference(args: argparse.Namespace, folder: Path) -> Finished:
    """Run the reference procedure."""
    script = ROOT / "benchmarks" / "reference.py"
    inputs = ["--real", folder / "reals", "--gen", folder / "g.safetensors"]
    numbers = ["--images", str(args.images), "--repeats", str(args.repeats)]
    which = [
        "--batch",
        str(args.batch),
        "--backbones",
        args.backbones,
        "--modulation",
        args.modulation,
    ]
    return run_python([script, *inputs, *numbers, *which])


def measure(args: argparse.Namespace, folder: Path) -> Times:
    """Run everything, one side after the other."""
    times = Times()
    run_probe("bank", "list", cache=folder / "unused")  # libraries into the system's file cache
    for number in range(args.rounds):
        cache = folder / f"cache{number}"
        cold = rank(args, folder, cache)
        times.cold.append(cold.seconds)
        times.warm += [rank(args, folder, cache).seconds for _ in range(args.warm_runs)]
        plain = reference(args, folder)
        times.reference.append(plain.seconds)
        times.answer, times.board = json.loads(plain.stdout), json.loads(cold.stdout)
        # The reference's own protocol on our features, for comparison; not timed.
        times.paper = json.loads(rank(args, folder, cache, "--protocol", "paper").stdout)
    return times


def report(args: argparse.Namespace, times: Times) -> Record:
    """Fill the record."""
    record = Record("rank", "A whole ranking against the reference procedure")
    flags = ("images", "repeats", "rounds", "resolution", "channel_base", "backbones")
    record.settings = {name: getattr(args, name) for name in (*flags, "batch", "modulation")}
    cold, warm = faster(times.reference, times.cold), faster(times.cold, times.warm)
    record.table(
        f"{args.images} images of each class, {args.resolution} px, {args.backbones}",
        ["", "seconds", "times faster"],
        [
            ["reference procedure", median(times.reference), 1],
            ["probe rank, cold", median(times.cold), str(cold)],
            ["probe rank, warm", median(times.warm), str(faster(times.reference, times.warm))],
        ],
    )
    rows = {row["name"]: row for row in times.board["rows"]}
    paper = {row["name"]: row for row in times.paper["rows"]}
    record.table(
        "What both found",
        [
            "backbone",
            "probe: score",
            "probe: accuracy, reference's protocol",
            "reference: accuracy",
            "reference: -log loss",
            "reference: seconds",
        ],
        [
            [
                name,
                rows[name]["score"],
                paper[name]["accuracy"],
                plain["accuracy"],
                -plain["log_loss"],
                plain["seconds"],
            ]
            for name, plain in times.answer["backbones"].items()
        ],
    )
    record.check("Cold, against the reference", cold.value, at_least=COLD_TARGET, unit="x")
    record.check("Warm, against cold", warm.value, at_least=WARM_TARGET, unit="x")
    record.check("The same winner", same_winner(times))
    record.values = {
        "seconds": {"reference": times.reference, "cold": times.cold, "warm": times.warm},
        "winners": winners(times),
        "reference": times.answer,
    }
    return record


def winners(times: Times) -> dict[str, Any]:
    """Return who won by which rule, and how many shared the reference's first place."""
    plain = times.answer["backbones"]
    return {
        "probe": first(times.board),
        "probe, reference's protocol": first(times.paper),
        "reference": times.answer["winner"],
        "reference, tied": times.answer["tied"],
        "reference, by log loss": min(plain, key=lambda name: plain[name]["log_loss"]),
    }


def first(board: dict[str, Any]) -> str:
    """Return the name in a leaderboard's first row."""
    return next(row["name"] for row in board["rows"] if row["score"] is not None)


def same_winner(times: Times) -> bool:
    """Return whether probe's winner has the reference's best accuracy.

    Several may have it, all of them right; then the reference takes the first of its list.
    """
    plain = times.answer["backbones"]
    best = max(found["accuracy"] for found in plain.values())
    return plain[first(times.board)]["accuracy"] == best


def main() -> None:
    args = parse()
    with scratch() as folder:
        write_demo_reals(folder / "reals", args.images, args.resolution)
        generator = build_generator(args.resolution, args.channel_base)
        save_generator(folder / "g.safetensors", generator)
        times = measure(args, folder)
    report(args, times).finish(args.out, quick=args.quick)


if __name__ == "__main__":
    main()
