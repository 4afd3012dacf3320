"""Leaderboards as text: a table for people, JSON, CSV and Markdown for machines and papers."""

import io
from collections.abc import Callable, Mapping, Sequence

from rich.console import Console, JustifyMethod

from probe.errors import printable
from probe.files import to_json
from probe.probing.leaderboard import Leaderboard, Row
from probe.registry import lookup
from probe.reports.text import (
    cell,
    csv_table,
    line,
    markdown_row,
    missing_rows,
    output_width,
    plain_table,
)

# (heading, cell, justify), most important first: narrow terminals drop columns from the right.
COLUMNS: tuple[tuple[str, Callable[[Row], str], JustifyMethod], ...] = (
    ("rank", lambda r: _rank(r), "right"),
    ("backbone", lambda r: f"{r.name} *" if r.picked else r.name, "left"),
    ("score [95 %]", lambda r: _interval(r.score, r.score_low, r.score_high), "right"),
    ("gap to first", lambda r: _interval(r.gap, r.gap_low, r.gap_high), "right"),
    ("acc", lambda r: _number(r.accuracy, ".3f"), "right"),
    ("AUROC", lambda r: _number(r.auroc, ".3f"), "right"),
    ("images/s", lambda r: _number(r.images_per_second, ".0f"), "right"),
    ("task", lambda r: r.task or "", "left"),
    ("dim", lambda r: _number(r.dim, "d"), "right"),
    ("params", lambda r: "" if r.params is None else f"{r.params / 1e6:.1f} M", "right"),
    ("weights licence", lambda r: r.license or "", "left"),
    ("status", lambda r: _status(r), "left"),
)
NARROW, MEDIUM = 6, 8  # columns shown below 110 and below 150 characters


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _interval(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.3f} [{low:.3f}, {high:.3f}]" if low is not None else f"{value:.3f}"


def _rank(row: Row) -> str:
    if row.rank is None:
        return "·"
    return f"{row.rank}=" if row.tied else str(row.rank)


def _status(row: Row) -> str:
    return row.role if row.status == "ok" and row.role != "candidate" else row.status


def _title(board: Leaderboard) -> str:
    by = "; order, ranks and gaps are by accuracy" if board.criterion == "accuracy" else ""
    size = "" if board.resolution is None else f" at {board.resolution} px"
    return (
        f"{board.protocol} protocol: {board.n_real} real and {board.n_fake} generated images"
        f"{size}; score = held-out negative BCE in nats (chance -0.693, 0 = told "
        f"apart without error){by}"
    )


def _remarks(board: Leaderboard) -> list[str]:
    """Return the lines below the table: picks, warnings, verdicts, notes, missing backbones."""
    remarks = []
    picked = [row.name for row in board.rows if row.picked]
    if picked:
        remarks.append(f"* K-fixed, K = {len(picked)}: {', '.join(picked)}")
    remarks += [f"Warning: {finding['message']}" for finding in board.audit]
    remarks += [verdict.sentence for verdict in board.verdicts]
    remarks += board.notes
    remarks += missing_rows(board.rows)
    return remarks


def as_table(board: Leaderboard) -> str:
    """Return the leaderboard as an aligned table with remarks, fitted to the terminal."""
    terminal, width = output_width()
    columns = COLUMNS[: NARROW if width < 110 else MEDIUM if width < 150 else len(COLUMNS)]
    table = plain_table()
    for heading, _, justify in columns:
        table.add_column(heading, justify=justify, no_wrap=heading != "weights licence")
    for row in board.rows:
        if row.status == "ok":
            style = "dim" if row.role in ("control", "null") else None
            table.add_row(*(cell(value(row)) for _, value, _ in columns), style=style)
    buffer = io.StringIO()
    console = Console(file=buffer, width=width, force_terminal=terminal, highlight=False)
    console.print(line(_title(board)), soft_wrap=not terminal)
    console.print(table)
    for remark in _remarks(board):
        console.print(line(remark), soft_wrap=not terminal)
    return buffer.getvalue()


def as_markdown(board: Leaderboard) -> str:
    """Return the leaderboard as a Markdown table with remarks."""
    lines = [
        _title(board),
        "",
        markdown_row(heading for heading, _, _ in COLUMNS),
        "| " + " | ".join("---:" if j == "right" else "---" for _, _, j in COLUMNS) + " |",
    ]
    lines += [markdown_row(value(row) for _, value, _ in COLUMNS) for row in board.rows]
    lines += ["", *(f"- {printable(remark, lines=True)}" for remark in _remarks(board))]
    return "\n".join(lines) + "\n"


def as_csv(board: Leaderboard) -> str:
    """Return every field of every row as CSV, in leaderboard order."""
    return csv_table(board.to_frame())


def as_json(board: Leaderboard) -> str:
    """Return the whole record as JSON; `Leaderboard.from_dict` reads it back."""
    return to_json(board.to_dict()) + "\n"


VIEWS: Mapping[str, Callable[[Leaderboard], str]] = {
    "table": as_table,
    "markdown": as_markdown,
    "csv": as_csv,
    "json": as_json,
}


def render(boards: Sequence[Leaderboard], view: str) -> str:
    """Return one or more leaderboards as text, ready to print.

    Several become one JSON list, one CSV with a protocol column, or consecutive tables.

    Raises:
        UsageError: unknown view.
    """
    show = lookup(VIEWS, view, "format")
    if len(boards) == 1:
        return show(boards[0])
    if view == "json":
        return to_json([b.to_dict() for b in boards]) + "\n"
    if view == "csv":
        import pandas as pd

        frames = [b.to_frame().assign(protocol=b.protocol) for b in boards]
        return csv_table(pd.concat(frames))
    return "\n".join(show(b) for b in boards)
