"""`probe reference`: a file that stands for real images in later comparisons."""

from pathlib import Path
from typing import Annotated

import typer

import probe
from probe.accel.memory import keep_freed_memory
from probe.cli.options import Backbones, BankPath, Device, Offline, Quiet, Reals, with_options
from probe.cli.output import say, show_view
from probe.features.config import ReferenceOptions


@with_options("options", ReferenceOptions, "Keeping")
def reference(
    *,
    real: Reals,
    out: Annotated[
        Path,
        typer.Option(help="File to write, NAME.safetensors.", show_default=False),
    ],
    bank: BankPath = None,
    backbones: Backbones = None,
    device: Device = "auto",
    offline: Offline = False,
    quiet: Quiet = False,
    options: ReferenceOptions,
) -> None:
    """Write a reference: features that rank and metrics take in place of --real.

    Per backbone it holds the features of a sample, and mean and covariance over all images.
    """
    from probe.reports.coverage_table import as_table
    from probe.reports.progress import Progress

    keep_freed_memory()
    with Progress(quiet=quiet) as progress:
        found = probe.reference(
            real,
            out,
            bank=bank,
            backbones=backbones,
            options=options,
            device=device,
            offline=offline,
            on_event=progress,
        )
    if found is None:  # another torchrun process prints it
        return
    show_view(as_table(found))
    say(f"{out}: {out.stat().st_size / 1e6:.1f} MB", err=True)
    raise typer.Exit(found.exit_code)
