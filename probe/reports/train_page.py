"""The HTML page of a training run, built from the files in its directory."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from probe.files import to_json
from probe.reports.curves import Axis, curves, evenly_spaced
from probe.reports.page import COLOURS, Figure, render_page, whiskers
from probe.reports.recorded import KINDS, OWN, Recorded, RecordedSelection, read_run
from probe.reports.sheets import Sheet, grids, reals, sheet
from probe.reports.svg import Mark

FRAMES = 16  # grids on the slider, evenly spaced


def train_page(folder: Path) -> str:
    """Return the page of a training run, finished or not; until it is, the page reloads itself.

    Args:
        folder: the run directory.

    Raises:
        ProbeError: a file in it is damaged; it names the file.
    """
    run = read_run(folder)
    return render_page(
        "train.html",
        title=f"Training on {PurePath(run.options.real.path).name}",
        answer=_answer(run),
        goes_on=not run.is_trained,
        spans=_spans(run),
        figures=list(_figures(run)),
        reals=reals(folder),
        frames=_frames(run),
        selections=[_selection(choice) for choice in run.selections],
        config=to_json(run.whole, indent=2),
    )


def _answer(run: Recorded) -> str:
    """Return the page's first sentences: what ran, how far it got, and how good it became."""
    options, progress = run.options, run.progress
    text = f"Strategy “{options.options.strategy}” on {options.real.training} images"
    text += f" at {options.resolution} px"
    if progress is not None:
        ends = "finished" if run.is_trained else f"of {progress.total_kimg:g}"
        text += f", {progress.kimg:g} kimg ({ends})"
        if names := progress.discriminators:
            text += f", with {', '.join(names)}"
    text += "."
    if (found := run.best) is None:
        return text
    best, last = found
    return (
        f"{text} Least Fréchet distance in {best.metric.removeprefix('frechet-')}: "
        f"{best.value:.1f} at {best.kimg:g} kimg ({best.snapshot}); last: {last.value:.1f}."
    )


def _spans(run: Recorded) -> list[tuple[str, str, float, float, float]]:
    """Return (name, style, from, until now, until the end) of each discriminator, in kimg."""
    styles = _styles(run)
    end = max([run.options.stage_ends_kimg[-1], *(kimg for kimg, _ in run.joins)]) or 1.0
    now = end if run.progress is None else max(run.progress.kimg, 0.0)
    joined = [(OWN, 0.0)] + [(name, kimg) for kimg, c in run.joins for name in c.added]
    return [(name, styles[name], kimg, max(kimg, now), end) for name, kimg in joined]


def _styles(run: Recorded) -> dict[str, str]:
    """Return each discriminator's line style, the same in every plot."""
    names = [OWN, *(name for choice in run.selections for name in choice.added)]
    return {name: f"c{i % COLOURS}" for i, name in enumerate(names)}


def _figures(run: Recorded) -> Iterator[Figure]:
    marks = [Mark(kimg, str(choice.stage)) for kimg, choice in run.joins]
    styles = _styles(run)
    yield from _metric_figures(run, marks)
    yield from _accuracy_figures(run, marks)
    yield from _probe_figures(run, marks, styles)
    yield from _stats_figures(run, marks, styles)


def _metric_figures(run: Recorded, marks: Sequence[Mark]) -> Iterator[Figure]:
    for evaluator in run.evaluators:
        note = f"In {evaluator}, on which no discriminator is built; lower is better."
        distance = {"distance": run.metric(f"frechet-{evaluator}")}
        yield from curves("Fréchet distance", distance, marks, Axis("distance"), note=note)
        name = f"kernel-{evaluator}"
        yield from curves(
            "Kernel distance", {"distance": run.metric(name)}, marks, Axis("distance"),
            note=note, bands=_bands(run, name),
        )  # fmt: skip
        yield from curves(
            "Precision and recall",
            {kind: run.metric(f"{kind}-{evaluator}") for kind in ("precision", "recall")},
            marks, Axis("share of images", 0.0, 1.0),
            note=f"In {evaluator}. Precision: generated images that look like reals. Recall: reals "
            "that the generator could have made. If recall falls, it loses variety.",
        )  # fmt: skip


def _bands(run: Recorded, name: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the interval of a distance at its points, {} if one lacks its interval."""
    lines = [line for line in run.metrics.get(name, ()) if np.isfinite(line.value)]
    ends = [[line.results.get(f"{name}-{end}", np.nan) for line in lines]
            for end in ("low", "high")]  # fmt: skip
    low, high = np.array(ends)
    return {"distance": (low, high)} if lines and np.isfinite(ends).all() else {}


def _accuracy_figures(run: Recorded, marks: Sequence[Mark]) -> Iterator[Figure]:
    note = (
        "Share classified correctly, without augmentation. If training images are far above "
        "held-out ones, it has memorised them. If all are at 1, the generator learns little from "
        "it."
    )
    for name, kinds in run.accuracy().items():
        title = "Own discriminator" if name == OWN else f"Discriminator on {name}"
        series = {KINDS[kind]: points for kind, points in kinds.items()}
        yield from curves(title, series, marks, Axis("accuracy", 0.0, 1.0), note=note)


def _probe_figures(
    run: Recorded, marks: Sequence[Mark], styles: Mapping[str, str]
) -> Iterator[Figure]:
    series: dict[str, list[tuple[float, float]]] = {}
    for line in run.probes:
        for name, score in line.scores.items():
            series.setdefault(name, []).append((line.kimg, score))
    yield from curves(
        "Probe scores", {name: np.array(points) for name, points in series.items()}, marks,
        Axis("score, nats"), known=styles,
        note="How well each backbone tells the snapshot from the reals; −0.693 is chance, which a "
        "good generator approaches.",
    )  # fmt: skip


def _stats_figures(
    run: Recorded, marks: Sequence[Mark], styles: Mapping[str, str]
) -> Iterator[Figure]:
    yield from curves(
        "Augmentation strength p", run.statistics("Progress/augment"), marks, Axis("p", 0.0),
        note="Of ADA, by discriminator. Above 0.8 augmentations leak into the images.",
        known=styles,
    )  # fmt: skip
    yield from curves(
        "Generator's loss", run.statistics("Loss/G/"), marks, Axis("loss, nats"),
        note="By discriminator; D is its own. Far above 0.693: not fooled.", known=styles,
    )  # fmt: skip
    yield from curves(
        "Discriminators' loss", run.statistics("Loss/D/"), marks, Axis("loss, nats"),
        note="On reals and generated images together. The own one's is 1.386 if it cannot tell "
        "them apart; near 0 the generator learns little from it.", known=styles,
    )  # fmt: skip
    yield from curves(
        "R1 penalty", run.statistics("Loss/r1_penalty"), marks, Axis("squared gradient", 0.0),
        note="Squared gradient at real images, before gamma. If it grows without end, raise "
        "--gamma.", known=styles,
    )  # fmt: skip
    yield from curves(
        "Time", run.statistics("Timing/sec_per_kimg"), marks, Axis("s per kimg", 0.0),
        note="Of training steps, without evaluation.",
    )  # fmt: skip


def _selection(choice: RecordedSelection) -> Mapping[str, Any]:
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


def _frames(run: Recorded) -> list[Sheet]:
    """Return grids of generated images evenly spaced over the run."""
    found = grids(run.folder)
    return [
        sheet(found[i][1], _frame_title(run, found[i][0]))
        for i in evenly_spaced(len(found), FRAMES)
    ]


def _frame_title(run: Recorded, kimg: float) -> str:
    """Return how far the run was, and against which backbones it had trained by then."""
    if not kimg:
        return "Before training"
    members = run.members(kimg)
    return f"{kimg:g} kimg" + (f", with {', '.join(members)}" if members else "")
