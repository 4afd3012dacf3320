"""Curves over a training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from probe.reports.page import COLOURS, Figure
from probe.reports.svg import Area, Dots, Layer, Line, Mark, plot

TABLED = 12  # rows in a curve's table, evenly spaced

Series = Mapping[str, np.ndarray]  # label → points (n, 2): kimg, value


@dataclass(frozen=True)
class Axis:
    """The vertical axis of a plot; a limit of None follows the values."""

    label: str
    low: float | None = None
    high: float | None = None


def curves(
    title: str,
    series: Series,
    marks: Sequence[Mark],
    y: Axis,
    *,
    note: str,
    bands: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None,
    known: Mapping[str, str] | None = None,
) -> list[Figure]:
    """Return a figure of curves over kimg, or [] if nothing was recorded.

    Args:
        title: of the figure.
        series: label → points (n, 2): kimg, value.
        marks: vertical lines.
        y: the vertical axis.
        note: what to look for.
        bands: label → ends of intervals at the finite points, each (n,).
        known: label → style; others get new ones.
    """
    finite = {name: p[np.isfinite(p[:, 1])] for name, p in series.items()}
    finite = {name: points for name, points in finite.items() if len(points)}
    if not finite:
        return []
    ends = [end for band in (bands or {}).values() for end in band]
    values = np.concatenate([*(points[:, 1] for points in finite.values()), *ends])
    low = float(values.min()) if y.low is None else y.low
    high = float(values.max()) if y.high is None else y.high
    room = 0.06 * (high - low) or 0.5 * (abs(high) or 1)
    low, high = low - room * (y.low is None), high + room * (y.high is None)
    last = max(float(points[-1, 0]) for points in finite.values())
    styles = dict(known or {})
    for name in finite:
        styles.setdefault(name, f"c{len(styles) % COLOURS}")
    layers: list[Layer] = list(marks)
    for name, (lower, upper) in (bands or {}).items():
        layers.append(Area(finite[name][:, 0], lower, upper, styles[name]))
    layers += [Line(points, styles[name]) for name, points in finite.items()]
    layers += [
        Dots(points, styles[name]) for name, points in finite.items() if len(points) <= TABLED
    ]
    values_at = {name: {f"{k:g}": f"{v:.4g}" for k, v in p} for name, p in finite.items()}
    times = sorted({k for at in values_at.values() for k in at}, key=float)
    rows = [
        (times[i], *(at.get(times[i], "") for at in values_at.values()))
        for i in evenly_spaced(len(times), TABLED)
    ]
    summary = "; ".join(f"{n} from {p[0, 1]:.3g} to {p[-1, 1]:.3g}" for n, p in finite.items())
    figure = Figure(
        title,
        plot(layers, x=(0, last or 1), y=(low, high), xlabel="thousands of images shown",
             ylabel=y.label, label=f"{title}: {summary}. {note}"),
        note,
        ("kimg", *finite),
        rows,
        [(styles[name], name) for name in finite] if len(finite) > 1 else (),
    )  # fmt: skip
    return [figure]


def evenly_spaced(count: int, most: int) -> list[int]:
    """Return at most so many evenly spaced indices, including the first and the last."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, most))})
