"""Aligned text for a terminal, a pipe or a file. No torch here."""

import io
import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

PIPED_WIDTH = 220
NARROW = 110


def output_width() -> tuple[bool, int]:
    """Return whether stdout is a terminal, and how many characters a line may have."""
    terminal = sys.stdout.isatty()
    return terminal, shutil.get_terminal_size().columns if terminal else PIPED_WIDTH


def plain_table() -> Table:
    """Return an empty table without lines."""
    return Table(box=None, pad_edge=False, header_style="bold")


def missing_rows(rows: Iterable[Any]) -> list[str]:
    """Return why rows have no numbers; those with the same reason share a line.

    Args:
        rows: what has name, status, reason and remedy; rows of status "ok" are passed over.
    """
    names: dict[tuple[str, str, str], list[str]] = {}
    for row in rows:
        if row.status != "ok":
            remedy = f"; {row.remedy}" if row.remedy else ""
            if remedy.endswith(f" {row.name}"):
                remedy = f"{remedy.removesuffix(row.name)}NAME"
            names.setdefault((row.status, row.reason, remedy), []).append(row.name)
    return [
        f"{status}: {', '.join(found)}: {reason}"
        + (remedy if len(found) > 1 else remedy.replace("NAME", found[0]))
        for (status, reason, remedy), found in names.items()
    ]


def text_table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, kept: int) -> str:
    """Return rows of text as an aligned table; a narrow terminal shows the first `kept` columns."""
    terminal, width = output_width()
    shown = kept if width < NARROW else len(headings)
    table = plain_table()
    for heading in headings[:shown]:
        table.add_column(heading)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row[:shown]))
    buffer = io.StringIO()
    Console(file=buffer, width=width, force_terminal=terminal, highlight=False).print(table)
    return buffer.getvalue()
