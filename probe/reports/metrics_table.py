"""A measurement as text: a table for people, JSON, CSV and Markdown for machines and papers."""

from collections.abc import Callable, Mapping

from probe.errors import printable
from probe.files import to_json
from probe.metrics import Values, all_metrics, number
from probe.metrics.record import Distances, Measurement
from probe.missing import missing_rows
from probe.registry import lookup
from probe.reports.text import columns_of, csv_table, html_table, markdown_row, text_table

Column = tuple[str, Callable[[Distances], str]]


def _columns() -> list[Column]:
    """Return the heading and cell function of each column."""

    def of_metric(cell: Callable[[Values], str]) -> Callable[[Distances], str]:
        return lambda row: cell(row.values)

    return [
        ("backbone", lambda row: row.name),
        *((name, of_metric(cell)) for m in all_metrics() for name, cell in m.columns.items()),
        ("dim", lambda row: number(row.dim, "d")),
        ("in", lambda row: row.computed_in or ""),
        ("trained against", lambda row: "yes" if row.trained_against else ""),
    ]


def _title(found: Measurement) -> str:
    return (
        f"{found.n_real} real and {found.n_fake} generated images at {found.resolution} px; "
        "distances: lower is better, 0 means equal"
    )


def _remarks(found: Measurement) -> list[str]:
    return [
        printable(text, lines=True)
        for text in (*found.notes, *missing_rows({row.name: row for row in found.rows}))
    ]


def as_table(found: Measurement) -> str:
    """Return an aligned table with remarks, fitted to the terminal."""
    columns = _columns()
    rows = [[cell(row) for _, cell in columns] for row in found.rows if row.status == "ok"]
    table = text_table(columns_of([heading for heading, _ in columns], rows))
    return "\n".join([_title(found), table + "\n".join([*_remarks(found), ""])])


def as_html(found: Measurement) -> str:
    """Return an HTML table with remarks."""
    columns = _columns()
    rows = [[cell(row) for _, cell in columns] for row in found.rows if row.status == "ok"]
    table = columns_of([heading for heading, _ in columns], rows)
    return html_table(table, _title(found), _remarks(found))


def as_markdown(found: Measurement) -> str:
    """Return a Markdown table with remarks."""
    columns = _columns()
    lines = [
        _title(found),
        "",
        markdown_row(heading for heading, _ in columns),
        "| --- " + "| ---: " * (len(columns) - 1) + "|",
        *(markdown_row(cell(row) for _, cell in columns) for row in found.rows),
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
    """Return a measurement as text, ready to print.

    Raises:
        UsageError: unknown view.
    """
    return lookup(VIEWS, view, "format")(found)
