"""The figure of what each backbone sees against what it costs."""

from collections.abc import Sequence

import numpy as np

from probe.figures import rate
from probe.probing.leaderboard import Leaderboard, Row
from probe.reports.page import Figure
from probe.reports.svg import Dots, Line, PointLabels, fitting, plot


def cost_figure(board: Leaderboard) -> Figure | None:
    """Return scores against images per second, None if fewer than two backbones have a speed."""
    rows = [row for row in board.rows if row.role != "null" and row.score is not None
            and row.images_per_second]  # fmt: skip
    if len(rows) < 2:
        return None
    points = np.array([(row.images_per_second, row.score) for row in rows], dtype=float)
    low, high = fitting(points[:, 1].tolist(), points[:, 1].tolist())
    room = 0.08 * (high - low) or 0.05
    ranked = np.array([row.rank is not None for row in rows])
    best = frontier([row for row in rows if row.rank is not None])
    front = np.array([(row.images_per_second, row.score) for row in best]).reshape(-1, 2)
    note = (
        "Higher sees more, further right costs less; crosses are controls. The line joins the "
        "backbones that no other beats in both."
    )
    speeds = points[:, 0]
    return Figure(
        "Score against cost",
        plot(
            [
                Line(front, "chance"),
                Dots(points[ranked], "c0"),
                Dots(points[~ranked], "c6", cross=True),
                PointLabels(front, [row.name for row in best]),
            ],
            x=(float(speeds.min()) / 1.2, float(speeds.max()) * 1.2),
            y=(low - room, high + room),
            xlabel="images per second, on this machine",
            ylabel="score, nats",
            label=f"Score against speed of {len(rows)} backbones. {note}",
            log_x=True,
        ),
        note,
        ("backbone", "images/s", "score"),
        [(row.name, rate(row.images_per_second or 0.0), f"{row.score:.3f}") for row in rows],
    )


def frontier(rows: Sequence[Row]) -> list[Row]:
    """Return the rows that no other beats in both score and speed, the best score first."""
    found: list[Row] = []
    for row in sorted(rows, key=lambda r: (-(r.score or 0.0), -(r.images_per_second or 0.0))):
        if not found or (row.images_per_second or 0.0) > (found[-1].images_per_second or 0.0):
            found.append(row)
    return found
