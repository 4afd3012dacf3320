"""Aligned text for a terminal, a pipe or a file. Imports no torch.

All text in tables, lists and CSV goes through `cell`, `line` or `csv_cell`, which make external
text harmless.
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
# A leading one of these makes a spreadsheet read a cell as a formula; includes full-width forms.
FORMULA = "=+-@＝＋－＠"


def output_width() -> tuple[bool, int]:
    """Return whether stdout is a terminal, and the maximum line width in characters."""
    terminal = sys.stdout.isatty()
    return terminal, shutil.get_terminal_size().columns if terminal else PIPED_WIDTH


def cell(text: str) -> Text:
    """Return text for one table cell, on a single line."""
    return Text(printable(text))


def line(text: str, style: str = "") -> Text:
    """Return text of one or more lines."""
    return Text(printable(text, lines=True), style=style)


def csv_cell(value: Any) -> Any:
    """Return a value for one cell of a CSV file.

    Text that a spreadsheet would run as a formula gets a leading apostrophe, which marks it as
    text. Numbers are kept, including numbers given as text.
    """
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.startswith(tuple(FORMULA)) and not _is_number(text) else text


def from_csv_cell(text: str) -> str:
    """Return the text passed to `csv_cell`, except for unprintable characters."""
    return text[1:] if text[:1] == "'" and text[1:2] and text[1] in FORMULA else text


def csv_table(frame: "pd.DataFrame") -> str:
    """Return a frame as CSV."""
    clean = {
        str(name): column.map(csv_cell)
        for name, column in frame.items()
        if column.dtype.kind not in "biuf"  # numbers and booleans
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
    """Return the reasons why rows have no numbers, one line per distinct reason.

    Args:
        rows: objects with name, status, reason and remedy; rows with status "ok" are skipped.
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
    """Return rows as an aligned table; a narrow terminal shows only the first `kept` columns."""
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
