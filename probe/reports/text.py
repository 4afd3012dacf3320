"""Aligned text for a terminal, a pipe or a file. No torch here.

All text of a table, a list or a CSV comes through `cell`, `line` or `csv_cell`, which make text
from outside harmless.
"""

import io
import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from probe.errors import printable

if TYPE_CHECKING:
    import pandas as pd

PIPED_WIDTH = 220
NARROW = 110
# With which a spreadsheet takes a cell for a formula, wide forms included.
FORMULA = "=+-@＝＋－＠"


def output_width() -> tuple[bool, int]:
    """Return whether stdout is a terminal, and how many characters a line may have."""
    terminal = sys.stdout.isatty()
    return terminal, shutil.get_terminal_size().columns if terminal else PIPED_WIDTH


def cell(text: str) -> Text:
    """Return text for one cell of a table: one line."""
    return Text(printable(text))


def line(text: str, style: str = "") -> Text:
    """Return a sentence, or several lines."""
    return Text(printable(text, lines=True), style=style)


def csv_cell(value: Any) -> Any:
    """Return a value for one cell of a CSV file.

    Text that a spreadsheet would run as a formula gets an apostrophe in front, which shows it as
    text. Numbers stay numbers, also those that are text already.
    """
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.startswith(tuple(FORMULA)) and not _is_number(text) else text


def from_csv_cell(text: str) -> str:
    """Return the text that `csv_cell` was given, but for what is not printable."""
    return text[1:] if text[:1] == "'" and text[1:2] and text[1] in FORMULA else text


def csv_table(frame: "pd.DataFrame") -> str:
    """Return a frame as CSV."""
    clean = {
        str(name): column.map(csv_cell)
        for name, column in frame.items()
        if column.dtype.kind not in "biuf"  # numbers, and truth values
    }
    return frame.assign(**clean).to_csv(index=False)


def markdown_row(cells: Iterable[str]) -> str:
    """Return a row of a Markdown table."""
    return "| " + " | ".join(printable(text).replace("|", "\\|") for text in cells) + " |"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


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
        table.add_row(*map(cell, row[:shown]))
    buffer = io.StringIO()
    Console(file=buffer, width=width, force_terminal=terminal, highlight=False).print(table)
    return buffer.getvalue()
