"""`probe report`: a ranking or a training run as one HTML page."""

from pathlib import Path
from typing import Annotated

import typer

from probe.cli.output import say


def report(
    run: Annotated[
        Path,
        typer.Argument(
            help="Folder of `probe rank --out`, or a run directory of `probe train`.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="The page; report.html in the run's folder by default.")
    ] = None,
) -> None:
    """Write the page of a ranking or a training run: one file that opens offline."""
    from probe.reports.report import write_report

    say(write_report(run, out))
