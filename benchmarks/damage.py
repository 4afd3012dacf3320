"""What does each packaged backbone see? Photographs against other photographs, slightly damaged.

    python benchmarks/damage.py --images photos.zip

Six kinds of damage, each in a strength that leaves something to tell. If it is stopped, repeat it:
features and probes are kept in the cache, and the record is written after every kind.
"""

import argparse
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Record, arguments
from PIL import Image, ImageEnhance, ImageFilter
from scipy.ndimage import median_filter

import probe
from probe.bank.file import load_bank, packaged_bank
from probe.images.open import open_images
from probe.images.tensors import TensorSource
from probe.probing.config import RankOptions

SEED = 0
CONTROLS = ("random-resnet18#0",)

Damage = Callable[[np.ndarray, np.random.Generator], np.ndarray]  # uint8 (S, S, 3) in and out


def blur(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blur by a Gaussian with a deviation of 0.5 px."""
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(0.5)))


def noise(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add independent normal noise with a deviation of 3 of 255."""
    return np.clip(np.rint(image + rng.normal(0, 3, image.shape)), 0, 255).astype(np.uint8)


def jpeg(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Compress as JPEG of quality 90 and decode."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=90)
    return np.asarray(Image.open(file))


def colour(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Raise the saturation by 60 %."""
    return np.asarray(ImageEnhance.Color(Image.fromarray(image)).enhance(1.6))


def texture(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blend half of a 3 x 3 median in, which takes fine texture and leaves edges."""
    median = median_filter(image, (3, 3, 1), mode="nearest")
    return np.rint((image.astype(float) + median) / 2).astype(np.uint8)


def geometry(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Move each row sideways by one whole pixel or none, along a wave; no value changes."""
    side = len(image)
    wave = np.sin(2 * np.pi * (np.arange(side) / 32 + rng.random()))
    columns = np.arange(side)[None] + np.rint(wave).astype(int)[:, None]
    return image[np.arange(side)[:, None], np.clip(columns, 0, side - 1)]


DAMAGES: dict[str, tuple[str, Damage]] = {
    "blur": ("Gaussian, deviation 0.5 px", blur),
    "noise": ("normal, deviation 3 of 255", noise),
    "JPEG": ("quality 90", jpeg),
    "colour": ("saturation 60 % higher", colour),
    "texture": ("half of a 3 x 3 median", texture),
    "geometry": ("rows moved along a wave of 1 px", geometry),
}


def main() -> None:
    parser = arguments(__doc__, "damage")
    parser.add_argument("--images", type=Path, required=True, help="zip or folder of photographs")
    parser.add_argument("--num", type=int, default=400, help="images of each class")
    parser.add_argument("--backbones", help="comma-separated; by default all packaged ones")
    args: argparse.Namespace = parser.parse_args()
    num = 32 if args.quick else args.num
    names = args.backbones.split(",") if args.backbones else packaged()
    photos = open_images(args.images)
    order = np.random.default_rng(SEED).permutation(len(photos))[: 2 * num]
    pixels = photos.load(order.tolist(), photos.resolution).images.permute(0, 2, 3, 1).numpy()
    boards = {}
    for kind, (_, damage) in DAMAGES.items():
        boards[kind] = ranked(pixels[:num], damaged(pixels[num:], damage), kind, names)
        recorded(boards, num, args.images.stem).finish(args.out, quick=args.quick)


def packaged() -> list[str]:
    """Return the backbones whose weights come in packages, and a control."""
    specs = load_bank(packaged_bank()).specs
    return [s.name for s in specs if s.weights.kind == "package"] + list(CONTROLS)


def damaged(images: np.ndarray, damage: Damage) -> np.ndarray:
    """Return uint8 (N, S, S, 3), each image damaged with its own random numbers."""
    rngs = np.random.default_rng(SEED).spawn(len(images))
    return np.stack([damage(image, rng) for image, rng in zip(images, rngs, strict=True)])


def ranked(reals: np.ndarray, fakes: np.ndarray, kind: str, names: list[str]) -> dict[str, Any]:
    """Return backbone → the row of its leaderboard, as plain values."""
    sources = [
        TensorSource(torch.from_numpy(images).permute(0, 3, 1, 2), name=name)
        for images, name in ((reals, "photographs"), (fakes, kind))
    ]
    ranking = probe.rank(
        *sources,
        bank=packaged_bank(),
        backbones=names,
        options=RankOptions(num=len(reals), seed=SEED, precision="fp32"),
        offline=True,
    )
    assert ranking is not None  # this is one process
    return {row["name"]: row for row in ranking.leaderboard.to_dict()["rows"]}


def recorded(boards: dict[str, dict[str, Any]], num: int, images: str) -> Record:
    """Return the record of the kinds so far; the best and those level with it are in bold."""
    record = Record("damage", "What each packaged backbone sees")
    record.settings = {"images": images, "num": num, "precision": "fp32"}
    record.values = boards
    first = next(iter(boards.values()))
    names = [name for name in packaged() if name in first]
    record.table(
        f"Score in nats (chance -0.693) with its 95 % interval, {num} photographs against {num} "
        "others, damaged; in bold the first rank",
        ["damage", "how much", *names],
        [
            [kind, DAMAGES[kind][0], *(cell(board.get(name, {})) for name in names)]
            for kind, board in boards.items()
        ],
    )
    costs = [first[name] for name in names]
    record.table(
        "What they are",
        ["backbone", "features", "million parameters", "billion multiply-adds", "licence"],
        [
            [r["name"], r["dim"], r["params"] / 1e6, r["flops"] / 1e9, r["license"]]
            for r in costs
            if r["status"] == "ok"
        ],
    )
    return record


def cell(row: dict[str, Any]) -> str:
    """Return a score and its interval."""
    if row.get("score") is None:
        return "—"
    text = f"{row['score']:.3f} ({row['score_low']:.3f} to {row['score_high']:.3f})"
    return f"**{text}**" if row["rank"] == 1 else text


if __name__ == "__main__":
    main()
