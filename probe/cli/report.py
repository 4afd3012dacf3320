"""`probe report`: a ranking or training runs as one HTML page."""

from pathlib import Path
from typing import Annotated

import typer

import probe
from probe.cli.output import say


def report(
    run: Annotated[
        list[Path],
        typer.Argument(
            help="Folder of `probe rank --out`, or a run directory of `probe train`; several run "
            "directories are compared.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Output file; by default report.html in the run's folder, or comparison.html "
            "beside the first of several."
        ),
    ] = None,
) -> None:
    """Write the HTML report of a ranking or of training runs; it opens offline."""
    say(probe.report(run, out=out))
