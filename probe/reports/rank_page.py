"""The HTML page of a ranking, built from the files that `probe rank --out` wrote."""

import csv
import itertools
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from scipy.special import expit

from probe.errors import ProbeError, printable
from probe.files import to_json
from probe.probing.agreement import agreement, greedy_picks
from probe.probing.leaderboard import Leaderboard, Learned, Row, read_leaderboards
from probe.probing.protocol import ProbeResult
from probe.reports.cost import cost_figure
from probe.reports.depth import depth_figures
from probe.reports.evidence import Evidence, load_evidence, telling
from probe.reports.glance import Gallery, agreed, first_sight, pictured
from probe.reports.page import COLOURS, Figure, render_page, whiskers
from probe.reports.svg import Dots, Layer, Line, Mark, histogram, plot
from probe.reports.text import from_csv_cell
from probe.run_files import SCORES_FILE

BINS = 24  # in a histogram
LEVELS = 10  # bins of the reliability curve
LEAST_IN_LEVEL = 5
NAMED = 4  # backbones in the first sentence
FLAGS = {"class_index": "--class"}  # flags that differ from their option's name
DIAGONAL = Line(np.array([[0, 0], [1, 1]]), "chance")
SORTS = {
    "caught": "Generated, and looks it most",
    "passed": "Generated, and looks most real",
    "accused": "Real, and most taken for generated",
}


@dataclass(frozen=True)
class Scored:
    """Held-out log-odds of one backbone.

    Attributes:
        image_logits: float64 (n,), reals first, positive for "generated"; NaN if never held out.
        groups: int64 (n,): the same number for copies of one image.
        n_real: number of reals among them.
    """

    image_logits: np.ndarray
    groups: np.ndarray
    n_real: int


def rank_page(folder: Path) -> str:
    """Return the page of a ranking.

    Args:
        folder: the output folder of `probe rank --out`.

    Raises:
        ProbeError: the folder's files are damaged or from another version.
    """
    boards, captions, scored = _read(folder)
    evidence = load_evidence(folder)
    board = boards[0]
    results: Any = scored[board.protocol]
    picks = [row.name for row in board.rows if row.picked]
    able = [row.name for row in board.ranked if row.role == "candidate"]
    order = [row.name for row in board.rows if row.name in results]
    alike = agreement({name: results[name] for name in order}) if len(order) > 1 else None
    ranked = [row.name for row in board.ranked if row.name in results]
    glance, shared = _galleries(ranked, results, captions, evidence)
    return render_page(
        "rank.html",
        title=f"{_name(board, 'real')} against {_name(board, 'fake')}",
        answer=_answer(board),
        boards=[(b, whiskers(b)) for b in boards],
        glance=glance,
        shared=shared,
        curves=[
            figure
            for figure in (cost_figure(board), _curve_figure(board), *depth_figures(board))
            if figure is not None
        ],
        picks=picks,
        greedy=greedy_picks(results, able, len(picks)) if picks else [],
        names=order,
        agreement=alike,
        extremes=None if alike is None else extremes(alike, order, ranked),
        audited=_from_files(board),
        backbones=[
            _backbone(_row(board, name), results[name], captions, evidence) for name in order
        ],
        command=_command(board),
        config=to_json(board.config, indent=2),
        has_pictures=evidence is not None and bool(evidence.pictures),
    )


def _read(folder: Path) -> tuple[list[Leaderboard], list[str], dict[str, dict[str, Scored]]]:
    """Return the leaderboards, the images' captions, and protocol → backbone → log-odds."""
    boards = read_leaderboards(folder)
    try:
        captions: list[str] = []
        groups: list[int] = []
        logits: dict[tuple[str, str], list[float]] = {}
        with (folder / SCORES_FILE).open(encoding="utf-8", newline="") as f:
            for line in csv.DictReader(f):
                found = logits.setdefault((line["protocol"], line["backbone"]), [])
                if len(logits) == 1:
                    captions.append(from_csv_cell(line["image"]))
                    groups.append(int(line["group"]))
                found.append(float(line["logit"]))
        count = boards[0].n_real + boards[0].n_fake
        if any(len(found) != count for found in logits.values()):
            raise ValueError(f"it does not hold {count} images of every backbone")
        scored: dict[str, dict[str, Scored]] = {board.protocol: {} for board in boards}
        known = {(board.protocol, row.name) for board in boards for row in board.rows}
        for (protocol, name), found in logits.items():
            if (protocol, name) not in known:
                raise ValueError(f"{name} under {protocol} is not on the leaderboard")
            scored[protocol][name] = Scored(np.array(found), np.array(groups), boards[0].n_real)
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise ProbeError(
            f"{folder / SCORES_FILE} is damaged ({printable(str(error), 200)}). Rank again with "
            f"--out {folder}."
        ) from error
    return boards, captions, scored


def _name(board: Leaderboard, kind: str) -> str:
    """Return the name of a set of images in a heading: its file or folder, without the path."""
    return PurePath(board.config[kind]["path"]).name or board.config[kind]["path"]


def _row(board: Leaderboard, name: str) -> Row:
    return next(row for row in board.rows if row.name == name)


def _answer(board: Leaderboard) -> str:
    """Return the page's first sentence."""
    what = f"these {board.n_fake} generated images from {board.n_real} real ones"
    if board.winner is None:
        return (
            f"No pretrained backbone tells {what} beyond luck: the generator is that good in their "
            "eyes, there are too few images, or the sets have images in common."
        )
    tied = [row.name for row in board.ranked if row.rank == 1]
    row = board.winner
    numbers = f"held-out score {row.score:.3f} nats, accuracy {row.accuracy:.1%}"
    if len(tied) > 1:
        named = ", ".join(tied) if len(tied) <= NAMED else (
            f"{', '.join(tied[: NAMED - 1])} and {len(tied) - NAMED + 1} others"
        )  # fmt: skip
        return f"{named} tell {what} equally well ({row.name}: {numbers})."
    return f"{row.name} tells {what} best ({numbers})."


def extremes(
    alike: np.ndarray, names: Sequence[str], ranked: Sequence[str]
) -> tuple[tuple[str, str, float], tuple[str, str, float]] | None:
    """Return the two backbones that agree least and the two that agree most, among the ranked ones.

    Args:
        alike: float (B, B), NaN if unknown.
        names: of its rows.
        ranked: the backbones to compare; None is returned for fewer than three.
    """
    pairs = [
        (one, other, float(alike[names.index(one), names.index(other)]))
        for one, other in itertools.combinations(ranked, 2)
    ]
    known = [pair for pair in pairs if np.isfinite(pair[2])]
    if len(known) < 2:
        return None
    return min(known, key=lambda pair: pair[2]), max(known, key=lambda pair: pair[2])


def _backbone(
    row: Row, result: Scored | ProbeResult, captions: list[str], evidence: Evidence | None
) -> Mapping[str, Any]:
    """Return the template values for one backbone."""
    logits, n_real = result.image_logits, result.n_real
    known = np.isfinite(logits)
    generated = np.arange(len(logits)) >= n_real
    figures = [
        _logits_figure(logits[known], generated[known]),
        _roc_figure(logits[known], generated[known], row),
        _reliability_figure(logits[known], generated[known]),
    ]
    if evidence is not None and row.name in evidence.heights:
        figures.append(_map_figure(row.name, logits, n_real, evidence))
    galleries = []
    if evidence is not None and evidence.pictures:
        for sort, positions in telling(logits, n_real).items():
            notes = {p: f"{logits[p]:+.2f}" for p in positions}
            galleries.append((SORTS[sort], pictured(positions, notes, captions, evidence)))
    return {"row": row, "figures": figures, "galleries": galleries}


def _galleries(
    ranked: Sequence[str],
    results: Mapping[str, Any],
    captions: list[str],
    evidence: Evidence | None,
) -> tuple[list[Gallery], list[Gallery]]:
    """Return what the first of the ranked backbones sees, and what most of them see."""
    if evidence is None or not evidence.pictures or not ranked:
        return [], []
    first, n_real = results[ranked[0]].image_logits, results[ranked[0]].n_real
    logits = [results[name].image_logits for name in ranked]
    return (
        first_sight(first, n_real, captions, evidence),
        agreed(logits, n_real, captions, evidence),
    )


def _curve_figure(board: Leaderboard) -> Figure | None:
    """Return the learning curves of the first backbones, or None if there are too few images."""
    lines: dict[str, list[Learned]] = {}
    for point in board.curve:
        lines.setdefault(point.name, []).append(point)
    lines = {row.name: lines[row.name] for row in board.ranked[:COLOURS] if row.name in lines}
    counts = sorted({point.images for points in lines.values() for point in points})
    if len(counts) < 2:
        return None
    scores = [point.score for points in lines.values() for point in points]
    room = 0.06 * (max(scores) - min(scores)) or 0.05
    layers: list[Layer] = []
    for i, points in enumerate(lines.values()):
        curve = np.array([(point.images, point.score) for point in points])
        layers += [Line(curve, f"c{i}"), Dots(curve, f"c{i}")]
    note = (
        "On the first quarter, half and all of the images. While a curve rises, its probe still "
        "learns from more images."
    )
    return Figure(
        "Score against images",
        plot(
            layers, x=(0, counts[-1] * 1.02), y=(min(scores) - room, max(scores) + room),
            xlabel="images of each class", ylabel="score, nats", label=f"Learning curves. {note}",
        ),
        note,
        ("images", *lines),
        [
            (str(count), *(_at(points, count) for points in lines.values())) for count in counts
        ],
        [(f"c{i}", name) for i, name in enumerate(lines)],
    )  # fmt: skip


def _at(points: Sequence[Learned], count: int) -> str:
    return next((f"{point.score:.3f}" for point in points if point.images == count), "")


def _logits_figure(logits: np.ndarray, generated: np.ndarray) -> Figure:
    most = max(2.0, float(np.quantile(np.abs(logits), 0.99)))
    edges = np.linspace(-most, most, BINS + 1)
    areas = [
        histogram(logits[~generated], edges, "real"),
        histogram(logits[generated], edges, "fake"),
    ]
    top = max(float(area.high.max()) for area in areas) * 1.08
    shares = [area.high[::2] for area in areas]
    wrong = [float((logits[~generated] > 0).mean()), float((logits[generated] <= 0).mean())]
    note = (
        f"{wrong[0]:.1%} of the reals lie right of zero and {wrong[1]:.1%} of the generated images "
        "left of it: these are taken for the other."
    )
    return Figure(
        "Held-out log-odds",
        plot(
            [*areas, Mark(0.0)], x=(-most, most), y=(0, top), xlabel="log-odds of generated, nats",
            ylabel="share of images", label=f"Histogram of log-odds. {note}",
        ),
        note,
        ("from", "to", "reals", "generated"),
        [
            (f"{a:.2f}", f"{b:.2f}", f"{r:.3f}", f"{f:.3f}")
            for a, b, r, f in zip(edges[:-1], edges[1:], *shares, strict=True)
        ],
        (("real", "real"), ("fake", "generated")),
    )  # fmt: skip


def _roc_figure(logits: np.ndarray, generated: np.ndarray, row: Row) -> Figure:
    order = np.argsort(-logits, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(logits[order])), len(order) - 1)  # ties move together
    hits = np.append(0, np.cumsum(generated[order])[ends]) / max(1, generated.sum())
    alarms = np.append(0, np.cumsum(~generated[order])[ends]) / max(1, (~generated).sum())
    wanted = (0.01, 0.05, 0.1, 0.2, 0.5)
    found = [float(hits[alarms <= w].max()) for w in wanted]
    note = (
        f"AUROC {row.auroc:.3f}: the chance that a generated image scores above a real one. At 5 % "
        f"false alarms {found[1]:.0%} of the generated images are found."
    )
    return Figure(
        "ROC curve",
        plot(
            [DIAGONAL, Line(np.stack([alarms, hits], axis=1), "c0")], x=(0, 1), y=(0, 1),
            xlabel="false alarms (share of reals)", ylabel="found (share of generated)",
            label=f"ROC curve. {note}",
        ),
        note,
        ("false alarms at most", "found"),
        [(f"{w:.0%}", f"{f:.1%}") for w, f in zip(wanted, found, strict=True)],
    )  # fmt: skip


def _reliability_figure(logits: np.ndarray, generated: np.ndarray) -> Figure:
    said = expit(logits)
    level = np.minimum((said * LEVELS).astype(int), LEVELS - 1)
    weight = np.where(generated, 0.5 / max(1, generated.sum()), 0.5 / max(1, (~generated).sum()))
    points, rows = [], []
    for i in range(LEVELS):
        part = level == i
        if part.sum() >= LEAST_IN_LEVEL:
            mean = float(np.average(said[part], weights=weight[part]))
            share = float(np.average(generated[part], weights=weight[part]))
            points.append((mean, share))
            rows.append((f"{mean:.2f}", f"{share:.2f}", str(int(part.sum()))))
    error = float(np.mean([abs(a - b) for a, b in points])) if points else 0.0
    note = (
        "Observed against predicted frequency; a calibrated probe lies on the diagonal. Off by "
        f"{error:.2f} on average over the {len(points)} levels with at least {LEAST_IN_LEVEL} "
        "images."
    )
    curve = np.array(points).reshape(-1, 2)
    layers = [DIAGONAL, Line(curve, "c0"), Dots(curve, "c0")] if points else [DIAGONAL]
    return Figure(
        "Reliability",
        plot(
            layers, x=(0, 1), y=(0, 1), xlabel="probability of generated, as said",
            ylabel="share that is generated", label=f"Reliability curve. {note}",
        ),
        note,
        ("said", "is", "images"),
        rows,
    )  # fmt: skip


def _map_figure(name: str, logits: np.ndarray, n_real: int, evidence: Evidence) -> Figure:
    heights, mapped = evidence.heights[name], evidence.mapped
    across = logits[mapped]
    known = np.isfinite(across)
    points = np.stack([across, heights], axis=1)[known]
    real = mapped[known] < n_real
    wide = max(2.0, float(np.quantile(np.abs(points[:, 0]), 0.99)))
    high = max(1.0, float(np.abs(points[:, 1]).max()))
    share = evidence.shares[name]
    note = (
        "Across: what the probe sees. Up: where the features vary most besides, which is content "
        f"for the most part ({share:.0%} of their variance). Groups that lie apart upwards and not "
        "across are alike in both sets."
    )
    rows = [
        (kind, str(int(part.sum())), *(_spread(points[part, axis]) for axis in (0, 1)))
        for kind, part in (("real", real), ("generated", ~real))
    ]
    return Figure(
        "Map of features",
        plot(
            [Dots(points[real], "real"), Dots(points[~real], "fake", cross=True), Mark(0.0)],
            x=(-wide, wide), y=(-high, high), xlabel="log-odds of generated, nats",
            ylabel="main direction besides, sd", label=f"Map of {len(points)} images. {note}",
        ),
        note,
        ("images", "count", "across: mean ± sd", "up: mean ± sd"),
        rows,
        (("real dot", "real"), ("fake cross", "generated")),
    )  # fmt: skip


def _spread(values: np.ndarray) -> str:
    return f"{values.mean():.2f} ± {values.std():.2f}" if len(values) else ""


def _from_files(board: Leaderboard) -> bool:
    """Return whether both sets came from files, so that encodings were compared."""
    kinds = {board.config["real"]["kind"], board.config["fake"]["kind"]}
    return kinds <= {"folder", "zip", "generator"}


def _command(board: Leaderboard) -> str | None:
    """Return the command that repeats the ranking, or None if its input came from Python."""
    config = board.config
    if "features" in config:
        given = {name: features["file"] for name, features in config["features"].items()}
        if None in given.values():
            return None
        pairs = [("--features", f"{name}={file}") for name, file in given.items()]
        words = ["probe", "rank", *itertools.chain(*pairs)]
    elif _from_files(board) or config["real"]["kind"] == "reference":
        real, fake = config["real"]["path"], config["fake"]["path"]
        words = ["probe", "rank", "--real", real, "--gen", fake]
    else:
        return None
    chosen = {"bank": config.get("bank"), "backbones": ",".join(config.get("backbones") or [])}
    if config["fake"]["kind"] == "generator":
        chosen |= config.get("sample", {})
    for key, value in {**config["options"], **chosen}.items():
        flag = FLAGS.get(key, f"--{key.replace('_', '-')}")
        if value is True:
            words.append(flag)
        elif value not in (None, False, ""):
            words += [flag, str(value)]
    return shlex.join(words)
