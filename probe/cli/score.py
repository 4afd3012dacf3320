"""`probe score`: how likely each image was generated, by the probes of a ranking."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

import probe
from probe.cli.complete import backbones as complete_backbones
from probe.cli.options import BankPath, Device, Offline, Quiet, number_option
from probe.cli.output import say, show_view
from probe.options import SHARE


class ScoreFormat(StrEnum):
    """Output formats of the scores on stdout."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


def score(
    images: Annotated[
        list[str],
        typer.Argument(
            help="Folder, zip, tars or another set of images, or image files.", show_default=False
        ),
    ],
    run: Annotated[Path, typer.Option(help="Folder of `probe rank --out`.", show_default=False)],
    bank: BankPath = None,
    backbones: Annotated[
        str | None,
        typer.Option(
            help="Names, patterns, presets; default: all but the controls.",
            autocompletion=complete_backbones,
        ),
    ] = None,
    threshold: Annotated[
        float,
        typer.Option(
            help="Call an image generated above this probability.",
            **number_option("--threshold", SHARE, whole=False),
        ),
    ] = 0.5,
    format: Annotated[ScoreFormat, typer.Option(help="Output format.")] = ScoreFormat.TABLE,
    device: Device = "auto",
    offline: Offline = False,
    quiet: Quiet = False,
) -> None:
    """Give each image's probability of being generated, by the probes of a ranking.

    Valid for that ranking's generator and its kind of reals alone.
    """
    from probe.reports.progress import Progress
    from probe.reports.score_table import remarks, render

    with Progress(quiet=quiet) as progress:
        found = probe.score(
            images,
            run,
            bank=bank,
            backbones=backbones,
            threshold=threshold,
            device=device,
            offline=offline,
            on_event=progress,
        )
    show_view(render(found, format.value))
    if format is ScoreFormat.CSV:  # CSV has no place for the remarks
        for line in remarks(found):
            say(line, err=True)
    raise typer.Exit(found.exit_code)
