"""Small plots as inline SVG, coloured by the page's style sheet.

Inline SVG follows dark mode, prints sharply and takes only a few kilobytes. A plot is a list of
layers; anything in data coordinates is clipped to the frame.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

LEFT, RIGHT, TOP, BOTTOM = 46, 10, 10, 36
WIDTH, HEIGHT = 340, 230
TICKS = 5


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
    """Points (n, 2) as small discs, or as crosses if `cross`."""

    points: np.ndarray
    style: str
    cross: bool = False


@dataclass(frozen=True)
class Mark:
    """A labelled vertical line at x."""

    x: float
    text: str = ""


Layer = Line | Area | Dots | Mark


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
) -> Markup:
    """Return a plot of `WIDTH` by `HEIGHT` CSS pixels; the page may shrink it.

    Args:
        layers: drawn in order.
        x: the visible range, low and high; points outside are drawn at the edge.
        y: likewise.
        xlabel: axis label with the unit.
        ylabel: likewise.
        label: text for screen readers.
    """
    frame = _Frame(x, y, WIDTH, HEIGHT)
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
        span: ends of the scale, common to all rows.
        band: the first row's interval, shaded in every row for comparison.
    """
    width, height = 150, 18

    def at(v: float) -> float:
        return 4 + (v - span[0]) / ((span[1] - span[0]) or 1) * (width - 8)

    return Markup(
        '<svg class="whisker" viewBox="0 0 {w} {h}" width="{w}" height="{h}" aria-hidden="true">'
        '<rect class="band" x="{b0:.1f}" y="0" width="{bw:.1f}" height="{h}"/>'
        '<path d="M{l:.1f} 9H{u:.1f}M{l:.1f} 5v8M{u:.1f} 5v8"/>'
        '<circle cx="{v:.1f}" cy="9" r="3.5"/></svg>'
    ).format(
        w=width, h=height, b0=at(band[0]), bw=max(1.0, at(band[1]) - at(band[0])),
        l=at(low), u=at(high), v=at(value),
    )  # fmt: skip


class _Frame:
    """Maps data coordinates to pixels."""

    def __init__(
        self, x: tuple[float, float], y: tuple[float, float], width: int, height: int
    ) -> None:
        self.x, self.y = x, y
        self.right, self.bottom = width - RIGHT, height - BOTTOM

    def px(self, points: np.ndarray) -> np.ndarray:
        """Return points (n, 2) in pixels."""
        points = np.asarray(points, dtype=float).reshape(-1, 2)
        (x0, x1), (y0, y1) = self.x, self.y
        u = np.clip((points[:, 0] - x0) / ((x1 - x0) or 1), 0, 1)
        v = np.clip((points[:, 1] - y0) / ((y1 - y0) or 1), 0, 1)
        return np.stack(
            [LEFT + u * (self.right - LEFT), self.bottom - v * (self.bottom - TOP)], axis=1
        )

    def axes(self, xlabel: str, ylabel: str) -> Markup:
        parts = [
            f'<path class="axis" d="M{LEFT} {TOP}V{self.bottom}H{self.right}"/>',
        ]
        for tick in ticks(*self.x):
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
            # One path for all points: a dot is a zero-length line with round caps.
            dot = "m-2-2l4 4m0-4l-4 4" if layer.cross else "h0"
            path = "".join(f"M{u:.0f} {v:.0f}{dot}" for u, v in self.px(layer.points))
            kind = "crosses" if layer.cross else "dots"
            return Markup(f'<path class="{kind} {layer.style}" d="{path}"/>')
        u = self.px(np.array([[layer.x, self.y[0]]]))[0, 0]
        anchor, shift = ("end", -4) if u > (LEFT + self.right) / 2 else ("start", 4)
        return Markup(
            f'<path class="mark" d="M{u:.1f} {TOP}V{self.bottom}"/>'
            f'<text class="tick" text-anchor="{anchor}" x="{u + shift:.1f}" y="{TOP + 9}">'
            f"{escape(layer.text)}</text>"
        )


def _number(value: float) -> str:
    return f"{value:.3g}" if value else "0"
