"""The help of a command: its options in panels, readable in a narrow terminal.

Typer's own table gives every option six columns, which leave a few letters to the help at 60
characters, and shows both sides of each switch.
"""

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import typer
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from typer.core import TyperCommand, TyperGroup

from probe.reports.text import line

WIDEST = 110  # characters; longer lines are hard to read
ROOMY = 72  # characters from which flags and help stand side by side
FLAGS = 32  # characters


class Command(TyperCommand):
    """A command whose help has one panel per group of options."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help; the formatter is not used."""
        show_help(self, ctx)


class Commands(TyperGroup):
    """A group of commands with such a help, whose last panel lists the commands."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help; the formatter is not used."""
        show_help(self, ctx)


class App(typer.Typer):
    """A Typer app whose commands, and which itself, have such a help."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"cls": Commands, **settings})

    def command(self, *names: Any, **settings: Any) -> Callable[[Any], Any]:
        """Register a command."""
        return super().command(*names, **{"cls": Command, **settings})


def show_help(command: Any, ctx: Any) -> None:
    """Print the usage of a command, what it does, its options and its subcommands."""
    console = Console(highlight=False)
    console.width = min(console.width, WIDEST)
    console.print(Padding(line(command.get_usage(ctx), "bold"), (1, 1)))
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        console.print(Padding(line(" ".join(paragraph.split())), (0, 1, 1, 1)))
    panels = {
        title: [_row(parameter, ctx) for parameter in parameters]
        for title, parameters in _panels(command.get_params(ctx)).items()
    }
    if commands := getattr(command, "commands", {}):
        panels["Commands"] = [(name, _first_sentence(found)) for name, found in commands.items()]
    for title, rows in panels.items():
        body = _side_by_side(rows) if console.width >= ROOMY else _stacked(rows)
        console.print(Panel(body, title=title, title_align="left", border_style="dim"))


def _first_sentence(command: Any) -> str:
    return " ".join(inspect.cleandoc(command.help or "").split("\n\n")[0].split())


def _panels(parameters: Iterable[Any]) -> dict[str, list[Any]]:
    """Return title → parameters, in the order of the command."""
    panels: dict[str, list[Any]] = {}
    for parameter in parameters:
        if not parameter.hidden:
            is_argument = parameter.param_type_name == "argument"
            title = parameter.rich_help_panel or ("Arguments" if is_argument else "Options")
            panels.setdefault(title, []).append(parameter)
    return panels


def _row(parameter: Any, ctx: Any) -> tuple[str, str]:
    """Return how a parameter is typed, and what it does."""
    if getattr(parameter, "is_flag", False):
        is_on = parameter.secondary_opts and parameter.default
        flags = parameter.secondary_opts if is_on else parameter.opts
        return ", ".join(sorted(flags, key=len)), parameter.help or ""
    flags, text = parameter.get_help_record(ctx)
    return flags, " ".join(text.split())


def _side_by_side(rows: list[tuple[str, str]]) -> RenderableType:
    table = Table.grid(padding=(0, 2, 0, 0), expand=True)
    width = min(FLAGS, max(len(flags) for flags, _ in rows))
    table.add_column(width=width, overflow="fold")
    table.add_column(ratio=1, overflow="fold")
    for flags, text in rows:
        table.add_row(line(flags, "bold cyan"), line(text))
    return table


def _stacked(rows: list[tuple[str, str]]) -> RenderableType:
    return Group(
        *(
            Group(line(flags, "bold cyan"), Padding(line(text), (0, 0, 0, 4)))
            for flags, text in rows
        )
    )
