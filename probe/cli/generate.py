"""`probe generate`: images from a checkpoint."""

from pathlib import Path
from typing import Annotated

import typer

import probe
from probe.cli.options import Device, Quiet, with_options
from probe.cli.output import say, show_note
from probe.events import ignore
from probe.generators.config import SampleOptions
from probe.generators.seeds import parse_seeds


@with_options("sample", SampleOptions, "Sampling")
def generate(
    *,
    gen: Annotated[
        str,
        typer.Option(
            "--gen",
            "--network",
            help="Checkpoint, run directory, or module:function.",
            show_default=False,
        ),
    ],
    seeds: Annotated[str, typer.Option(help="Seeds to draw: 0-63,100.")] = "0-63",
    outdir: Annotated[
        Path | None,
        typer.Option("--outdir", "--out", help="Folder or .zip to write seed0000.png … to."),
    ] = None,
    grid: Annotated[Path | None, typer.Option(help="PNG with all images in a grid.")] = None,
    device: Device = "auto",
    quiet: Quiet = False,
    sample: SampleOptions,
) -> None:
    """Draw images from a generator, one per seed."""
    numbers = parse_seeds(seeds)

    count = probe.generate(
        gen,
        numbers,
        outdir=outdir,
        grid=grid,
        sample=sample,
        device=device,
        on_event=ignore if quiet else show_note,
    )
    if not quiet:
        places = " and ".join(str(place) for place in (outdir, grid) if place is not None)
        say(f"{count} images in {places}", err=True)
