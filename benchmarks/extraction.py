"""Feature extraction: images per second of each backbone against a plain loop over timm.

    python benchmarks/extraction.py [--quick] [--images 256] [--rounds 5] [--out FILE.json]

Ours is `pooled_features` on a channels_last backbone, in the precision that probe chooses here, and
in float32. The plain loop feeds the same decoded tensors to the library's own module in float32, in
the default memory layout, 64 at a time, and 8 at a time: large batches can be slow, since the
system clears the memory of every large tensor anew. All sides take turns. Images have the
backbone's input size already, so that no side resizes.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from common import PACKAGED, Ratio, Record, arguments, interleave, matmul_peak, speedup
from reference import load_network
from torch import nn

from probe.bank.base import Backbone, InputSpec
from probe.bank.file import load_bank
from probe.bank.load import load_backbone
from probe.bank.spec import BackboneSpec
from probe.bundled import BN_IMAGES
from probe.devices import choose_device, choose_precision
from probe.features.extract import BackbonePool, backbone_costs, pooled_features
from probe.images.open import open_images

BANK = Path(__file__).resolve().parent / "bank.yaml"
RANDOM = ("resnet50", "vit-b16", "swin-t")
BATCH, SMALL_BATCH = 64, 8


@dataclass(frozen=True)
class Speed:
    """What was measured of one backbone.

    Attributes:
        name: of the backbone.
        rates: side → images per second.
        ratios: side → how many times faster than the plain loop with batches of 64.
        small_ratio: how many times faster ours is than the plain loop with batches of 8.
        gflops: multiply-adds per image, times two, in billions.
        alike: least cosine between a plain feature and ours; None for random weights, where the
            plain side has others.
    """

    name: str
    rates: dict[str, float]
    ratios: dict[str, Ratio]
    small_ratio: Ratio
    gflops: float
    alike: float | None


@torch.inference_mode()
def plain_features(
    network: nn.Module, spec: InputSpec, images: torch.Tensor, device: torch.device, size: int
) -> np.ndarray:
    """Run images through a module as any script would: float32, default layout, in batches.

    With PyTorch's own settings, by which a GPU rounds what it convolves to TF32.
    """
    mean, std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (spec.mean, spec.std))
    rows = []
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=True):
        for batch in images.split(size):
            x = batch.to(device).float() / 255
            rows.append(network.pool((x - mean) / std).cpu())
    return torch.cat(rows).numpy()


def ours(backbone: Backbone, images: torch.Tensor, precision: str, device: torch.device):
    """Return our side as something to call."""
    return lambda: pooled_features(backbone, images, device=device, precision=precision)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Return the least cosine between the rows of two tables."""
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float((np.einsum("ij,ij->i", a, b) / lengths).min())


def compare(spec: BackboneSpec, count: int, rounds: int, precision: str) -> Speed:
    """Time all sides on one backbone."""
    device = choose_device()
    pool = BackbonePool(
        lambda name: load_backbone(spec, offline=True, bn_images=open_images(BN_IMAGES)), device
    )
    backbone = pool.get(spec.name)
    network = load_network(spec).to(device).requires_grad_(False)
    side = backbone.input.size
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)
    sides: dict[str, Callable[[], np.ndarray]] = {
        name: lambda size=size: plain_features(network, backbone.input, images, device, size)
        for name, size in (("plain", BATCH), ("small", SMALL_BATCH))
    }
    for name in dict.fromkeys(("fp32", precision)):
        sides[name] = ours(backbone, images, name, device)
    alike = None
    if spec.weights.random is None:
        alike = cosine(sides["plain"](), sides[precision]())
    times = interleave(sides, rounds)
    return Speed(
        name=spec.name,
        rates={name: count / median(seconds) for name, seconds in times.items()},
        ratios={name: speedup(times["plain"], times[name]) for name in times},
        small_ratio=speedup(times["small"], times[precision]),
        gflops=2e-9 * backbone_costs(backbone, device)["flops"],
        alike=alike,
    )


def report(speeds: list[Speed], precision: str, args: argparse.Namespace) -> Record:
    """Fill the record."""
    record = Record("extraction", "Feature extraction against a plain loop over timm")
    record.settings = {
        "images": args.images,
        "rounds": args.rounds,
        "batch": BATCH,
        "precision": precision,
    }
    peaks = {name: matmul_peak(name) for name in dict.fromkeys(("fp32", precision))}
    record.values = {"matmul_peak_gflops": peaks}
    record.table(
        f"Images per second, {args.images} decoded images; ours in {precision}, the choice here",
        [
            "backbone",
            "plain fp32",
            f"plain, {SMALL_BATCH} at a time",
            "ours fp32",
            "ours",
            "fp32 ratio",
            "ratio",
            f"ratio to {SMALL_BATCH} at a time",
            "least cosine",
        ],
        [
            [
                s.name,
                s.rates["plain"],
                s.rates["small"],
                s.rates["fp32"],
                s.rates[precision],
                str(s.ratios["fp32"]),
                str(s.ratios[precision]),
                str(s.small_ratio),
                s.alike,
            ]
            for s in speeds
        ],
    )
    peak_text = ", ".join(f"{name} {peak:,.0f}" for name, peak in peaks.items())
    record.table(
        f"GFLOP/s, and their share of the measured matrix product's ({peak_text})",
        [
            "backbone",
            "GFLOP per image",
            "plain fp32",
            "share",
            "ours fp32",
            "share",
            "ours",
            "share",
        ],
        [[s.name, s.gflops, *_shares(s, peaks, precision)] for s in speeds],
    )
    return record


def _shares(speed: Speed, peaks: dict[str, float], precision: str) -> list[float | str]:
    cells: list[float | str] = []
    for side, kind in (("plain", "fp32"), ("fp32", "fp32"), (precision, precision)):
        achieved = speed.rates[side] * speed.gflops
        cells += [achieved, f"{100 * achieved / peaks[kind]:.0f} %"]
    return cells


def main() -> None:
    parser = arguments(__doc__, "extraction")
    parser.add_argument("--images", type=int, help="per round (256; quick 4)")
    parser.add_argument("--rounds", type=int, help="of every side (5; quick 1)")
    parser.add_argument("--backbones", default=",".join((*PACKAGED, *RANDOM)))
    args = parser.parse_args()
    args.images = args.images or (4 if args.quick else 256)
    args.rounds = args.rounds or (1 if args.quick else 5)
    specs = {s.name: s for s in (*load_bank(None).specs, *load_bank(BANK).specs)}
    precision = choose_precision("auto", choose_device())
    speeds = []
    for name in args.backbones.split(","):
        speeds.append(compare(specs[name], args.images, args.rounds, precision))
        print(f"{name}: {speeds[-1].ratios[precision]} times", flush=True)
    report(speeds, precision, args).finish(args.out, quick=args.quick)


if __name__ == "__main__":
    main()
