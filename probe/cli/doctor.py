"""`probe doctor`: find problems and estimate the cost before a long job."""

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

import probe
from probe.cli.complete import words
from probe.cli.options import KINDS, Backbones, BankPath, Device, number_option
from probe.cli.output import say, show_note, show_view
from probe.events import Event, FindingMade, InputRead
from probe.options import SIDE
from probe.probing.strategies import STRATEGIES
from probe.registry import either


def doctor(
    real: Annotated[
        str,
        typer.Option(
            "--real",
            "--data",
            help=f"Real images: {KINDS}.",
            show_default=False,
        ),
    ],
    gen: Annotated[
        str | None,
        typer.Option(
            "--gen", "--network", help="What you want to rank; checked against the real images."
        ),
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="Folder of a ranking or training run to check as well.")
    ] = None,
    bank: BankPath = None,
    backbones: Backbones = None,
    strategy: Annotated[
        str,
        typer.Option(
            help=f"Strategy of the training to estimate: {either(STRATEGIES)}.",
            autocompletion=words(STRATEGIES),
        ),
    ] = "progressive",
    resolution: Annotated[
        int | None,
        typer.Option(
            help="Side in pixels; by default that of the images.",
            **number_option("--resolution", SIDE, whole=True),
        ),
    ] = None,
    measure: Annotated[
        bool,
        typer.Option(
            help="Do not time the backbones and a few training steps to estimate the cost."
        ),
    ] = True,
    device: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with every name.")] = False,
) -> None:
    """Check images, weights and runs: problems, cost and suggested settings.

    Downloads nothing. Exits with 1 if there is a problem.
    """
    from probe.files import to_json
    from probe.reports.doctor_text import ExaminationText
    from probe.reports.progress import Progress

    text = ExaminationText()
    reading = Progress(quiet=False)

    def show(event: Event) -> None:
        if isinstance(event, InputRead):
            reading(event)
            return
        shown.close()  # what follows are lines of their own
        show_note(event)
        if isinstance(event, FindingMade) and not as_json:
            show_view(text.finding(event.finding) + "\n")

    with ExitStack() as shown:
        shown.enter_context(reading)
        found = probe.doctor(
            real, gen=gen, run=run, bank=bank, backbones=backbones, strategy=strategy,
            resolution=resolution, measure=measure, device=device, on_event=show,
        )  # fmt: skip
    if as_json:
        say(to_json(found.to_dict()))
    elif found.commands:
        show_view(text.commands(found.commands) + "\n")
    raise typer.Exit(found.exit_code)
