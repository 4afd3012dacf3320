"""Aligned text for a terminal, a pipe or a file. Imports no torch.

All text in tables, lists and CSV goes through `cell`, `line` or `csv_cell`, which make external
text harmless.
"""

import io
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from probe.errors import printable

if TYPE_CHECKING:
    import pandas as pd

PIPED_WIDTH = 220
GAP = 2  # spaces between columns
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


@dataclass(frozen=True)
class Column:
    """A column of a text table.

    Attributes:
        heading: may be empty.
        cells: one per row.
        justify: of heading and cells.
        importance: 0 is always shown; of the others, higher values give way first.
    """

    heading: str
    cells: Sequence[str]
    justify: JustifyMethod = "left"
    importance: int = 0

    @property
    def width(self) -> int:
        """The width in characters at which nothing is cut."""
        return max(cell_len(printable(text)) for text in (self.heading, *self.cells))


def columns_of(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[Column]:
    """Return columns of which the first is always shown and the last gives way first."""
    return [
        Column(heading, [row[i] for row in rows], importance=i)
        for i, heading in enumerate(headings)
    ]


def text_table(columns: Sequence[Column], styles: Sequence[str | None] = ()) -> str:
    """Return an aligned table that fits the terminal; nothing in it is cut.

    Columns without room are left out. If not even the necessary ones fit, each row becomes a few
    lines, one per column. Output that is not a terminal has all columns.

    Args:
        columns: in the order shown.
        styles: one per row.
    """
    terminal, width = output_width()
    shown = _fitting(columns, width) if terminal else list(columns)
    buffer = io.StringIO()
    console = Console(
        file=buffer,
        width=width if terminal else sum(c.width + GAP for c in columns),
        force_terminal=terminal,
        highlight=False,
    )
    if not shown:
        for i in range(len(columns[0].cells)):
            console.print(_card(columns, i), style=styles[i] if styles else None, no_wrap=False)
        return buffer.getvalue()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in shown:
        table.add_column(column.heading, justify=column.justify, no_wrap=True)
    for i, row in enumerate(zip(*(column.cells for column in shown), strict=True)):
        table.add_row(*map(cell, row), style=styles[i] if styles else None)
    console.print(table)
    return buffer.getvalue()


def html_table(columns: Sequence[Column], title: str, remarks: Iterable[str]) -> str:
    """Return a table with all columns as HTML, for a notebook.

    Args:
        columns: in the order shown.
        title: above it.
        remarks: below it, a line each.
    """

    def cells(tag: str, texts: Iterable[str]) -> str:
        return "".join(
            f"<{tag} style='text-align:{column.justify}'>{escape(printable(text))}</{tag}>"
            for column, text in zip(columns, texts, strict=True)
        )

    rows = zip(*(column.cells for column in columns), strict=True)
    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    below = "".join(f"<br>{escape(printable(remark))}" for remark in remarks)
    return (
        f"<p>{escape(printable(title))}</p><table><thead><tr>"
        f"{cells('th', (column.heading for column in columns))}</tr></thead>"
        f"<tbody>{body}</tbody></table><p>{below.removeprefix('<br>')}</p>"
    )


def _fitting(columns: Sequence[Column], width: int) -> list[Column]:
    """Return the columns that fit, by importance; none if a necessary one does not."""
    chosen: list[Column] = []
    for column in sorted(columns, key=lambda c: c.importance):
        if sum(c.width + GAP for c in (*chosen, column)) - GAP <= width:
            chosen.append(column)
        elif column.importance == 0:
            return []
    return [column for column in columns if column in chosen]


def _card(columns: Sequence[Column], row: int) -> Text:
    """Return one row as lines: the necessary columns first, the others by their headings."""
    first = [c.cells[row] for c in columns if c.importance == 0]
    rest = [(c.heading, c.cells[row]) for c in columns if c.importance and c.heading]
    return Text("\n").join(
        [
            Text(" ").join(map(cell, first)),
            *(cell(f"  {heading}: {value}") for heading, value in rest if value),
        ]
    )
