"""Small plots as inline SVG, coloured by the page's style sheet.

Inline SVG follows dark mode, prints sharply and takes only a few kilobytes. A plot is a list of
layers; anything in data coordinates is clipped to the frame.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

LEFT, RIGHT, TOP, BOTTOM = 56, 10, 10, 36
WIDTH, HEIGHT = 340, 230
TICKS = 5
LETTER, LINE = 5.6, 11  # pixels: width of a letter, height of a line of a name


@dataclass(frozen=True)
class Line:
    """A polyline through points (n, 2) in data coordinates; `style` is a CSS class."""

    points: np.ndarray
    style: str


@dataclass(frozen=True)
class Area:
    """Filled bars or a band between two curves: x (n,), low (n,) and high (n,)."""

    x: np.ndarray
    low: np.ndarray
    high: np.ndarray
    style: str


@dataclass(frozen=True)
class Dots:
    """Points (n, 2) as small discs, or as crosses if `cross`; arrows at the edge if below it."""

    points: np.ndarray
    style: str
    cross: bool = False


@dataclass(frozen=True)
class Mark:
    """A labelled vertical line at x."""

    x: float
    text: str = ""


@dataclass(frozen=True)
class PointLabels:
    """Names of points (n, 2), the most important first; those without room are left out."""

    points: np.ndarray
    texts: Sequence[str]


Layer = Line | Area | Dots | Mark | PointLabels


def fitting(lows: Sequence[float], highs: Sequence[float]) -> tuple[float, float]:
    """Return the range of an axis for intervals, without outliers that would squash the rest.

    Of three or more, up to a quarter may be left out, the lowest, if the others then have three
    times the room.

    Args:
        lows: lower end of each interval.
        highs: upper end of each.
    """
    order = sorted(range(len(lows)), key=lambda i: lows[i])
    top, whole = max(highs), max(highs) - min(lows)
    most = max(1, len(order) // 4) if len(order) > 2 else 0
    for count in range(1, most + 1):
        low = lows[order[count]]
        if top - low < whole / 3:
            return low - 0.06 * (top - low), top
    return min(lows), top


def log_ticks(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 times powers of ten in a range, or only powers if it is wide."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if math.log10(high / low) < 2.5 else (1,)
    return [f * 10.0**p for p in powers for f in steps if low <= f * 10.0**p <= high]


def ticks(low: float, high: float, count: int = TICKS) -> list[float]:
    """Return round numbers that cover the range, roughly `count` of them."""
    span = high - low
    if not math.isfinite(span) or span <= 0:
        return [low]
    raw = span / count
    power = 10 ** math.floor(math.log10(raw))
    step = next(f * power for f in (1, 2, 2.5, 5, 10) if f * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def histogram(values: np.ndarray, edges: np.ndarray, style: str) -> Area:
    """Return the share of values in each bin as steps; outliers count in the end bins."""
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    shares = counts / max(1, len(values))
    return Area(np.repeat(edges, 2)[1:-1], np.zeros(2 * len(shares)), np.repeat(shares, 2), style)


def plot(
    layers: Sequence[Layer],
    *,
    x: tuple[float, float],
    y: tuple[float, float],
    xlabel: str,
    ylabel: str,
    label: str,
    log_x: bool = False,
) -> Markup:
    """Return a plot of `WIDTH` by `HEIGHT` CSS pixels; the page may shrink it.

    Args:
        layers: drawn in order.
        x: the visible range, low and high; points outside are drawn at the edge.
        y: likewise.
        xlabel: axis label with the unit.
        ylabel: likewise.
        label: text for screen readers.
        log_x: whether the horizontal axis is logarithmic; `x` must be positive.
    """
    frame = _Frame(x, y, log_x=log_x)
    parts = [frame.axes(xlabel, ylabel), *(frame.draw(layer) for layer in layers)]
    return Markup(
        '<svg class="plot" viewBox="0 0 {w} {h}" width="{w}" height="{h}" role="img" '
        'aria-label="{label}">{body}</svg>'
    ).format(w=WIDTH, h=HEIGHT, label=label, body=Markup("").join(parts))


def whisker(
    value: float, low: float, high: float, *, span: tuple[float, float], band: tuple[float, float]
) -> Markup:
    """Return a value with its interval on a common scale, as wide as a table cell.

    Args:
        value: of this row.
        low: lower end of its interval.
        high: upper end of its interval.
        span: ends of the scale, common to all rows; what is below it becomes an arrow.
        band: the first row's interval, shaded in every row for comparison.
    """
    width, height = 150, 18

    def at(v: float) -> float:
        return 4 + max(0.0, (v - span[0]) / ((span[1] - span[0]) or 1)) * (width - 8)

    left, right, dot = at(low), at(high), at(value)
    path = f"M{left:.1f} 9H{right:.1f}"
    path += "M10 4l-8 5l8 5" if low < span[0] else f"M{left:.1f} 5v8"
    path += f"M{right:.1f} 5v8" if high >= span[0] else ""
    disc = f'<circle cx="{dot:.1f}" cy="9" r="3.5"/>' if value >= span[0] else ""
    return Markup(
        f'<svg class="whisker" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'aria-hidden="true"><rect class="band" x="{at(band[0]):.1f}" y="0" '
        f'width="{max(1.0, at(band[1]) - at(band[0])):.1f}" height="{height}"/>'
        f'<path d="{path}"/>{disc}</svg>'
    )


class _Frame:
    """Maps data coordinates to pixels."""

    def __init__(
        self, x: tuple[float, float], y: tuple[float, float], *, log_x: bool = False
    ) -> None:
        self.x, self.y, self.log_x = x, y, log_x
        self.right, self.bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def px(self, points: np.ndarray) -> np.ndarray:
        """Return points (n, 2) in pixels."""
        points = np.asarray(points, dtype=float).reshape(-1, 2)
        (x0, x1), (y0, y1) = self.x, self.y
        across = points[:, 0]
        if self.log_x:
            x0, x1, across = math.log10(x0), math.log10(x1), np.log10(across)
        u = np.clip((across - x0) / ((x1 - x0) or 1), 0, 1)
        v = np.clip((points[:, 1] - y0) / ((y1 - y0) or 1), 0, 1)
        return np.stack(
            [LEFT + u * (self.right - LEFT), self.bottom - v * (self.bottom - TOP)], axis=1
        )

    def axes(self, xlabel: str, ylabel: str) -> Markup:
        parts = [
            f'<path class="axis" d="M{LEFT} {TOP}V{self.bottom}H{self.right}"/>',
        ]
        for tick in log_ticks(*self.x) if self.log_x else ticks(*self.x):
            u = self.px(np.array([[tick, self.y[0]]]))[0, 0]
            parts.append(
                f'<text class="tick" text-anchor="middle" x="{u:.1f}" y="{self.bottom + 13}">'
                f"{_number(tick)}</text>"
            )
        for tick in ticks(*self.y, 4):
            v = self.px(np.array([[self.x[0], tick]]))[0, 1]
            parts.append(f'<path class="grid" d="M{LEFT} {v:.1f}H{self.right}"/>')
            parts.append(
                f'<text class="tick" text-anchor="end" x="{LEFT - 5}" y="{v + 3.5:.1f}">'
                f"{_number(tick)}</text>"
            )
        middle = (TOP + self.bottom) / 2
        parts.append(
            f'<text class="name" text-anchor="middle" x="{(LEFT + self.right) / 2:.0f}" '
            f'y="{self.bottom + 30}">{escape(xlabel)}</text>'
            f'<text class="name" text-anchor="middle" transform="translate(11 {middle:.0f}) '
            f'rotate(-90)">{escape(ylabel)}</text>'
        )
        return Markup("".join(parts))

    def draw(self, layer: Layer) -> Markup:
        if isinstance(layer, Line):
            path = "L".join(f"{u:.1f} {v:.1f}" for u, v in self.px(layer.points))
            return Markup(f'<path class="line {layer.style}" d="M{path}"/>') if path else Markup("")
        if isinstance(layer, Area):
            upper = self.px(np.stack([layer.x, layer.high], axis=1))
            lower = self.px(np.stack([layer.x, layer.low], axis=1))[::-1]
            path = "L".join(f"{u:.1f} {v:.1f}" for u, v in [*upper, *lower])
            return Markup(f'<path class="area {layer.style}" d="M{path}Z"/>')
        if isinstance(layer, Dots):
            return self._dots(layer)
        if isinstance(layer, PointLabels):
            return self._labels(layer)
        u = self.px(np.array([[layer.x, self.y[0]]]))[0, 0]
        anchor, shift = ("end", -4) if u > (LEFT + self.right) / 2 else ("start", 4)
        return Markup(
            f'<path class="mark" d="M{u:.1f} {TOP}V{self.bottom}"/>'
            f'<text class="tick" text-anchor="{anchor}" x="{u + shift:.1f}" y="{TOP + 9}">'
            f"{escape(layer.text)}</text>"
        )

    def _dots(self, layer: Dots) -> Markup:
        # One path for all points: a dot is a zero-length line with round caps.
        dot = "m-2-2l4 4m0-4l-4 4" if layer.cross else "h0"
        below = layer.points[:, 1] < self.y[0]
        path = "".join(f"M{u:.0f} {v:.0f}{dot}" for u, v in self.px(layer.points[~below]))
        kind = "crosses" if layer.cross else "dots"
        drawn = f'<path class="{kind} {layer.style}" d="{path}"/>'
        if below.any():
            arrows = "".join(
                f"M{u:.0f} {v:.0f}m-3-5l3 5l3-5" for u, v in self.px(layer.points[below])
            )
            drawn += f'<path class="crosses {layer.style}" d="{arrows}"/>'
        return Markup(drawn)

    def _labels(self, layer: PointLabels) -> Markup:
        """Write each name beside its point, unless it would cover another name."""
        parts: list[str] = []
        taken: list[tuple[float, float, float]] = []  # left, right, height
        for (u, v), text in zip(self.px(layer.points), layer.texts, strict=True):
            wide = LETTER * len(text)
            toright = u + 6 + wide <= self.right
            left = u + 6 if toright else u - 6 - wide
            height = v - 4 if v > TOP + LINE else v + LINE
            if left < LEFT or any(
                left < end and start < left + wide and abs(height - at) < LINE
                for start, end, at in taken
            ):
                continue
            taken.append((left, left + wide, height))
            parts.append(
                f'<text class="tick" text-anchor="{"start" if toright else "end"}" '
                f'x="{u + 6 if toright else u - 6:.1f}" y="{height:.1f}">{escape(text)}</text>'
            )
        return Markup("".join(parts))


def _number(value: float) -> str:
    return f"{value:.3g}" if value else "0"
