"""How time and memory of a ranking grow with the number of images and of backbones.

    python benchmarks/growth.py [--quick] [--part time|memory|both] [--out FILE.json]

Time: `probe.rank` in this process with empty caches on folders of 64 px noise and small random
networks (timm's test_resnet at 64 px), fitted with a straight line. Memory: the largest resident
set of `probe rank` in a process of its own, on folders of 256 px noise as JPEG, with the packaged
backbones named by --memory-backbones.
"""

import argparse
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from common import Record, arguments, integers, run_probe, scratch, stopwatch
from inputs import write_noise

BANK = Path(__file__).resolve().parent / "bank.yaml"
SIDE, MEMORY_SIDE = 64, 256
MOST_GIB = 3.0
FLAT = 1.05  # twice the images take no more memory, but for chance


def parse() -> argparse.Namespace:
    parser = arguments(__doc__, "growth")
    parser.add_argument("--part", choices=("time", "memory", "both"), default="both")
    parser.add_argument("--images", type=integers, help="of each class (500,1000,2000,4000)")
    parser.add_argument("--backbones", type=integers, help="how many (1,2,4,8)")
    parser.add_argument("--rounds", type=int, help="of every size (3)")
    parser.add_argument("--memory-images", type=integers, help="of each class (5000,10000)")
    parser.add_argument("--memory-backbones", default="efficientnet-lite0,mobilenetv2")
    args = parser.parse_args()
    usual = {
        "images": [500, 1000, 2000, 4000],
        "backbones": [1, 2, 4, 8],
        "rounds": 3,
        "memory_images": [5000, 10_000],
    }
    tiny = {"images": [16, 32], "backbones": [1, 2], "rounds": 1, "memory_images": [16, 32]}
    for name, value in (tiny if args.quick else usual).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    return args


def write_classes(folder: Path, count: int, side: int, suffix: str) -> None:
    """Write two folders of noise that differ in nothing but their seed."""
    for seed, name in enumerate(("real", "fake")):
        write_noise(folder / name, count, side, suffix=suffix, seed=seed)


def time_rank(folder: Path, images: int, backbones: int) -> float:
    """Return the seconds of one cold ranking in this process."""
    import probe
    from probe import RankOptions

    with scratch() as cache, patch.dict("os.environ", PROBE_CACHE_DIR=str(cache)):
        return stopwatch(
            lambda: probe.rank(
                folder / "real",
                folder / "fake",
                bank=BANK,
                backbones=[f"toy-{i}" for i in range(backbones)],
                options=RankOptions(num=images),
                offline=True,
            )
        )


def fit_line(x: list[int], y: list[float]) -> dict[str, Any]:
    """Return the line through the points, and what each point is off it, in percent of itself."""
    slope, start = np.polyfit(x, y, 1)
    residuals = 100 * (np.array(y) / (start + slope * np.array(x)) - 1)
    return {"slope": float(slope), "start": float(start), "residuals": residuals.tolist()}


def measure_time(args: argparse.Namespace, record: Record, folder: Path) -> None:
    """Time every size, in turn, and add tables with the fitted lines."""
    write_classes(folder, max(args.images), SIDE, "png")
    most = max(args.backbones)
    cases = {
        **{(images, min(4, most)): [] for images in args.images},
        **{(args.images[1], backbones): [] for backbones in args.backbones},
    }
    time_rank(folder, min(args.images), 1)  # imports, threads, the system's file cache
    for _ in range(args.rounds):
        for (images, backbones), seconds in cases.items():
            seconds.append(time_rank(folder, images, backbones))
    best = {case: float(np.median(seconds)) for case, seconds in cases.items()}
    by_images = [best[n, min(4, most)] for n in args.images]
    by_backbones = [best[args.images[1], n] for n in args.backbones]
    add_growth(record, "images of each class", args.images, by_images)
    add_growth(record, "backbones", args.backbones, by_backbones)


def add_growth(record: Record, what: str, counts: list[int], seconds: list[float]) -> None:
    """Add one table: seconds against a number, and the line through them."""
    line = fit_line(counts, seconds)
    record.table(
        f"Seconds by number of {what}; line: {line['start']:.3g} + {line['slope']:.3g} per one",
        [what, "seconds", "off the line, %"],
        [list(row) for row in zip(counts, seconds, line["residuals"], strict=True)],
    )
    record.values[what] = {"counts": counts, "seconds": seconds, **line}


def measure_memory(args: argparse.Namespace, record: Record, folder: Path) -> None:
    """Add the peak memory of `probe rank` at every number of images."""
    write_classes(folder, max(args.memory_images), MEMORY_SIDE, "jpg")
    peaks, rows = [], []
    for number in args.memory_images:
        with scratch() as cache:
            finished = run_probe(
                *("rank", "--real", folder / "real", "--gen", folder / "fake", "--offline"),
                *("--num", str(number), "--backbones", args.memory_backbones),
                cache=cache,
            )
        peaks.append(finished.peak_bytes / 2**30)
        rows.append([number, peaks[-1], finished.seconds])
    record.table(
        f"Peak memory of a cold ranking, {MEMORY_SIDE} px JPEG, {args.memory_backbones}",
        ["images of each class", "GiB", "seconds"],
        rows,
    )
    record.check("Peak memory", max(peaks), at_most=MOST_GIB, unit=" GiB")
    growth = peaks[-1] / peaks[0]
    times = args.memory_images[-1] / args.memory_images[0]
    record.check(f"Peak memory at {times:g} times the images", growth, at_most=FLAT, unit="x")
    record.values["peak_gib"] = dict(zip(map(str, args.memory_images), peaks, strict=True))


def main() -> None:
    args = parse()
    record = Record("growth", "How time and memory grow")
    record.settings = {name: v for name, v in vars(args).items() if name not in ("out", "quick")}
    for part, measure in (("time", measure_time), ("memory", measure_memory)):
        if args.part in (part, "both"):
            with scratch() as folder:
                measure(args, record, folder)
    record.finish(args.out, quick=args.quick)


if __name__ == "__main__":
    main()
