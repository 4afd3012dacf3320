"""`probe demo`: a leaderboard from bundled data."""

from pathlib import Path
from typing import Annotated

import typer

from probe.cli.options import Quiet, number_option
from probe.cli.output import show_view
from probe.options import Range


def demo(
    *,
    num: Annotated[
        int,
        typer.Option(
            help="Images of each class.", **number_option("--num", Range(32, 1000), whole=True)
        ),
    ] = 128,
    out: Annotated[Path | None, typer.Option(help="Folder to write all results to.")] = None,
    quiet: Quiet = False,
) -> None:
    """Rank the packaged backbones on bundled images and a bundled generator, offline."""
    from probe.api import rank
    from probe.reports.progress import Progress
    from probe.reports.rank_table import render

    with Progress(quiet=quiet) as progress:
        ranking = rank.demo(out=out, num=num, on_event=progress)
    if ranking is None:  # another torchrun process prints it
        return
    show_view(render(list(ranking.leaderboards.values()), "table"))
    raise typer.Exit(ranking.leaderboard.exit_code)
