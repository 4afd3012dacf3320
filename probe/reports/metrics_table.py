"""A measurement as text: a table for people, JSON, CSV and Markdown for machines and papers."""

from collections.abc import Callable, Mapping

from probe.errors import printable
from probe.files import to_json
from probe.metrics.record import Distances, Measurement
from probe.registry import lookup
from probe.reports.text import csv_table, markdown_row, missing_rows, text_table

# The leading columns are kept on narrow terminals.
COLUMNS: tuple[tuple[str, Callable[[Distances], str]], ...] = (
    ("backbone", lambda r: r.name),
    ("Fréchet", lambda r: _number(r.frechet, ".4g")),
    ("kernel x 1000 [95 %]", lambda r: _kernel(r)),
    ("precision", lambda r: _number(r.precision, ".3f")),
    ("recall", lambda r: _number(r.recall, ".3f")),
    ("density", lambda r: _number(r.density, ".3f")),
    ("coverage", lambda r: _number(r.coverage, ".3f")),
    ("dim", lambda r: _number(r.dim, "d")),
    ("in", lambda r: r.computed_in or ""),
    ("trained against", lambda r: "yes" if r.trained_against else ""),
)
NARROW = 7


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _kernel(row: Distances) -> str:
    if row.kernel is None:
        return ""
    value = f"{1000 * row.kernel:.3f}"
    if row.kernel_low is None or row.kernel_high is None:
        return value
    return f"{value} [{1000 * row.kernel_low:.3f}, {1000 * row.kernel_high:.3f}]"


def _title(found: Measurement) -> str:
    return (
        f"{found.n_real} real and {found.n_fake} generated images at {found.resolution} px; "
        "distances: the less the better, 0 is equal"
    )


def _remarks(found: Measurement) -> list[str]:
    return [printable(text, lines=True) for text in (*found.notes, *missing_rows(found.rows))]


def as_table(found: Measurement) -> str:
    """Return an aligned table with remarks, fitted to the terminal."""
    rows = [[cell(row) for _, cell in COLUMNS] for row in found.rows if row.status == "ok"]
    table = text_table([heading for heading, _ in COLUMNS], rows, kept=NARROW)
    return "\n".join([_title(found), table + "\n".join([*_remarks(found), ""])])


def as_markdown(found: Measurement) -> str:
    """Return a Markdown table with remarks."""
    lines = [
        _title(found),
        "",
        markdown_row(heading for heading, _ in COLUMNS),
        "| --- " + "| ---: " * (len(COLUMNS) - 1) + "|",
        *(markdown_row(cell(row) for _, cell in COLUMNS) for row in found.rows),
    ]
    return "\n".join([*lines, "", *(f"- {line}" for line in _remarks(found))]) + "\n"


def as_csv(found: Measurement) -> str:
    """Return every field of every row as CSV."""
    return csv_table(found.to_frame())


def as_json(found: Measurement) -> str:
    """Return the whole record as JSON."""
    return to_json(found.to_dict()) + "\n"


VIEWS: Mapping[str, Callable[[Measurement], str]] = {
    "table": as_table,
    "markdown": as_markdown,
    "csv": as_csv,
    "json": as_json,
}


def render(found: Measurement, view: str) -> str:
    """Return a measurement as text, ready to be printed.

    Raises:
        UsageError: unknown view.
    """
    return lookup(VIEWS, view, "format")(found)
