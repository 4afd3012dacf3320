"""Sample grids side by side: the same latents for every arm."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from execute import finished_training
from judge import split_reals
from PIL import Image, ImageDraw, ImageFont
from plan import Run, Study
from records import last_snapshot

from probe.files import atomic_path
from probe.generators.config import SampleOptions
from probe.generators.open import open_by_seed
from probe.images.grid import save_grid

COLUMNS, ROWS, ZOOM, GAP, TEXT = 16, 2, 2, 8, 16
FIRST_SEED = 10_000_000  # no run draws these


def draw_samples(
    study: Study, out: Path, results: list[dict[str, Any]], path: Path, *, tiles: Path
) -> None:
    """Write one PNG with reals and each arm's samples, of the first seed and most images.

    Args:
        study: the configuration.
        out: folder of the runs.
        results: finished runs.
        path: where to write; nothing is written where there is nothing to draw.
        tiles: folder of each run's samples, which stay when its snapshots are gone.
    """
    if not results:
        return
    images = max(r["images"] for r in results)
    seed = min(r["seed"] for r in results if r["images"] == images)
    chosen = [r for r in results if (r["images"], r["seed"]) == (images, seed)]
    chosen.sort(key=lambda r: list(study.arms).index(r["arm"]))
    blocks = [("training images", _reals(study.run(chosen[0]["run"])))]
    for result in chosen:
        run, tile = study.run(result["run"]), tiles / f"{result['run']}.png"
        trained = finished_training(out, study, run)
        if trained is not None:
            samples = _fakes(last_snapshot(trained, run.kimg))
            save_grid(tile, torch.from_numpy(samples), columns=COLUMNS)
        if tile.exists():
            distance = result["judged"]["last"][study.evaluators[0]]["all"]["frechet"]
            blocks.append((f"{run.arm}  (distance {distance:.3g})", _untile(tile)))
    with atomic_path(path) as temporary:
        _compose(blocks).save(temporary, format="PNG", optimize=True)


def _untile(path: Path) -> np.ndarray:
    """Return the images (N, 3, R, R) of a grid with `COLUMNS` columns and `ROWS` rows."""
    pixels = np.array(Image.open(path).convert("RGB"))
    side = pixels.shape[1] // COLUMNS
    grid = pixels.reshape(ROWS, side, COLUMNS, side, 3)
    return grid.transpose(0, 2, 4, 1, 3).reshape(ROWS * COLUMNS, 3, side, side)


def _reals(run: Run) -> np.ndarray:
    config = run.config
    reals = split_reals(resolution=config.resolution, holdout=config.holdout, seed=config.seed)
    # Spread over the archive, whose neighbours are alike.
    every = np.linspace(0, len(reals.training) - 1, COLUMNS * ROWS).round().astype(int)
    return reals.training.load(every.tolist(), reals.resolution).images.numpy()


def _fakes(snapshot: Path) -> np.ndarray:
    draw = open_by_seed(str(snapshot), sample=SampleOptions(), device=torch.device("cpu"))
    return draw(range(FIRST_SEED, FIRST_SEED + COLUMNS * ROWS))[0].numpy()


def _compose(blocks: list[tuple[str, np.ndarray]]) -> Image.Image:
    """Stack titled blocks of images (N, 3, R, R)."""
    side = blocks[0][1].shape[-1] * ZOOM
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
