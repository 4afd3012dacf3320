"""Sample grids side by side: the same latents for every arm."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data import judged_parts
from execute import finished_training
from PIL import Image, ImageDraw, ImageFont
from plan import Run, Study
from records import last_snapshot

from probe.files import atomic_path, digest_bytes, write_text
from probe.generators.config import SampleOptions
from probe.generators.open import open_by_seed
from probe.images.grid import save_grid
from probe.images.open import open_images

COLUMNS, ROWS, GAP, TEXT = 16, 2, 8, 16
SIDE = 64  # of an image on a sheet, in pixels, at least
JPEG_QUALITY = 92
FIRST_SEED = 10_000_000  # no run draws these
SHEET, SHEET_OF_PHOTOS = "samples.png", "samples.jpg"
BLIND, BLIND_KEY = "blind.jpg", "blind-key.json"


def draw_samples(
    study: Study, out: Path, results: list[dict[str, Any]], folder: Path, *, tiles: Path
) -> None:
    """Draw sheets with each arm's samples, of the first seed and most images.

    Bundled images are shown beside them; others never leave their own folder.

    Args:
        study: the configuration.
        out: folder of the runs.
        results: finished runs.
        folder: where the sheets go; nothing is written where there is nothing to draw.
        tiles: folder of each run's samples, which stay when its snapshots are gone.
    """
    if not results:
        return
    images = max(r["images"] for r in results)
    seed = min(r["seed"] for r in results if r["images"] == images)
    chosen = [r for r in results if (r["images"], r["seed"]) == (images, seed)]
    chosen.sort(key=lambda r: list(study.arms).index(r["arm"]))
    blocks, arms = [], []
    if study.real is None:
        blocks.append(("training images", _reals(study, study.run(chosen[0]["run"]))))
    for result in chosen:
        run, tile = study.run(result["run"]), tiles / f"{result['run']}.png"
        trained = finished_training(out, study, run)
        if trained is not None:
            samples = _fakes(last_snapshot(trained, run.kimg))
            save_grid(tile, torch.from_numpy(samples), columns=COLUMNS)
        if tile.exists():
            arms.append(run.arm)
            distance = result["judged"]["last"][study.evaluators[0]]["all"]["frechet"]
            blocks.append((f"{run.arm}  (distance {distance:.3g})", _untile(tile)))
    if study.real is None:
        _save(blocks, folder / SHEET)
    elif blocks:
        _save(blocks, folder / SHEET_OF_PHOTOS)
        _write_blind(blocks, arms, folder)


def _save(blocks: Sequence[tuple[str, np.ndarray]], path: Path) -> None:
    options = {"quality": JPEG_QUALITY} if path.suffix == ".jpg" else {"optimize": True}
    kind = "JPEG" if path.suffix == ".jpg" else "PNG"
    with atomic_path(path) as temporary:
        _compose(blocks).save(temporary, format=kind, **options)


def _write_blind(
    blocks: Sequence[tuple[str, np.ndarray]], arms: Sequence[str], folder: Path
) -> None:
    """Draw the sheet again without names, in an order that the samples decide; write the key."""
    order = sorted(range(len(blocks)), key=lambda i: digest_bytes(blocks[i][1].tobytes()))
    letters = [chr(ord("A") + n) for n in range(len(order))]
    _save([(x, blocks[i][1]) for x, i in zip(letters, order, strict=True)], folder / BLIND)
    key = {x: arms[i] for x, i in zip(letters, order, strict=True)}
    write_text(folder / BLIND_KEY, json.dumps(key, indent=2) + "\n")


def _untile(path: Path) -> np.ndarray:
    """Return the images (N, 3, R, R) of a grid with `COLUMNS` columns and `ROWS` rows."""
    pixels = np.array(Image.open(path).convert("RGB"))
    side = pixels.shape[1] // COLUMNS
    grid = pixels.reshape(ROWS, side, COLUMNS, side, 3)
    return grid.transpose(0, 2, 4, 1, 3).reshape(ROWS * COLUMNS, 3, side, side)


def _reals(study: Study, run: Run) -> np.ndarray:
    source, training = open_images(study.archive), judged_parts(study, run)["training"]
    # Spread over the archive, whose neighbours are alike.
    every = np.linspace(0, len(training) - 1, COLUMNS * ROWS).round().astype(int)
    side = run.config.resolution or source.resolution
    return source.load([training[i] for i in every], side).images.numpy()


def _fakes(snapshot: Path) -> np.ndarray:
    draw = open_by_seed(str(snapshot), sample=SampleOptions(), device=torch.device("cpu"))
    return draw(range(FIRST_SEED, FIRST_SEED + COLUMNS * ROWS))[0].numpy()


def _compose(blocks: Sequence[tuple[str, np.ndarray]]) -> Image.Image:
    """Stack titled blocks of images (N, 3, R, R)."""
    side = max(SIDE, blocks[0][1].shape[-1])
    height = TEXT + ROWS * side + GAP
    sheet = Image.new("RGB", (COLUMNS * side, len(blocks) * height), "white")
    pen = ImageDraw.Draw(sheet)
    for b, (title, images) in enumerate(blocks):
        pen.text((2, b * height), title, fill="black", font=ImageFont.load_default(12))
        for i, image in enumerate(images):
            tile = Image.fromarray(image.transpose(1, 2, 0)).resize(
                (side, side), Image.Resampling.NEAREST
            )
            row, column = divmod(i, COLUMNS)
            sheet.paste(tile, (column * side, b * height + TEXT + row * side))
    return sheet
