"""A training run as text and as HTML: what was measured of each snapshot, and who joined."""

import math

from probe.checks.watch import Run
from probe.reports.text import Column, columns_of, html_table, text_table


def as_table(run: Run) -> str:
    """Return an aligned table with remarks."""
    return "\n".join([_title(run), text_table(_columns(run)) + "\n".join(_remarks(run))]) + "\n"


def as_html(run: Run) -> str:
    """Return the same as HTML."""
    return html_table(_columns(run), _title(run), _remarks(run))


def _title(run: Run) -> str:
    if not run.total_kimg:
        return f"{run.folder}: no state was saved yet"
    state = "finished" if run.finished else f"{run.kimg / run.total_kimg:.0%}"
    return f"{run.folder}: {run.kimg:g} of {run.total_kimg:g} kimg, {state}"


def _columns(run: Run) -> list[Column]:
    names = sorted({name for values in run.metrics.values() for name in values})
    rows = [
        [f"{kimg:g} *" if kimg == run.best else f"{kimg:g}", *(_value(values, n) for n in names)]
        for kimg, values in sorted(run.metrics.items())
    ]
    return columns_of(["kimg", *names], rows)


def _value(values: dict[str, float], name: str) -> str:
    value = values.get(name, math.nan)
    return f"{value:.4g}" if math.isfinite(value) else ""


def _remarks(run: Run) -> list[str]:
    joined = [
        f"stage {stage}: {', '.join(names) or 'nothing'} joined"
        for stage, names in run.added.items()
    ]
    return [*(["* the best snapshot"] if run.best is not None else []), *joined]
