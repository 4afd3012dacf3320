"""The study's plots, as SVG that is the same bytes for the same results."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from findings import PAIR, Results
from intervals import mean_interval
from matplotlib.ticker import MaxNLocator, NullFormatter, ScalarFormatter

from probe.files import atomic_path

# Okabe and Ito's colours, told apart by people of all kinds of colour vision.
COLOURS = ("#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999", "#F0E442")
ARM_COLOURS = {"none": "#000000", "progressive": "#D55E00"}
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "study",  # else the identifiers in the file are random
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e5e5e5",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "figure.dpi": 100,
}


def draw_all(results: Results, folder: Path) -> dict[str, str]:
    """Draw what there are results for.

    Returns:
        Name of each figure that was drawn → its file's name.
    """
    drawn = {}
    for name, draw in FIGURES.items():
        with plt.rc_context(STYLE):
            figure = draw(results)
            if figure is None:
                continue
            path = folder / f"{name}.svg"
            with atomic_path(path) as temporary:
                figure.savefig(
                    temporary, format="svg", bbox_inches="tight", metadata={"Date": None}
                )
            plt.close(figure)
            drawn[name] = path.name
    return drawn


def _colour(results: Results, name: str) -> str:
    if name in ARM_COLOURS:
        return ARM_COLOURS[name]
    names = [arm for arm in results.study["arms"] if arm not in ARM_COLOURS]
    return COLOURS[names.index(name) % len(COLOURS)] if name in names else COLOURS[-1]


def _marker(results: Results, name: str) -> str:
    return MARKERS[list(results.study["arms"]).index(name) % len(MARKERS)]


def _panels(n: int, *, height: float = 3.0, width: float = 3.8) -> tuple[Any, list[Any]]:
    figure, axes = plt.subplots(1, n, figsize=(width * n, height), squeeze=False)
    return figure, list(axes[0])


def _log(axis: Any) -> None:
    """Make a y axis logarithmic, with plain numbers."""
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(ScalarFormatter())
    axis.yaxis.set_minor_formatter(NullFormatter())
    low, high = axis.get_ylim()
    steps = [a * 10**b for b in range(-3, 5) for a in (1, 1.5, 2, 3, 5, 7)]
    axis.set_yticks([s for s in steps if low <= s <= high])
    axis.set_ylim(low, high)


def curves(results: Results) -> Any:
    """Distance during training, as the trainer measures it."""
    sizes = [n for n in results.sizes if any(a in results.arms(n) for a in PAIR)]
    if not sizes:
        return None
    figure, axes = _panels(len(sizes))
    for axis, images in zip(axes, sizes, strict=True):
        for arm in PAIR:
            rows = []
            for seed in results.seeds(images, [arm]):
                snapshots = results.result(images, arm, seed)["training"]["snapshots"]
                rows.append({s["kimg"]: s["frechet"] for s in snapshots if "frechet" in s})
            if not rows:
                continue
            for row in rows:
                axis.plot(
                    list(row), list(row.values()), color=_colour(results, arm), alpha=0.35, lw=0.8
                )
            common = sorted(set.intersection(*(set(row) for row in rows)))
            means = [float(np.exp(np.mean([np.log(row[k]) for row in rows]))) for k in common]
            axis.plot(
                common, means, color=_colour(results, arm), marker=_marker(results, arm), ms=4,
                lw=1.8, label=f"{arm} ({len(rows)} seed{'s' if len(rows) > 1 else ''})",
            )  # fmt: skip
        _mark_joins(results, axis, images)
        _log(axis)
        axis.set_title(f"{images} images")
        axis.set_xlabel("images shown (thousands)")
        axis.legend()
    axes[0].set_ylabel(f"Fréchet distance\n({results.evaluators[0]})")
    return figure


def _mark_joins(results: Results, axis: Any, images: int) -> None:
    """Draw a line where a backbone joins the progressive runs."""
    seeds = results.seeds(images, ["progressive"])
    for seed in seeds[:1]:
        for join in results.result(images, "progressive", seed)["training"]["joined"]:
            axis.axvline(join["kimg"], color="#bbbbbb", lw=0.8, ls="--", zorder=0)


def finals(results: Results) -> Any:
    """Final distances of all arms, a point per seed and the mean with its interval."""
    if not results.sizes:
        return None
    images = results.sizes[0]
    arms = results.arms(images)
    if len(arms) < 2:
        return None
    figure, axes = _panels(len(results.evaluators), height=0.36 * len(arms) + 1.0)
    for axis, evaluator in zip(axes, results.evaluators, strict=True):
        for row, arm in enumerate(arms):
            values = list(results.measured(images, arm, "frechet", evaluator=evaluator).values())
            mean = mean_interval(values, geometric=True)
            colour = _colour(results, arm)
            axis.plot(values, [row] * len(values), "o", color=colour, ms=3.5, alpha=0.5)
            axis.plot([mean.value], [row], "|", color=colour, ms=14, mew=2)
            if mean.low is not None:
                axis.plot([mean.low, mean.high], [row, row], color=colour, lw=1.5)
        axis.set_yticks(range(len(arms)), arms if axis is axes[0] else [""] * len(arms))
        axis.invert_yaxis()
        axis.set_xlabel(f"Fréchet distance ({evaluator})")
    return figure


def selection(results: Results) -> Any:
    """Score at the end of the warm-up against final distance."""
    if not results.sizes:
        return None
    images = results.sizes[0]
    points = results.points(images)
    if len(points) < 2:
        return None
    figure, axes = _panels(len(results.evaluators))
    for axis, evaluator in zip(axes, results.evaluators, strict=True):
        for point in points:
            face = "none" if point["control"] else _colour(results, point["arm"])
            style = {"color": _colour(results, point["arm"]), "mfc": face}
            for score, each in zip(point["scores"], point["distances"], strict=True):
                axis.plot([score], [each[evaluator]], ".", alpha=0.5, ms=4, color=style["color"])
            axis.plot(
                [point["score"]], [point["distance"][evaluator]], ls="", ms=7,
                marker=_marker(results, point["arm"]), label=point["arm"], **style,
            )  # fmt: skip
        none = results.measured(images, "none", "frechet", evaluator=evaluator)
        if none:
            axis.axhline(
                mean_interval(list(none.values()), geometric=True).value, color="#000000", lw=0.8,
                ls=":",
            )  # fmt: skip
        axis.xaxis.set_major_locator(MaxNLocator(4))
        axis.set_xlabel("probe score at the warm-up's end (nats)")
        axis.set_ylabel(f"final Fréchet distance\n({evaluator})")
    axes[-1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
    figure.subplots_adjust(wspace=0.45)
    return figure


def overfitting(results: Results) -> Any:
    """The own discriminator's accuracy on training and held-out images."""
    sizes = [n for n in results.sizes if any(a in results.arms(n) for a in PAIR)]
    rows = [(n, arm) for n in sizes for arm in PAIR if results.seeds(n, [arm])]
    if not rows:
        return None
    figure, axes = _panels(len(sizes))
    for axis, images in zip(axes, sizes, strict=True):
        for arm in PAIR:
            seeds = results.seeds(images, [arm])
            for kind, style in (("train", "-"), ("holdout", "--")):
                tracks = []
                for seed in seeds:
                    snapshots = results.result(images, arm, seed)["training"]["snapshots"]
                    tracks.append({s["kimg"]: s["accuracy"].get(f"D/{kind}") for s in snapshots})
                tracks = [t for t in tracks if None not in t.values()]
                if not tracks:
                    continue
                common = sorted(set.intersection(*(set(t) for t in tracks)))
                axis.plot(
                    common, [float(np.mean([t[k] for t in tracks])) for k in common], style,
                    color=_colour(results, arm), marker=_marker(results, arm), ms=3,
                    label=f"{arm}, {'training' if kind == 'train' else 'held-out'} images",
                )  # fmt: skip
        axis.set_ylim(-0.03, 1.03)
        axis.set_title(f"{images} images")
        axis.set_xlabel("images shown (thousands)")
    axes[0].set_ylabel("share of reals that the GAN's\nown discriminator calls real")
    axes[-1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
    return figure


def separability(results: Results) -> Any:
    """Scores of the whole bank along a progressive run, and along a plain one."""
    found = [
        (r["images"], r["seed"]) for r in results.runs
        if r["arm"] == "progressive" and r["training"]["probes"]
    ]  # fmt: skip
    if not found:
        return None
    figure, axes = _panels(len(found))
    for axis, (images, seed) in zip(axes, found, strict=True):
        for arm, style in (("progressive", "-"), ("none", ":")):
            result = results.get(images, arm, seed)
            if result is None:
                continue
            for name in _probed(result["training"]["probes"]):
                track = {
                    p["kimg"]: p["scores"][name]
                    for p in result["training"]["probes"] if name in p["scores"]
                }  # fmt: skip
                axis.plot(
                    list(track), list(track.values()), style, color=_colour(results, name),
                    marker=_marker(results, name) if arm == "progressive" else None, ms=3.5,
                    label=name if arm == "progressive" else None,
                )  # fmt: skip
        for join in results.result(images, "progressive", seed)["training"]["joined"]:
            axis.axvline(join["kimg"], color=_colour(results, join["name"]), lw=1, ls="--")
        axis.set_title(f"{images} images, seed {seed}")
        axis.set_xlabel("images shown (thousands)")
    axes[0].set_ylabel("probe score (nats)\nlower is harder to tell apart")
    axes[-1].plot([], [], ":", color="#666666", label="the same, none")
    axes[-1].plot([], [], "--", color="#666666", lw=1, label="joins the training")
    axes[-1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
    return figure


def _probed(probes: Sequence[Mapping[str, Any]]) -> list[str]:
    names: dict[str, None] = {}
    for record in probes:
        names |= dict.fromkeys(record["scores"])
    return sorted(names)


FIGURES: Mapping[str, Callable[[Results], Any]] = {
    "curves": curves,
    "finals": finals,
    "selection": selection,
    "overfitting": overfitting,
    "separability": separability,
}
