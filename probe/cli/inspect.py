"""`probe inspect`: what a checkpoint holds, and what its pickle would run."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

import probe
from probe.cli.output import say
from probe.errors import printable


def inspect(
    file: Annotated[
        str,
        typer.Argument(help="Checkpoint, training run's directory, or reference; its path or URL."),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what a checkpoint holds and what its pickle would run, without running it."""
    from probe.files import to_json
    from probe.reports.progress import Progress

    with Progress(quiet=False) as progress:
        found = probe.inspect(file, on_event=progress)
    if as_json:
        say(to_json(asdict(found), indent=2))
    else:
        say(_lines(asdict(found)))
    raise typer.Exit(1 if found.problem else 0)


def _lines(record: dict[str, Any]) -> str:
    """Return one line per value that is set; list items go on separate lines."""
    lines = []
    for name, value in record.items():
        values = value if isinstance(value, list) else [] if value is None else [value]
        for i, part in enumerate(values):
            shown = f"{part:,}" if isinstance(part, int) else printable(str(part))
            lines.append(f"{f'{name}:' if i == 0 else '':<12}{shown}")
    return "\n".join(lines)
