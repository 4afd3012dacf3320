"""Self-contained HTML pages that open offline."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

import probe
from probe.errors import printable
from probe.figures import rate
from probe.missing import missing_summary
from probe.probing.leaderboard import Leaderboard, Row
from probe.reports.svg import fitting, whisker

COLOURS = 8  # line styles in the style sheet, c0 to c7


@dataclass(frozen=True)
class Figure:
    """A plot with its text equivalent.

    Attributes:
        title: heading above the plot.
        plot: the SVG.
        note: a sentence or two on what to look for.
        headings, rows: the same data as a table.
        key: (style, label) of each line or set of dots.
    """

    title: str
    plot: Markup
    note: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    key: Sequence[tuple[str, str]] = ()


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("probe.reports", "assets"),
        autoescape=True,
        finalize=_harmless,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    assets = resources.files("probe.reports") / "assets"
    environment.globals.update(
        version=probe.__version__,
        sheet=Markup((assets / "page.css").read_text("utf-8")),
        script=Markup((assets / "page.js").read_text("utf-8")),
        rank_label=rank_label,
    )
    environment.filters["rate"] = rate
    environment.filters["reasons"] = lambda rows: missing_summary({row.name: row for row in rows})
    environment.filters["signed"] = lambda value: f"{value:+.3f}"
    return environment


def _harmless(value: Any) -> Any:
    """Return a template value without characters that hide or reorder text."""
    if not isinstance(value, str):
        return value
    clean = printable(value, lines=True)
    return Markup(clean) if isinstance(value, Markup) else clean


def render_page(template: str, **context: Any) -> str:
    """Render a template from `assets/` to a page; all text is escaped."""
    return _environment().get_template(template).render(**context)


def rank_label(row: Row) -> str:
    """Return "1", or "1=" if the rank is shared."""
    if row.rank is None:
        return "–"
    return f"{row.rank}=" if row.tied else str(row.rank)


def whiskers(board: Leaderboard) -> dict[str, Markup]:
    """Return each scored row's interval on a common scale, keyed by the row's name."""
    scored = [row for row in board.rows if row.score is not None]
    if not scored:
        return {}

    def ends(row: Row) -> tuple[float, float, float]:
        value = row.score if row.score is not None else 0.0
        low = value if row.score_low is None else row.score_low
        return value, low, value if row.score_high is None else row.score_high

    intervals = {row.name: ends(row) for row in scored}
    span = fitting([low for _, low, _ in intervals.values()], [h for _, _, h in intervals.values()])
    first = board.ranked[0] if board.ranked else scored[0]
    band = intervals[first.name][1:]
    return {name: whisker(*ends_, span=span, band=band) for name, ends_ in intervals.items()}
