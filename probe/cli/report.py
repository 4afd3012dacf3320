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
        Path | None, typer.Option(help="Output file; by default report.html in the run's folder.")
    ] = None,
) -> None:
    """Write the HTML report of a ranking or training run; it opens offline."""
    from probe.reports.report import write_report

    say(write_report(run, out))
