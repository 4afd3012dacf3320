"""What a command prints goes through here: text from outside is cleaned on the way."""

import typer

from probe.errors import printable
from probe.events import Event, Note


def say(text: object, *, err: bool = False, style: str | None = None) -> None:
    """Print a line or several.

    Args:
        text: whatever it holds of names, files or servers.
        err: on stderr.
        style: a colour, on a terminal.
    """
    clean = printable(str(text), lines=True)
    typer.echo(typer.style(clean, fg=style, bold=True) if style else clean, err=err)


def show_view(view: str) -> None:
    """Print what `probe.reports` rendered, styles included: it is clean."""
    typer.echo(view, nl=False)


def show_note(event: Event) -> None:
    """Print a note to stderr; other events are worth no line."""
    if isinstance(event, Note):
        say(event.text, err=True)
