"""Scores of images as text: a table for people, JSON and CSV for machines."""

from collections.abc import Callable, Mapping

from probe.errors import printable
from probe.files import to_json
from probe.missing import missing_rows
from probe.registry import lookup
from probe.reports.text import Column, columns_of, csv_table, html_table, text_table
from probe.scoring.calibration import ErrorRate
from probe.scoring.score import Scores, Verdicts


def _rate(rate: ErrorRate | None) -> str:
    assert rate is not None
    return f"{rate.value:.1%} [{rate.low:.1%}, {rate.high:.1%}] of {rate.count}"


def _promise(verdicts: Verdicts) -> str:
    return (
        f"{verdicts.name}: calls {_rate(verdicts.false_positive_rate)} held-out reals generated, "
        f"misses {_rate(verdicts.false_negative_rate)} held-out fakes"
    )


def remarks(scores: Scores) -> list[str]:
    """Return the sentences to show with the numbers."""
    found = (scores.valid_for, *scores.notes, *missing_rows({v.name: v for v in scores.backbones}))
    return [printable(text, lines=True) for text in found]


def as_table(scores: Scores) -> str:
    """Return a row per image, a column per backbone, and remarks on how reliable they are."""
    above = [_title(scores), *(f"  {promise}" for promise in _promises(scores)), ""]
    below = text_table(_columns(scores)) + "\n".join(remarks(scores))
    return "\n".join([*above, below]) + "\n"


def as_html(scores: Scores) -> str:
    """Return the same as HTML."""
    return html_table(_columns(scores), _title(scores), [*_promises(scores), *remarks(scores)])


def _title(scores: Scores) -> str:
    return (
        f"Probability of being generated; * is above the threshold {scores.threshold:g}. On the "
        "ranking's held-out images:"
    )


def _promises(scores: Scores) -> list[str]:
    return [printable(_promise(v)) for v in scores.backbones if v.probabilities is not None]


def _columns(scores: Scores) -> list[Column]:
    good = [(v, v.probabilities) for v in scores.backbones if v.probabilities is not None]
    rows = []
    for i, name in enumerate(scores.images):
        cells = [name]
        for _, probabilities in good:
            p = float(probabilities[i])
            cells.append(f"{p:.3f} *" if p > scores.threshold else f"{p:.3f}")
        rows.append([*cells, "yes" if scores.in_run[i] else ""])
    return columns_of(["image", *(v.name for v, _ in good), "in the run"], rows)


def as_csv(scores: Scores) -> str:
    """Return a line per image and backbone as CSV."""
    return csv_table(scores.to_frame())


def as_json(scores: Scores) -> str:
    """Return the whole record as JSON."""
    return to_json(scores.to_dict()) + "\n"


VIEWS: Mapping[str, Callable[[Scores], str]] = {"table": as_table, "csv": as_csv, "json": as_json}


def render(scores: Scores, view: str) -> str:
    """Return scores as text, ready to print.

    Raises:
        UsageError: unknown view.
    """
    return lookup(VIEWS, view, "format")(scores)
