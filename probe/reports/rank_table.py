"""Leaderboards as text: a table for people, JSON, CSV and Markdown for machines and papers."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from rich.console import Console, JustifyMethod

from probe.errors import printable
from probe.figures import rate
from probe.files import to_json
from probe.missing import missing_rows
from probe.probing.leaderboard import Leaderboard, Row
from probe.registry import lookup
from probe.reports.text import (
    Column,
    csv_table,
    html_table,
    line,
    markdown_row,
    output_width,
    text_table,
)

# (heading, cell, justify, importance in a narrow terminal), in the order shown.
COLUMNS: tuple[tuple[str, Callable[[Row], str], JustifyMethod, int], ...] = (
    ("rank", lambda r: _rank(r), "right", 0),
    ("backbone", lambda r: f"{r.name} *" if r.picked else r.name, "left", 0),
    ("score [95 %]", lambda r: _interval(r.score, r.score_low, r.score_high), "right", 0),
    ("gap to first", lambda r: _interval(r.gap, r.gap_low, r.gap_high), "right", 2),
    ("acc", lambda r: _number(r.accuracy, ".3f"), "right", 1),
    ("AUROC", lambda r: _number(r.auroc, ".3f"), "right", 1),
    ("images/s", lambda r: _speed(r.images_per_second), "right", 3),
    ("task", lambda r: r.task or "", "left", 4),
    ("dim", lambda r: _number(r.dim, "d"), "right", 5),
    ("params", lambda r: "" if r.params is None else f"{r.params / 1e6:.1f} M", "right", 5),
    ("weights licence", lambda r: r.license or "", "left", 6),
    ("status", lambda r: _status(r), "left", 4),
)
WHISKER = 24  # characters


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _speed(value: float | None) -> str:
    return "" if value is None else rate(value)


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
    """Return the lines below the table: picks, verdicts, notes, missing backbones."""
    remarks = []
    picked = [row.name for row in board.rows if row.picked]
    if picked:
        remarks.append(f"* K-fixed, K = {len(picked)}: {', '.join(picked)}")
    remarks += [verdict.sentence for verdict in board.verdicts]
    remarks += board.notes
    remarks += missing_rows({row.name: row for row in board.rows}, board.asked)
    return remarks


def as_table(board: Leaderboard) -> str:
    """Return the leaderboard as an aligned table with remarks, fitted to the terminal."""
    terminal, width = output_width()
    rows = [row for row in board.rows if row.status == "ok"]
    columns = _columns(rows)
    styles = ["dim" if row.role in ("control", "null") else None for row in rows]
    buffer = io.StringIO()
    console = Console(file=buffer, width=width, force_terminal=terminal, highlight=False)
    console.print(line(_title(board)), soft_wrap=not terminal)
    if terminal:
        columns.insert(3, Column("", _whiskers(rows), importance=3))
    buffer.write(text_table(columns, styles))
    for remark in _below(board):
        console.print(line(remark), soft_wrap=not terminal)
    return buffer.getvalue()


def as_html(board: Leaderboard) -> str:
    """Return the leaderboard as an HTML table with remarks."""
    rows = [row for row in board.rows if row.status == "ok"]
    return html_table(_columns(rows), _title(board), _below(board))


def _columns(rows: Sequence[Row]) -> list[Column]:
    return [
        Column(heading, [value(_short(row)) for row in rows], justify, importance)
        for heading, value, justify, importance in COLUMNS
    ]


def _below(board: Leaderboard) -> list[str]:
    """Return the lines below a table, the first one about its null row."""
    return [*(row.name for row in board.rows if row.role == "null"), *_remarks(board)]


def _short(row: Row) -> Row:
    """Return a row with a name for the table; the remarks say what "null" is."""
    return replace(row, name="null") if row.role == "null" else row


def _whiskers(rows: Sequence[Row]) -> list[str]:
    """Return each score's interval as a line with a dot at the score, all on one scale."""
    ends = [
        (row.score, row.score, row.score)
        if row.score_low is None or row.score_high is None
        else (row.score_low, row.score, row.score_high)
        for row in rows
    ]
    known = [value for end in ends for value in end if value is not None]
    low, span = min(known, default=0), max(known, default=0) - min(known, default=0) or 1
    lines = []
    for end in ends:
        at = [round((value - low) / span * (WHISKER - 1)) for value in end if value is not None]
        first, dot, last = at or (0, 0, 0)
        lines.append(" " * first + "─" * (dot - first) + "●" + "─" * (last - dot) if at else "")
    return lines


def as_markdown(board: Leaderboard) -> str:
    """Return the leaderboard as a Markdown table with remarks."""
    lines = [
        _title(board),
        "",
        markdown_row(heading for heading, *_ in COLUMNS),
        "| " + " | ".join("---:" if j == "right" else "---" for _, _, j, _ in COLUMNS) + " |",
    ]
    lines += [markdown_row(value(row) for _, value, *_ in COLUMNS) for row in board.rows]
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
