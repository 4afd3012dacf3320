"""The figure of a network's layers: which depth tells best."""

from collections.abc import Sequence

import numpy as np

from probe.probing.leaderboard import Leaderboard, Row
from probe.probing.protocol import CHANCE
from probe.reports.page import Figure
from probe.reports.svg import Area, Dots, Line, plot


def depth_figures(board: Leaderboard) -> list[Figure]:
    """Return a curve of the score over depth for each network with several layers."""
    return [_figure(board, network, rows) for network, rows in board.layers.items()]


def _figure(board: Leaderboard, network: str, rows: Sequence[Row]) -> Figure:
    numbered = all(row.layer.isdigit() for row in rows)
    x = np.array([int(row.layer) if numbered else i + 1 for i, row in enumerate(rows)], float)
    score, low, high = (
        np.array([getattr(row, key) for row in rows], float)
        for key in ("score", "score_low", "score_high")
    )
    curve = np.stack([x, score], axis=1)
    bottom, top = min(float(low.min()), CHANCE), float(high.max())
    room = 0.06 * (top - bottom) or 0.05
    whole = next((row for row in board.rows if row.name == network and row.score is not None), None)
    note = "With 95 % intervals. A layer's feature is the average of its map." + (
        "" if whole is None else f" The whole backbone's own feature scores {whole.score:.3f}."
    )
    return Figure(
        f"Score against depth: {network}",
        plot(
            [Area(x, low, high, "c0"), Line(curve, "c0"), Dots(curve, "c0")],
            x=(float(x[0]) - 0.3, float(x[-1]) + 0.3), y=(bottom - room, top + room),
            xlabel="layer" if numbered else "layer, in the order of the table",
            ylabel="score, nats", label=f"Score of {len(rows)} layers of {network}. {note}",
        ),
        note,
        ("layer", "score", "95 % interval", "rank"),
        [
            (
                row.layer, f"{row.score:.3f}", f"{row.score_low:.3f} to {row.score_high:.3f}",
                "" if row.rank is None else f"{row.rank}{'=' * row.tied}",
            )
            for row in rows
        ],
    )  # fmt: skip
