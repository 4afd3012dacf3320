"""The HTML page that compares training runs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from probe.reports.curves import Axis, curves
from probe.reports.page import COLOURS, Figure, render_page
from probe.reports.recorded import KINDS, OWN, Recorded, read_run
from probe.reports.sheets import Sheet, grids, sheet

# What besides the options may differ: name on the page → key of training_options.json.
CIRCUMSTANCES = {
    "classes": "classes",
    "init": "init",
    "precision": "precision",
    "device": "device",
    "processes": "processes",
    "version of probe": "probe",
}
DECISIVE = ("training images", "evaluator", "--resolution", "--eval-num")  # of distances


class Curve(NamedTuple):
    """What one run recorded of a quantity: points (n, 2) are kimg and value."""

    title: str
    axis: Axis
    note: str
    points: np.ndarray


@dataclass(frozen=True)
class Compared:
    """What the page shows of a run.

    Attributes:
        folder: the run directory.
        strategy: its strategy.
        kimg, total_kimg: how far it is; 0 before the first state.
        frechet: the least Fréchet distance, None if nothing was measured.
        evaluator: in whose features.
        there: values at that snapshot: "kimg", "kernel", "precision", "recall", as far as known.
        last: the last Fréchet distance.
        pace: seconds per kimg at the end.
        joined: (name of a backbone, kimg at which it joined).
        curves: over time.
        settings: name → value.
        samples: its last grid.
    """

    folder: Path
    strategy: str
    kimg: float
    total_kimg: float
    frechet: float | None
    evaluator: str
    there: Mapping[str, float]
    last: float | None
    pace: float | None
    joined: Sequence[tuple[str, float]]
    curves: Sequence[Curve]
    settings: Mapping[str, str]
    samples: Sheet | None


def compared(folder: Path) -> Compared:
    """Read what the page shows of a run.

    Raises:
        ProbeError: a file in it is damaged; it names the file.
    """
    run = read_run(folder)
    evaluator, best, there = "", None, {}
    if run.best is not None:
        best, _ = run.best
        evaluator = best.metric.removeprefix("frechet-")
        there = {"kimg": best.kimg, **_at(run, evaluator, best.kimg)}
    pace = run.statistics("Timing/sec_per_kimg").get(OWN)
    found = grids(folder)
    return Compared(
        folder=folder,
        strategy=run.options.options.strategy,
        kimg=0.0 if run.progress is None else run.progress.kimg,
        total_kimg=0.0 if run.progress is None else run.progress.total_kimg,
        frechet=None if best is None else best.value,
        evaluator=evaluator,
        there=there,
        last=None if run.best is None else run.best[1].value,
        pace=None if pace is None else float(pace[-1, 1]),
        joined=[(name, kimg) for kimg, choice in run.joins for name in choice.added],
        curves=list(_curves(run)),
        settings={"evaluator": evaluator or "–", **_settings(run)},
        samples=sheet(found[-1][1], f"{found[-1][0]:g} kimg") if found else None,
    )


def _at(run: Recorded, evaluator: str, kimg: float) -> dict[str, float]:
    """Return the other metrics of one snapshot."""
    found = {}
    for kind in ("kernel", "precision", "recall"):
        points = run.metric(f"{kind}-{evaluator}")
        here = points[points[:, 0] == kimg]
        if len(here):
            found[kind] = float(here[-1, 1])
    return found


def _curves(run: Recorded) -> Iterator[Curve]:
    for judge in run.evaluators:
        note = f"In {judge}; lower is better."
        yield Curve("Fréchet distance", Axis("distance"), note, run.metric(f"frechet-{judge}"))
        yield Curve("Kernel distance", Axis("distance"), note, run.metric(f"kernel-{judge}"))
        note = f"In {judge}; higher is better."
        share = Axis("share of images", 0.0, 1.0)
        yield Curve("Precision", share, note, run.metric(f"precision-{judge}"))
        yield Curve("Recall", share, note, run.metric(f"recall-{judge}"))
    own = run.accuracy().get(OWN, {})
    for kind, words in KINDS.items():
        if kind in own:
            yield Curve(
                f"Own discriminator on {words}", Axis("accuracy", 0.0, 1.0),
                "Share classified correctly, without augmentation.", own[kind],
            )  # fmt: skip
    for title, prefix, axis in (
        ("Generator's loss", "Loss/G/", Axis("loss, nats")),
        ("Own discriminator's loss", "Loss/D/", Axis("loss, nats")),
        ("R1 penalty", "Loss/r1_penalty", Axis("squared gradient", 0.0)),
        ("Augmentation strength p", "Progress/augment", Axis("p", 0.0)),
        ("Time", "Timing/sec_per_kimg", Axis("s per kimg", 0.0)),
    ):
        for name, points in run.statistics(prefix).items():
            if name == OWN:
                yield Curve(title, axis, "Of the GAN's own networks.", points)


def _settings(run: Recorded) -> dict[str, str]:
    """Return what was set, by its name on the page; options by their flags."""
    whole = run.whole
    options = {f"--{name.replace('_', '-')}": v for name, v in whole["options"].items()}
    around = {name: whole[key] for name, key in CIRCUMSTANCES.items() if key in whole}
    images = {"training images": run.options.real.training, "images from": run.options.real.path}
    return {name: _shown(value) for name, value in {**images, **around, **options}.items()}


def _shown(value: Any) -> str:
    return "–" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def compare_page(runs: Sequence[Compared]) -> str:
    """Return the page of several training runs."""
    names = _names([run.folder for run in runs])
    named = dict(zip(names, runs, strict=True))
    found = {name: run.frechet for name, run in named.items() if run.frechet is not None}
    measured = {name: named[name] for name in found}
    apart = [name for name, _ in _differing(measured) if name in DECISIVE]
    best = min(found, key=lambda name: found[name]) if found and not apart else None
    return render_page(
        "compare.html",
        title=f"{len(runs)} training runs",
        answer="" if best is None else _answer(best, named[best]),
        apart=apart,
        best=best,
        measured=measured,
        runs=named,
        figures=_figures(named),
        differing=_differing(named),
    )


def _answer(name: str, run: Compared) -> str:
    """Return the page's first sentence, on the best run."""
    return (
        f"{name} has the least Fréchet distance in {run.evaluator}: {run.frechet:.1f} at "
        f"{run.there['kimg']:g} kimg."
    )


def _names(folders: Sequence[Path]) -> list[str]:
    """Return the part of each path in which the runs differ."""
    paths = [folder.resolve().parts for folder in folders]
    ahead = _alike(paths)
    behind = _alike([path[:ahead:-1] for path in paths])
    names = ["/".join(path[ahead : len(path) - behind]) for path in paths]
    return names if all(names) else [str(folder) for folder in folders]


def _alike(paths: Sequence[Sequence[str]]) -> int:
    """Return how many first parts all paths have in common."""
    return sum(1 for _ in takewhile(lambda parts: len(set(parts)) == 1, zip(*paths, strict=False)))


def _differing(runs: Mapping[str, Compared]) -> list[tuple[str, list[str]]]:
    """Return (name, value in each run) of what is not set alike in all of them."""
    names = dict.fromkeys(name for run in runs.values() for name in run.settings)
    values = {name: [run.settings.get(name, "–") for run in runs.values()] for name in names}
    return [(name, found) for name, found in values.items() if len(set(found)) > 1]


def _figures(runs: Mapping[str, Compared]) -> list[Figure]:
    """Return a figure per quantity with a curve per run, in the same style everywhere."""
    drawn: dict[tuple[str, str], tuple[Axis, dict[str, np.ndarray]]] = {}
    for name, run in runs.items():
        for curve in run.curves:
            key = (curve.title, curve.note)
            drawn.setdefault(key, (curve.axis, {}))[1][name] = curve.points
    styles = {name: f"c{i % COLOURS}" for i, name in enumerate(runs)}
    return [
        figure
        for (title, note), (axis, series) in drawn.items()
        for figure in curves(title, series, (), axis, note=note, known=styles)
    ]
