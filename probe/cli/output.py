"""All output of the commands; external text is cleaned here."""

import typer

from probe.errors import printable
from probe.events import Event, Note


def say(text: object, *, err: bool = False, style: str | None = None) -> None:
    """Print one or more lines.

    Args:
        text: may contain names, file contents or server replies; it is cleaned.
        err: print to stderr.
        style: a colour, used on a terminal.
    """
    clean = printable(str(text), lines=True)
    typer.echo(typer.style(clean, fg=style, bold=True) if style else clean, err=err)


def show_view(view: str) -> None:
    """Print a view rendered by `probe.reports`, with styles; its text is already clean."""
    typer.echo(view, nl=False)


def show_note(event: Event) -> None:
    """Print a note to stderr, and ignore other events."""
    if isinstance(event, Note):
        say(event.text, err=True)
