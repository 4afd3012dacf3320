"""Draw images from a checkpoint, or inspect one."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch

from probe.api.inputs import holds_reference, open_reference, say_what_runs
from probe.devices import choose_device
from probe.errors import UsageError
from probe.events import ImagesDrawn, OnEvent, ignore
from probe.features.reference import Contents, describe_reference
from probe.generators.config import SampleOptions
from probe.generators.files.inspect import Inspection, inspect_file
from probe.generators.open import open_by_seed
from probe.images.grid import save_grid
from probe.images.write import ImageWriter

GENERATE_BATCH = 16


def generate(
    gen: Path | str,
    seeds: Sequence[int],
    *,
    outdir: Path | str | None = None,
    grid: Path | str | None = None,
    sample: SampleOptions | None = None,
    device: str = "auto",
    on_event: OnEvent = ignore,
) -> int:
    """Write images from a generator: a file per seed, a contact sheet, or both.

    Args:
        gen: a checkpoint, a training run's directory, or `module:function`.
        seeds: one per image; each image depends only on its own seed.
        outdir: a folder for seed0000.png and so on, or a .zip; with a dataset.json of the classes
            if the generator is conditional.
        grid: a PNG of all images in a grid.
        sample: truncation, noise and class; without a class each seed draws its own.
        device: "auto", "cpu", "cuda" or "cuda:N".
        on_event: called with progress events; see `probe.events`.

    Returns:
        The number of images generated.

    Raises:
        UsageError: neither `outdir` nor `grid` is given, or the class does not exist.
        CheckpointError: no generator can be read.
    """
    if outdir is None and grid is None:
        raise UsageError("Nothing to write: give --outdir DIR, --grid FILE.png, or both.")
    sample = sample or SampleOptions()
    say_what_runs(str(gen), sample, on_event)
    draw = open_by_seed(str(gen), sample=sample, device=choose_device(device), on_event=on_event)
    written, tiles = 0, []
    with ImageWriter(None if outdir is None else Path(outdir)) as writer:
        for start in range(0, len(seeds), GENERATE_BATCH):
            part = seeds[start : start + GENERATE_BATCH]
            images, classes = draw(part)
            labels = [None] * len(images) if classes is None else classes
            for seed, image, label in zip(part, images, labels, strict=True):
                writer.add(f"seed{seed:04d}.png", image, label)
            if grid is not None:
                tiles.append(images)
            written += len(images)
            on_event(ImagesDrawn(written, len(seeds)))
    if grid is not None:
        sheet = torch.cat(tiles)
        save_grid(Path(grid), sheet, columns=math.ceil(math.sqrt(len(sheet))))
    return written


def inspect(path: Path | str, *, on_event: OnEvent = ignore) -> Inspection | Contents:
    """Show what a checkpoint holds and what its pickle would run, without running it.

    A reference of real images is described, too.

    Args:
        path: of the file; or the URL of a reference.
        on_event: called as a reference is downloaded.

    Raises:
        CheckpointError: there is no such file.
        ImagesError: a reference is damaged, or cannot be downloaded.
    """
    if holds_reference(str(path)):
        return describe_reference(open_reference(str(path), offline=False, on_event=on_event))
    return inspect_file(Path(path))
