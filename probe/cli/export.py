"""`probe export`: a snapshot as other programs load it."""

from pathlib import Path
from typing import Annotated, Any

import typer


def export(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            help="A StyleGAN2 in any form that is read, or a run's directory: its best snapshot.",
            show_default=False,
        ),
    ],
    format: Annotated[str, typer.Option(help="rosinality or stylegan2-ada.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option(help="The file; named after checkpoint and format, here, by default."),
    ] = None,
) -> None:
    """Write a StyleGAN2 as another program loads it, with the discriminator if there is one.

    Prints the file's path. docs/export.md has the few lines that turn it into their network.
    """
    from probe import api

    typer.echo(api.export(checkpoint, format, out=out, report=_report))


def _report(record: dict[str, Any]) -> None:
    """Print notes to stderr."""
    if record["event"] == "note":
        typer.echo(record["text"], err=True)
