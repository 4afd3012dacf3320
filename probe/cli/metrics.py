"""`probe metrics`: distances between real and generated images."""

from typing import Annotated

import typer

from probe.cli.complete import backbones as complete_backbones
from probe.cli.options import GEN, REAL, BankPath, Device, Offline, Quiet, with_options
from probe.cli.output import show_view
from probe.cli.rank import OutputFormat
from probe.generators.config import SampleOptions
from probe.metrics.config import MeasureOptions


@with_options("sample", SampleOptions, "Sampling a checkpoint")
@with_options("options", MeasureOptions, "Measuring")
def metrics(
    *,
    real: Annotated[str, REAL],
    gen: Annotated[str, GEN],
    bank: BankPath = None,
    backbones: Annotated[
        str | None,
        typer.Option(
            help="Names, patterns, presets; default: the bank's evaluator.",
            autocompletion=complete_backbones,
        ),
    ] = None,
    format: Annotated[OutputFormat, typer.Option(help="Output format.")] = OutputFormat.TABLE,
    device: Device = "auto",
    offline: Offline = False,
    quiet: Quiet = False,
    options: MeasureOptions,
    sample: SampleOptions,
) -> None:
    """Compute Fréchet and kernel distance, precision, recall, density and coverage."""
    from probe.api.metrics import measure
    from probe.reports.metrics_table import render
    from probe.reports.progress import Progress

    with Progress(quiet=quiet) as progress:
        found = measure(
            real,
            gen,
            bank=bank,
            backbones=backbones,
            options=options,
            sample=sample,
            device=device,
            offline=offline,
            on_event=progress,
        )
    show_view(render(found, format.value))
    raise typer.Exit(found.exit_code)
