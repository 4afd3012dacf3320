"""`probe features`: features of one set of images, whole or one task's share of it."""

from typing import Annotated

import typer

import probe
from probe.accel.memory import keep_freed_memory
from probe.cli.options import Backbones, BankPath, Device, Offline, Quiet, Reals, with_options
from probe.cli.output import say, show_view
from probe.features.config import ExtractOptions


@with_options("options", ExtractOptions, "Extracting")
def features(
    *,
    real: Reals,
    bank: BankPath = None,
    backbones: Backbones = None,
    missing: Annotated[
        bool, typer.Option("--missing", help="Compute nothing; say how much is missing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with every name.")] = False,
    device: Device = "auto",
    offline: Offline = False,
    quiet: Quiet = False,
    options: ExtractOptions,
) -> None:
    """Compute the features that a ranking of these images will use, and store them.

    Exits with 3 if some are missing at the end; the same command fills them in.
    """
    from probe.files import to_json
    from probe.reports.coverage_table import as_table
    from probe.reports.progress import Progress

    keep_freed_memory()
    with Progress(quiet=quiet) as progress:
        found = probe.extract(
            real,
            bank=bank,
            backbones=backbones,
            options=options,
            only_count=missing,
            device=device,
            offline=offline,
            on_event=progress,
        )
    if found is None:  # another torchrun process prints it
        return
    if as_json:
        say(to_json(found.to_dict()))
    else:
        show_view(as_table(found))
    raise typer.Exit(found.exit_code)
