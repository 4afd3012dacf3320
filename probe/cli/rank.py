"""`probe rank`: the leaderboard."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

import probe
from probe.accel.memory import keep_freed_memory
from probe.cli.options import split_names, with_options
from probe.cli.output import show_view
from probe.generators.config import SampleOptions
from probe.probing.config import RankOptions


class Format(StrEnum):
    """Output formats of the leaderboard on stdout."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    MARKDOWN = "markdown"


@with_options("sample", SampleOptions, "Sampling a checkpoint")
@with_options("options", RankOptions, "Ranking")
def rank(
    *,
    real: Annotated[
        Path,
        typer.Option("--real", "--data", help="Folder or zip of real images.", show_default=False),
    ],
    gen: Annotated[
        str,
        typer.Option(
            "--gen",
            "--network",
            help="Checkpoint, run directory, folder or zip of images, or module:function.",
            show_default=False,
        ),
    ],
    bank: Annotated[
        Path | None, typer.Option(help="Model bank; ./modelbank.yaml or the packaged one.")
    ] = None,
    backbones: Annotated[
        str | None,
        typer.Option(help="Names, patterns, presets: 'dino*,@small'."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "--outdir", help="Folder to write all results to.")
    ] = None,
    format: Annotated[Format, typer.Option(help="Output format.")] = Format.TABLE,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    offline: Annotated[
        bool, typer.Option("--offline/--no-offline", help="Never download weights.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet/--no-quiet", help="Hide progress.")] = False,
    options: RankOptions,
    sample: SampleOptions,
) -> None:
    """Rank backbones by how well they tell real images from generated ones."""
    from probe.cli.progress import Progress
    from probe.reports.rank_table import render

    keep_freed_memory()
    names = split_names(backbones)
    with Progress(quiet=quiet) as progress:
        ranking = probe.rank(
            real,
            gen,
            bank=bank,
            backbones=names,
            options=options,
            sample=sample,
            out=out,
            device=device,
            offline=offline,
            on_event=progress,
        )
    if ranking is None:  # another torchrun process prints it
        return
    show_view(render(list(ranking.leaderboards.values()), format.value))
    raise typer.Exit(ranking.leaderboard.exit_code)
