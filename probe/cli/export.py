"""`probe export`: write a snapshot in another program's format."""

from pathlib import Path
from typing import Annotated

import typer

import probe
from probe.cli.complete import words
from probe.cli.output import say, show_note
from probe.generators.files import FORMATS
from probe.registry import either


def export(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            help="StyleGAN2 checkpoint, or a run directory (its best snapshot).",
            show_default=False,
        ),
    ],
    format: Annotated[
        str,
        typer.Option(
            help=f"{either(FORMATS)}.", show_default=False, autocompletion=words(tuple(FORMATS))
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Output file; by default CHECKPOINT-FORMAT in the working directory."),
    ] = None,
) -> None:
    """Write a StyleGAN2 in another program's format, with its discriminator if the file has one.

    Prints the path of the file. docs/export.md shows how to load it there.
    """
    say(probe.export(checkpoint, format, out=out, on_event=show_note))
