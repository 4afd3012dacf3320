"""The HTML page of a training run, built from the files in its directory."""

import base64
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Annotated, Any

import numpy as np
from PIL import Image
from pydantic import Field, FiniteFloat

from probe.checks import records as checked
from probe.checks.records import (
    Statistic,
    Stats,
)
from probe.errors import ProbeError, printable
from probe.files import to_json
from probe.probing.leaderboard import StoredLeaderboard
from probe.reports.page import COLOURS, Figure, render, whiskers
from probe.reports.svg import Area, Dots, Layer, Line, Mark, plot
from probe.run_files import (
    ACCURACY_FILE,
    FIRST_GRID,
    GRID,
    GRIDS,
    OPTIONS_FILE,
    PROBES_FILE,
    PROGRESS_FILE,
    REALS_GRID,
    SELECTIONS,
    STATS_FILE,
    kimg_of,
    metric_file,
    metric_name,
)
from probe.stored import read_lines, read_record

SHEETS = 6  # grids shown besides the grid of reals
SHEET_SIDE = 768  # pixels
TABLED = 12  # rows in a curve's table, evenly spaced
KINDS = {"train": "training images", "holdout": "held-out images", "fake": "generated images"}

Series = Mapping[str, np.ndarray]  # label → points (n, 2): kimg, value


# Fields this page reads beyond the ones in `probe.checks.records`.
@dataclass(frozen=True)
class Source(checked.Source):
    """The training images."""

    training: int


@dataclass(frozen=True)
class Chosen:
    """The options of the run."""

    strategy: str


@dataclass(frozen=True)
class Options:
    """training_options.json."""

    real: Source
    options: Chosen
    resolution: int
    stage_ends_kimg: Annotated[list[FiniteFloat], Field(min_length=1)]


@dataclass(frozen=True)
class Progress(checked.Progress):
    """progress.json."""

    discriminators: list[str]


@dataclass(frozen=True)
class Accuracies(checked.Accuracies):
    """A line of metric-accuracy.jsonl."""

    kimg: FiniteFloat


@dataclass(frozen=True)
class Distance(checked.Distance):
    """A line of another metric's file."""

    snapshot: str


@dataclass(frozen=True)
class Probes:
    """A line of probes.jsonl."""

    kimg: FiniteFloat
    scores: dict[str, FiniteFloat]


@dataclass(frozen=True)
class Choice(checked.Choice):
    """selection-stage*.json."""

    strategy: str
    snapshot: str
    in_use: list[str]
    leaderboard: StoredLeaderboard
    joint: StoredLeaderboard | None


def train_page(folder: Path) -> str:
    """Return the page of a training run, finished or not.

    Args:
        folder: the run directory.

    Raises:
        ProbeError: a file in it is damaged; it names the file.
    """
    again = f"Continue the run, which writes it anew: probe train … --resume {folder}"
    path = folder / OPTIONS_FILE
    options, whole = read_record(path, Options, again), read_record(path, dict[str, Any], again)
    progress = None
    if (folder / PROGRESS_FILE).exists():
        progress = read_record(folder / PROGRESS_FILE, Progress, again)
    selections = [
        read_record(path, Choice, "Move it away to see the rest.")
        for path in sorted(folder.glob(SELECTIONS))
    ]
    distances = {
        metric_name(path.name): read_lines(path, Distance)
        for path in sorted(folder.glob(metric_file("*")))
        if path.name != ACCURACY_FILE
    }
    stats = [line for line in read_lines(folder / STATS_FILE, Stats) if "kimg" in line]
    joins = _joins(options, selections, stats)
    marks = [Mark(kimg, str(choice.stage)) for kimg, choice in joins]
    styles = _styles([name for choice in selections for name in choice.added])
    figures = [*_distance_figures(distances, marks), *_accuracy_figures(folder, marks)]
    figures += _probe_figures(folder, marks, styles)
    figures += _stats_figures(stats, marks, styles)
    return render(
        "train.html",
        title=f"Training on {PurePath(options.real.path).name}",
        answer=_answer(options, progress, distances),
        joins=[(choice.stage, f"{kimg:g}", ", ".join(choice.added)) for kimg, choice in joins],
        figures=[figure for figure in figures if figure is not None],
        sheets=_sheets(folder),
        selections=[_selection(choice) for choice in selections],
        config=to_json(whole, indent=2),
    )


def _answer(
    options: Options, progress: Progress | None, distances: Mapping[str, Sequence[Distance]]
) -> str:
    """Return the page's first sentences: what ran, how far it got, and how good it became."""
    text = f"Strategy “{options.options.strategy}” on {options.real.training} images"
    text += f" at {options.resolution} px"
    if progress is not None:
        # The page is written before the run is marked as finished.
        trained = progress.kimg >= progress.total_kimg
        ends = "finished" if trained else f"of {progress.total_kimg:g}"
        text += f", {progress.kimg:g} kimg ({ends})"
        if names := progress.discriminators:
            text += f", with {', '.join(names)}"
    text += "."
    for metric, lines in distances.items():
        values = [(line.value, line) for line in lines if math.isfinite(line.value)]
        if metric.startswith("frechet-") and values:
            least, best = min(values, key=lambda item: item[0])
            return (
                f"{text} Least Fréchet distance in {metric.removeprefix('frechet-')}: {least:.1f} "
                f"at {best.kimg:g} kimg ({best.snapshot}); last: {values[-1][0]:.1f}."
            )
    return text


def _joins(
    options: Options, selections: Sequence[Choice], stats: Sequence[Stats]
) -> list[tuple[float, Choice]]:
    """Return when each selection took place, in kimg, by the log or else by the schedule."""
    began: dict[int, float] = {}
    before = 0.0
    for line in stats:
        stage = line.get("Progress/stage")
        if isinstance(stage, Statistic):
            began.setdefault(int(stage.mean), before)
        before = _kimg(line)
    ends = options.stage_ends_kimg
    planned = dict(enumerate(ends, start=1))
    return [(began.get(s.stage, planned.get(s.stage, ends[-1])), s) for s in selections]


def _kimg(line: Stats) -> float:
    """Return the kimg of a line of stats.jsonl."""
    value = line["kimg"]
    return value.mean if isinstance(value, Statistic) else value


def _styles(joined: Sequence[str]) -> dict[str, str]:
    """Return each discriminator's line style, the same in every plot; D is the GAN's own."""
    return {name: f"c{i % COLOURS}" for i, name in enumerate(["D", *joined])}


@dataclass(frozen=True)
class Axis:
    """The vertical axis of a plot; a limit of None follows the values."""

    label: str
    low: float | None = None
    high: float | None = None


def _curves(
    title: str,
    series: Series,
    marks: Sequence[Mark],
    y: Axis,
    *,
    note: str,
    bands: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None,
    known: Mapping[str, str] | None = None,
) -> Figure | None:
    """Return curves over kimg, in the known styles or new ones; None if nothing was recorded."""
    finite = {name: p[np.isfinite(p[:, 1])] for name, p in series.items()}
    finite = {name: points for name, points in finite.items() if len(points)}
    if not finite:
        return None
    values = np.concatenate([points[:, 1] for points in finite.values()])
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
        for i in _spread(len(times))
    ]
    summary = "; ".join(f"{n} from {p[0, 1]:.3g} to {p[-1, 1]:.3g}" for n, p in finite.items())
    return Figure(
        title,
        plot(layers, x=(0, last or 1), y=(low, high), xlabel="thousands of images shown",
             ylabel=y.label, label=f"{title}: {summary}. {note}"),
        note,
        ("kimg", *finite),
        rows,
        [(styles[name], name) for name in finite] if len(finite) > 1 else (),
    )  # fmt: skip


def _spread(count: int) -> list[int]:
    """Return at most `TABLED` evenly spaced indices, including the first and the last."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, TABLED))})


def _distance_figures(
    distances: Mapping[str, Sequence[Distance]], marks: Sequence[Mark]
) -> Iterable[Figure | None]:
    for metric, found in distances.items():
        kind, _, evaluator = metric.partition("-")
        lines = [line for line in found if math.isfinite(line.value)]
        points = np.array([(line.kimg, line.value) for line in lines]).reshape(-1, 2)
        ends = [[line.results.get(f"{metric}-{end}", math.nan) for line in lines]
                for end in ("low", "high")]  # fmt: skip
        low, high = np.array(ends)
        bands = {"distance": (low, high)} if np.isfinite(ends).all() and lines else {}
        name = {"frechet": "Fréchet", "kernel": "Kernel"}.get(kind, kind)
        note = f"In {evaluator}, on which no discriminator is built; lower is better."
        yield _curves(f"{name} distance", {"distance": points}, marks, Axis("distance"),
                      note=note, bands=bands)  # fmt: skip


def _accuracy_figures(folder: Path, marks: Sequence[Mark]) -> Iterable[Figure | None]:
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for line in read_lines(folder / ACCURACY_FILE, Accuracies):
        for key, value in line.results.items():
            _, name, kind = key.split("/")
            found.setdefault(name, {}).setdefault(KINDS[kind], []).append((line.kimg, value))
    note = (
        "Share classified correctly, without augmentation. If training images are far above "
        "held-out ones, it has memorised them. If all are at 1, the generator learns little from "
        "it."
    )
    for name, series in found.items():
        title = "Own discriminator" if name == "D" else f"Discriminator on {name}"
        arrays = {kind: np.array(points) for kind, points in series.items()}
        yield _curves(title, arrays, marks, Axis("accuracy", 0.0, 1.0), note=note)


def _probe_figures(
    folder: Path, marks: Sequence[Mark], styles: Mapping[str, str]
) -> Iterable[Figure | None]:
    series: dict[str, list[tuple[float, float]]] = {}
    for line in read_lines(folder / PROBES_FILE, Probes):
        for name, score in line.scores.items():
            series.setdefault(name, []).append((line.kimg, score))
    yield _curves(
        "Probe scores", {name: np.array(points) for name, points in series.items()}, marks,
        Axis("score, nats"), known=styles,
        note="How well each backbone tells the snapshot from the reals; −0.693 is chance, which a "
        "good generator approaches.",
    )  # fmt: skip


def _stats_figures(
    stats: Sequence[Stats], marks: Sequence[Mark], styles: Mapping[str, str]
) -> Iterable[Figure | None]:
    def series(prefix: str) -> dict[str, np.ndarray]:
        found: dict[str, list[tuple[float, float]]] = {}
        for line in stats:
            for name, value in line.items():
                if name.startswith(prefix) and isinstance(value, Statistic):
                    found.setdefault(name, []).append((_kimg(line), value.mean))
        return {
            name.removeprefix(prefix).strip("/").removesuffix("loss") or "D": np.array(found[name])
            for name in sorted(found)
        }

    yield _curves("Augmentation strength p", series("Progress/augment"), marks, Axis("p", 0.0),
                  note="Of ADA, by discriminator. Above 0.8 augmentations leak into the images.",
                  known=styles)  # fmt: skip
    yield _curves("Generator's loss", series("Loss/G/"), marks, Axis("loss, nats"),
                  note="By discriminator; D is its own. Far above 0.693: not fooled.",
                  known=styles)  # fmt: skip
    speed = dict(zip(["steps"], series("Timing/sec_per_kimg").values(), strict=False))
    yield _curves("Time", speed, marks, Axis("s per kimg", 0.0),
                  note="Of training steps, without evaluation.")  # fmt: skip


def _selection(choice: Choice) -> Mapping[str, Any]:
    """Return template values for one selection: the deciding leaderboard and the reason.

    A star marks the backbones that joined, which may differ from K-fixed's picks.
    """
    boards = [("Leaderboard", choice.leaderboard)]
    if choice.joint is not None:
        boards.append(("Together with those in use", choice.joint))
    drawn = []
    for heading, board in boards:
        rows = tuple(replace(row, picked=row.name in choice.added) for row in board.rows)
        drawn.append((heading, replace(board, rows=rows), whiskers(board)))
    return {**vars(choice), "boards": drawn}


def _sheets(folder: Path) -> list[tuple[str, str]]:
    """Return (title, WebP in base64) of the reals and of grids evenly spaced over the run."""
    numbered = {path: GRID.fullmatch(path.name) for path in sorted(folder.glob(GRIDS))}
    grids = [(path, f"{kimg_of(named[1]):g} kimg") for path, named in numbered.items() if named]
    reals, first = (
        (folder / REALS_GRID, "Training images"),
        (folder / FIRST_GRID, "Before training"),
    )
    shown = [reals, first, *(grids[i] for i in _spread(len(grids)))]
    if len(grids) > SHEETS:
        picked = np.linspace(0, len(grids) - 1, SHEETS)
        shown = [reals, *(grids[round(i)] for i in picked)]
    return [(title, _sheet(path)) for path, title in shown if path.exists()]


def _sheet(path: Path) -> str:
    """Return a grid, scaled down, as WebP in base64.

    Raises:
        ProbeError: the file is damaged.
    """
    try:
        with Image.open(path) as image:
            picture = image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        what = printable(str(error), 100)
        raise ProbeError(f"{path} is damaged ({what}). Move it away to see the rest.") from error
    shrink = math.sqrt(SHEET_SIDE**2 / (picture.width * picture.height))
    if shrink < 1:
        size = (max(1, round(picture.width * shrink)), max(1, round(picture.height * shrink)))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, format="WEBP", quality=82, method=4)
    return base64.b64encode(buffer.getvalue()).decode()
