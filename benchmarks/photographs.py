"""Real feature rows for `coverage.py`: photographs in the packaged backbones, whole and damaged.

    python benchmarks/photographs.py --images FOLDER_OR_ZIP --out POOL.npz [--count 2000]

A table per signal of `coverage.py`, (photographs, features of all backbones side by side): the
damage is what a generator's last layers may leave, a slight blur or noise. Row i is photograph i in
every table. Nothing is flipped or cropped to have more rows: they would not be independent.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from common import PACKAGED
from torch.nn import functional as F

from probe.bank.file import load_bank
from probe.bank.load import load_backbone
from probe.devices import choose_device, choose_precision
from probe.features.extract import BackbonePool, pooled_features
from probe.images.open import open_images

BATCH = 64


def blurred(images: torch.Tensor, middle: float) -> torch.Tensor:
    """Return uint8 images (N, 3, R, R), convolved by (1, middle, 1) along both axes."""
    kernel = torch.tensor([1.0, middle, 1.0]) / (middle + 2)
    kernel = (kernel[:, None] * kernel).expand(3, 1, 3, 3)
    padded = F.pad(images.float(), (1, 1, 1, 1), mode="replicate")
    return F.conv2d(padded, kernel, groups=3).round().to(torch.uint8)


def noisy(images: torch.Tensor, deviation: float) -> torch.Tensor:
    """Return uint8 images (N, 3, R, R) with normal noise of so many grey levels."""
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    return (images + deviation * noise).round().clamp(0, 255).to(torch.uint8)


SIGNALS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "none": lambda images: images,
    "weak": lambda images: blurred(images, 30),
    "medium": lambda images: blurred(images, 10),
    "strong": lambda images: noisy(images, 2),
    "saturated": lambda images: noisy(images, 8),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--images", type=Path, required=True, help="photographs, folder or zip")
    parser.add_argument("--out", type=Path, required=True, help="the pool, .npz")
    parser.add_argument("--count", type=int, default=2000, help="photographs at most")
    args = parser.parse_args()
    source, device = open_images(args.images), choose_device()
    count, precision = min(args.count, len(source)), choose_precision("auto", device)
    specs = {spec.name: spec for spec in load_bank(None).select(list(PACKAGED))}
    pool = BackbonePool(lambda name: load_backbone(specs[name], offline=True), device)
    rows: dict[str, list[np.ndarray]] = {signal: [] for signal in SIGNALS}
    for start in range(0, count, BATCH):
        batch = range(start, min(start + BATCH, count))
        images = source.load(batch, source.resolution).images
        for signal, damage in SIGNALS.items():
            seen = damage(images)
            parts = [
                pooled_features(pool.get(name), seen, device=device, precision=precision)
                for name in PACKAGED
            ]
            rows[signal].append(np.hstack(parts).astype(np.float32))
        print(f"{batch.stop} of {count}", flush=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    np.savez(args.out, **{signal: np.concatenate(parts) for signal, parts in rows.items()})


if __name__ == "__main__":
    main()
