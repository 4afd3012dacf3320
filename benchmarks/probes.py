"""The probe of one backbone: the weighing of C, the fits that give scores, their uncertainty.

    python benchmarks/probes.py [--quick] [--rounds 3] [--out FILE.json]

Synthetic features have the decaying spectrum of pooled ones, at three distances between the
classes; with --real, features of the first packaged backbone join them: bundled images against
blurred ones.
"""

import argparse
from collections.abc import Callable
from statistics import median

import numpy as np
import torch
from common import PACKAGED, Record, arguments, stopwatch
from inputs import synthetic_features
from torch.nn import functional as F

from probe.bank.file import load_bank
from probe.bank.load import load_backbone
from probe.bundled import DEMO_REALS
from probe.devices import choose_device, choose_precision
from probe.features.extract import BackbonePool, pooled_features
from probe.images.open import open_images
from probe.probing.fit import evaluate
from probe.probing.protocol import FAIR, PROTOCOLS, ProbeResult
from probe.probing.uncertainty import spread

SIZES = ((2000, 1280, 2.0), (20_000, 2048, 60.0))  # rows of both classes, width, target in seconds
GAPS = {"near chance": 0.3, "apart": 3.0, "far apart": 10.0}

Classes = tuple[np.ndarray, np.ndarray]


def score(classes: Classes) -> ProbeResult:
    """Do for one backbone what a ranking does once it has features."""
    result = evaluate(*classes, protocol=FAIR, seed=0)
    spread([result], "score", 0).interval(0)
    return result


def parts(classes: Classes) -> dict[str, Callable[[], object]]:
    """Return what is timed: all of it, the reference's protocol, and a comparison of two."""
    result = score(classes)
    return {
        "whole": lambda: score(classes),
        "paper": lambda: evaluate(*classes, protocol=PROTOCOLS["paper"], seed=0),
        "comparison": lambda: spread([result, result], "score", 0).better([0, 1]),
    }


def real_features(name: str, count: int) -> Classes:
    """Return a backbone's features of bundled images, as they are and blurred."""
    spec = load_bank(None).select([name])[0]
    device = choose_device()
    backbone = BackbonePool(lambda _: load_backbone(spec, offline=True), device).get(name)
    source = open_images(DEMO_REALS)
    images = source.load(range(min(2 * count, len(source))), source.resolution).images
    kernel = torch.tensor([1.0, 2.0, 1.0])
    kernel = (kernel[:, None] * kernel / 16).expand(3, 1, 3, 3)
    blurred = F.conv2d(images[1::2].float(), kernel, padding=1, groups=3).round().to(torch.uint8)
    precision = choose_precision("auto", device)
    first, second = (
        pooled_features(backbone, part, device=device, precision=precision)
        for part in (images[::2], blurred)
    )
    return first, second


def inputs(args: argparse.Namespace) -> list[tuple[str, Callable[[], Classes], float | None]]:
    """Return title, features and target of every case; features are made when they are needed."""
    cases: list[tuple[str, Callable[[], Classes], float | None]] = []
    for rows, width, target in [(64, 128, None)] if args.quick else SIZES:
        for title, gap in GAPS.items():
            name = f"{rows:,} x {width:,}, {title}"
            make = lambda r=rows, w=width, g=gap: synthetic_features(r, w, gap=g)  # noqa: E731
            cases.append((name, make, target))
    if args.real:
        count = 16 if args.quick else 500
        cases.append((f"{PACKAGED[0]}, blur", lambda: real_features(PACKAGED[0], count), None))
    return cases


def main() -> None:
    parser = arguments(__doc__, "probes")
    parser.add_argument("--rounds", type=int, help="of every case (3; quick 1)")
    parser.add_argument("--real", action=argparse.BooleanOptionalAction, default=True)
    args = parser.parse_args()
    rounds = args.rounds or (1 if args.quick else 3)
    record = Record("probes", "The probe of one backbone, features given")
    record.settings = {"rounds": rounds}
    rows = []
    for title, make, target in inputs(args):
        classes = make()
        result = score(classes)
        seconds = {
            name: [stopwatch(work) for _ in range(rounds)] for name, work in parts(classes).items()
        }
        middle = {name: median(values) for name, values in seconds.items()}
        rows.append([title, result.score, *middle.values()])
        record.values[title] = {"seconds": seconds, "strengths": list(result.c_values)}
        print(f"{title}: {middle['whole']:.3g} s", flush=True)
        if target is not None:
            record.check(title, middle["whole"], at_most=target, unit=" s")
    record.table(
        "Seconds, rows of both classes together x features",
        ["case", "score", "fits, search and interval", "reference's protocol", "a comparison"],
        rows,
    )
    record.finish(args.out, quick=args.quick)


if __name__ == "__main__":
    main()
