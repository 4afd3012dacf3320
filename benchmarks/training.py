"""Training with two backbones: seconds per thousand images, against the reference's way of it.

    python benchmarks/training.py [--quick] [--rounds 3] [--curve-steps 128] [--out FILE.json]

Every side is a process of its own, and the processes take turns, so that each has its own memory
allocator (`probe.accel.memory`) and none of its threads runs while another side is timed.

Ours is `probe.training.step.train_step`, in the precision that the machine has. The reference takes
the same steps of the same networks with the same random numbers (see `Reference`). Then both train
at a small size from the same seeds, to see that their losses are the same but for chance. Last,
where the time of a step goes, and what the plain trainer would gain or lose by other choices.
"""

import argparse
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import combinations
from multiprocessing import get_context
from statistics import median
from typing import Any

import numpy as np
import torch
from common import Record, arguments, integers, interleave, speedup, stopwatch
from torch.profiler import ProfilerActivity, profile
from trainers import FACTORED, REFERENCE, Ours, P, Reference, Setting, Stats, Trainer

from probe.devices import choose_device, choose_precision
from probe.training.config import TrainConfig

BACKBONES = ("efficientnet-lite0", "mobilenetv2")
TARGET = 2.5
OPERATORS = 12  # shown of the profiler's list


# ---------------------------------------------------------------------------------------------
# Processes that take turns
# ---------------------------------------------------------------------------------------------

CURRENT: list[Trainer] = []  # of this process


def begin(setting: Setting) -> None:
    """Build the trainer of this process."""
    if setting.threads:
        torch.set_num_threads(setting.threads)
    CURRENT[:] = [Ours(setting) if setting.side == "ours" else Reference(setting)]


def time_steps(plain: int, warmup: bool) -> tuple[float, list[float]]:
    """Return the seconds of one step with R1, and of each of the steps that follow."""
    (trainer,) = CURRENT
    trainer.skip_to_regulariser()
    with_r1, *others = [stopwatch(lambda: trainer.step(warmup=warmup)) for _ in range(1 + plain)]
    return with_r1, others


def span_times(cycles: int) -> tuple[dict[str, float], float]:
    """Return the seconds per thousand images of each part of the step, and of the whole."""
    (trainer,) = CURRENT
    trainer.skip_to_regulariser()
    trainer.clock.take()
    first = trainer.state.images

    def run() -> None:
        for _ in range(cycles * trainer.config.r1_interval):
            trainer.step()

    seconds = stopwatch(run)
    kimg = (trainer.state.images - first) / 1000
    return {name: s / kimg for name, s in trainer.clock.take().items()}, seconds / kimg


def operators(plain: int) -> list[tuple[str, float, int]]:
    """Return the operators that took longest in steps: name, milliseconds and calls per step."""
    (trainer,) = CURRENT
    trainer.skip_to_regulariser()
    trainer.step()
    with profile(activities=[ProfilerActivity.CPU]) as found:
        for _ in range(plain):
            trainer.step()
    rows = sorted(found.key_averages(), key=lambda row: -row.self_cpu_time_total)
    return [
        (row.key, row.self_cpu_time_total / 1000 / plain, round(row.count / plain)) for row in rows
    ]


def curve(setting: Setting, steps: int) -> list[Stats]:
    """Train from the beginning and return what every step lost."""
    begin(setting)
    (trainer,) = CURRENT
    return [trainer.step() for _ in range(steps)]


def process(setting: Setting) -> ProcessPoolExecutor:
    """Return a process in which a trainer stands ready."""
    return ProcessPoolExecutor(
        1, mp_context=get_context("spawn"), initializer=begin, initargs=(setting,)
    )


def measure(
    settings: Mapping[str, Setting], *, rounds: int, plain: int, warmup: bool = False
) -> dict[str, list[float]]:
    """Return name → seconds per thousand images in every round, the processes taking turns.

    A round is one step with R1 and a few without; each counts as often as in training.
    """
    found: dict[str, list[float]] = {name: [] for name in settings}
    with ExitStack() as stack:
        pools = {name: stack.enter_context(process(s)) for name, s in settings.items()}
        for i in range(rounds + 1):
            for name, pool in pools.items():
                with_r1, others = pool.submit(time_steps, plain, warmup).result()
                interval = TrainConfig().r1_interval
                step = (with_r1 + (interval - 1) * median(others)) / interval
                if i:  # the first round compiles kernels and fills caches
                    found[name].append(step / settings[name].batch * 1000)
    return found


# ---------------------------------------------------------------------------------------------
# What is reported
# ---------------------------------------------------------------------------------------------


def compare_speed(record: Record, args: argparse.Namespace, resolution: int) -> None:
    """Time both sides after the warm-up and in it."""
    ours = Setting("ours", resolution, args.batch, tuple(args.backbones.split(",")))
    plain = replace(ours, side=REFERENCE, resize="area")
    sides = {"ours": ours, REFERENCE: plain, FACTORED: replace(plain, side=FACTORED)}
    after = measure(sides, rounds=args.rounds, plain=args.steps)
    before = measure(
        {"ours": ours, REFERENCE: plain}, rounds=args.rounds, plain=args.steps, warmup=True
    )
    rows: list[list[Any]] = []
    for when, times in (("after warm-up", after), ("in warm-up", before)):
        rows += [
            [f"{when}: {name}", median(s), str(speedup(s, times["ours"]))]
            for name, s in times.items()
        ]
    title = f"{resolution} px, batch {args.batch}, {args.backbones}"
    record.table(title, ["", "s/kimg", "times slower than ours"], rows)
    ratio = speedup(after[REFERENCE], after["ours"]).value
    what = f"After warm-up, {resolution} px, against the reference"
    record.check(what, ratio, at_least=TARGET, unit="x")
    record.values[f"s/kimg, {resolution} px"] = {"after warm-up": after, "in warm-up": before}


Curves = dict[tuple[str, int], list[Stats]]


def train_curves(args: argparse.Namespace) -> Curves:
    """Train both sides from the same seeds, in processes side by side: nothing is timed."""
    names = tuple(args.backbones.split(","))
    shape = (args.curve_resolution, args.curve_batch, names, args.curve_input)
    base = Setting("ours", *shape, threads=1)
    keys = [(side, seed) for seed in range(args.seeds) for side in ("ours", REFERENCE)]
    cores = torch.get_num_threads()
    # max_tasks_per_child: a fresh process for each run, since only ours keeps freed memory.
    with ProcessPoolExecutor(cores, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        futures = {
            (side, seed): pool.submit(
                curve,
                replace(base, side=side, options=(("seed", seed),)),
                args.curve_steps,
            )
            for side, seed in keys
        }
        return {key: future.result() for key, future in futures.items()}


def window_means(curves: Curves, name: str, windows: int) -> dict[tuple[str, int], np.ndarray]:
    """Return the mean of one loss in each of equal windows, for every run."""
    return {
        key: np.array([part.mean() for part in np.array_split([s[name] for s in run], windows)])
        for key, run in curves.items()
    }


def relative(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return |a - b| over the mean of their sizes."""
    return np.abs(a - b) / ((np.abs(a) + np.abs(b)) / 2)


def compare_curves(record: Record, args: argparse.Namespace) -> None:
    """Say how far the losses of the sides are apart, and how far those of two seeds are."""
    curves = train_curves(args)
    names = [name for name in curves[REFERENCE, 0][0] if name.startswith("Loss/")]
    seeds = range(args.seeds)
    rows, between_sides, between_seeds = [], [], []
    for name in names:
        means = window_means(curves, name, args.windows)
        sides = [relative(means["ours", s], means[REFERENCE, s]) for s in seeds]
        others = [
            relative(means[side, a], means[side, b])
            for side in ("ours", REFERENCE)
            for a, b in combinations(seeds, 2)
        ]
        between_sides += sides
        between_seeds += others
        last = [float(np.mean([means[side, s][-1] for s in seeds])) for side in ("ours", REFERENCE)]
        found = [100 * f(np.concatenate(x)) for x in (sides, others) for f in (np.mean, np.max)]
        rows.append([name, *last, *map(float, found)])
    record.table(
        f"Losses at {args.curve_resolution} px, batch {args.curve_batch}, backbones fed "
        f"{args.curve_input} px: {args.seeds} seeds, {args.curve_steps} steps, means of "
        f"{args.windows} windows; relative differences in %",
        ["loss", "ours, last window", "reference", "between sides: mean", "largest",
         "between seeds: mean", "largest"],
        rows,
    )  # fmt: skip
    share = float(np.mean(np.concatenate(between_sides)) / np.mean(np.concatenate(between_seeds)))
    record.check("Difference of sides over difference of seeds, losses", share, at_most=1.0)
    record.values["curves"] = {
        f"{side}, seed {seed}": {
            name: means[side, seed].tolist()
            for name in names
            for means in [window_means(curves, name, args.windows)]
        }
        for side, seed in curves
    }


def show_spans(record: Record, title: str, setting: Setting, args: argparse.Namespace) -> None:
    """Add tables of where the time of a step goes."""
    with process(setting) as pool:
        pool.submit(time_steps, 1, False).result()
        spans, whole = pool.submit(span_times, args.cycles).result()
        found = pool.submit(operators, args.steps).result()
    parts = sorted(spans.items(), key=lambda item: -item[1])
    parts += [("the rest", whole - sum(spans.values())), ("whole", whole)]
    record.table(
        f"{title}: parts of a step",
        ["part", "s/kimg", "share, %"],
        [[name, s, 100 * s / whole] for name, s in parts],
    )
    total = sum(ms for _, ms, _ in found)
    record.table(
        f"{title}: operators, profiled, steps without R1",
        ["operator", "ms per step", "share, %", "calls"],
        [[name, ms, 100 * ms / total, calls] for name, ms, calls in found[:OPERATORS]],
    )


def variants(base: Setting) -> dict[str, Setting]:
    """Return the plain trainer as it is and with one choice made otherwise."""
    precision = choose_precision("auto", choose_device())
    other = "fp32" if precision == "bf16" else "bf16"
    return {
        "as it is": base,
        "default layout": replace(base, channels_last=False),
        f"in {other}": replace(base, precision=other),
        "freed memory given back": replace(base, keep_memory=False),
        "no R1": replace(base, options=(("gamma", 0.0),)),
        "no augmentation": replace(base, options=(("aug", "none"), ("aug_p", None))),
    }


def compare_variants(record: Record, args: argparse.Namespace) -> None:
    """Profile the plain trainer and time it against itself with other choices."""
    for side in args.resolutions:
        base = Setting("ours", side, args.plain_batch)
        show_spans(record, f"Plain trainer, {side} px, batch {base.batch}", base, args)
        times = measure(variants(base), rounds=args.rounds, plain=args.steps)
        ours = times["as it is"]
        record.table(
            f"Plain trainer, {side} px, batch {base.batch}: other choices",
            ["", "s/kimg", "times slower"],
            [[name, median(s), str(speedup(s, ours))] for name, s in times.items()],
        )
        record.values[f"plain {side} px"] = times


def compare_r1(record: Record, args: argparse.Namespace) -> None:
    """Time R1 at the images, through ADA, against R1 at what the discriminator sees."""
    rows: list[list[Any]] = []
    for side in args.resolutions:
        for p in (P, 1.0):
            trainer = Ours(Setting("ours", side, args.plain_batch, options=(("aug_p", p),)))
            reals, _ = trainer.stream.at(0)
            times = interleave(
                {
                    "at the images": partial(trainer.r1, reals, augmented=False),
                    "at the augmented images": partial(trainer.r1, reals, augmented=True),
                    "a step without R1": trainer.step,
                },
                args.rounds * args.steps,
            )
            through, seen, step = times.values()
            share = (median(through) - median(seen)) / (16 * median(step) + median(seen))
            rows.append(
                [f"{side} px, p {p:g}", *map(median, times.values()), str(speedup(through, seen)),
                 100 * share]
            )  # fmt: skip
            record.values[f"R1, {side} px, p {p:g}"] = times
    record.table(
        f"R1 of the own discriminator, batch {args.plain_batch}, seconds",
        ["", "at the images", "at the augmented", "a step without", "times longer", "of all, %"],
        rows,
    )


def parse() -> argparse.Namespace:
    parser = arguments(__doc__, "training")
    parser.add_argument("--rounds", type=int, help="timed rounds of each side (3; quick 1)")
    parser.add_argument("--steps", type=int, help="per round, beside one with R1 (3; quick 1)")
    parser.add_argument("--resolutions", type=integers, help="of the images (32,64; quick 16)")
    parser.add_argument("--batch", type=int, help="images per step (16; quick 4)")
    parser.add_argument("--backbones", default=",".join(BACKBONES), help="names, comma-separated")
    parser.add_argument("--curve-steps", type=int, help="of each loss curve (128; quick 8)")
    parser.add_argument("--curve-resolution", type=int, help="of its images (32; quick 16)")
    parser.add_argument("--curve-batch", type=int, help="images per step (16; quick 4)")
    parser.add_argument("--curve-input", type=int, help="fed to its backbones (64; quick 32)")
    parser.add_argument("--windows", type=int, default=4, help="in which its means are taken")
    parser.add_argument("--seeds", type=int, default=2, help="of loss curves, at least 2")
    parser.add_argument("--plain-batch", type=int, help="of the plain trainer (16; quick 4)")
    parser.add_argument("--cycles", type=int, default=1, help="of 16 steps, for the parts")
    parser.add_argument(
        "--only",
        default="speed,curves,parts,plain,r1",
        help="what to measure, comma-separated (speed, curves, parts, plain, r1)",
    )
    args = parser.parse_args()
    usual = {
        "rounds": 3,
        "steps": 3,
        "resolutions": [32, 64],
        "batch": 16,
        "curve_steps": 128,
        "curve_resolution": 32,
        "curve_batch": 16,
        "curve_input": 64,
        "plain_batch": 16,
    }
    tiny = {
        "rounds": 1,
        "steps": 1,
        "resolutions": [16],
        "batch": 4,
        "curve_steps": 8,
        "curve_resolution": 16,
        "curve_batch": 4,
        "curve_input": 32,
        "plain_batch": 4,
    }
    for name, value in (tiny if args.quick else usual).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    return args


def main() -> None:
    args = parse()
    record = Record("training", "Training with two backbones")
    record.settings = {
        name: value for name, value in vars(args).items() if name not in ("out", "quick", "only")
    }
    wanted: Sequence[str] = args.only.split(",")
    if "speed" in wanted:
        for resolution in args.resolutions:
            compare_speed(record, args, resolution)
    if "curves" in wanted:
        compare_curves(record, args)
    if "parts" in wanted:
        names = tuple(args.backbones.split(","))
        for resolution in args.resolutions:
            title = f"Ours with backbones, {resolution} px, batch {args.batch}"
            show_spans(record, title, Setting("ours", resolution, args.batch, names), args)
    if "plain" in wanted:
        compare_variants(record, args)
    if "r1" in wanted:
        compare_r1(record, args)
    record.finish(args.out, quick=args.quick)


if __name__ == "__main__":
    main()
