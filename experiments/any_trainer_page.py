"""The page about the DCGAN against chosen backbones, from its results alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from intervals import Interval, mean_interval
from PIL import Image
from words import geometric, linear, listed, number, table

from probe.files import atomic_path

GAP, SCALE = 8, 2
NAMES = {
    "plain": "plain",
    "first": "first of the ranking",
    "last": "last of the ranking",
}
COMMAND = "python experiments/any_trainer.py"


def draw_sheet(tiles: Sequence[Path], target: Path) -> None:
    """Stack grids of samples, one below the other."""
    grids = [np.array(Image.open(path).convert("RGB")) for path in tiles]
    gap = np.full((GAP, grids[0].shape[1], 3), 255, np.uint8)
    rows = [part for grid in grids for part in (grid, gap)][:-1]
    sheet = np.concatenate(rows).repeat(SCALE, axis=0).repeat(SCALE, axis=1)
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(target) as temporary:
        Image.fromarray(sheet).save(temporary, format="PNG", optimize=True)


def render(results: Mapping[str, Any], sheet: str | None) -> str:
    """Return the page as Markdown.

    Args:
        results: the plan, and a record of each seed.
        sheet: the samples, relative to the page; None if there are none yet.
    """
    plan = results["plan"]
    seeds = [s for s in results["seeds"] if set(s["arms"]) == set(NAMES)]
    parts = [
        "# A DCGAN against chosen backbones",
        "<!-- Written by experiments/any_trainer.py from its results. Do not edit. -->",
        _question(plan),
    ]
    if not seeds:
        parts.append("No seed is finished yet, so there is nothing to show.")
    else:
        if sheet is not None:
            caption = "*The first seed, from the same latents; not picked. From above: "
            parts += [f"![samples]({sheet})", caption + f"{listed(NAMES.values())}.*"]
        parts += [_answer(plan, seeds), "## By judge", _by_judge(plan, seeds)]
        parts += ["## By seed", _by_seed(plan, seeds), "## Rankings", _rankings(seeds)]
    parts += ["## Setting", _setting(plan), f"`{COMMAND}` repeats it."]
    return "\n\n".join(parts) + "\n"


def _question(plan: Mapping[str, Any]) -> str:
    return (
        "Does `probe.Discriminators` help a trainer that is not probe's, and does it matter which "
        "backbone is chosen? The trainer is `examples/dcgan.py`; the images are photographs of "
        f"clothes at {plan['side']} px. For each seed a plain DCGAN warms up, and its images rank "
        "the backbones. Three copies then train on, shown equally many images: plain, against the "
        "first backbone of that ranking, and against its last."
    )


def _distance(seed: Mapping[str, Any], arm: str, judge: str) -> float:
    return seed["arms"][arm]["judged"][judge]["frechet"]


def _ratios(seeds: Sequence[Mapping[str, Any]], judge: str, base: str, other: str) -> list[float]:
    return [_distance(s, base, judge) / _distance(s, other, judge) for s in seeds]


def _answer(plan: Mapping[str, Any], seeds: Sequence[Mapping[str, Any]]) -> str:
    judge = plan["judges"][0]
    lines = [
        f"By {judge}, which was to decide before the first result, the Fréchet distance to unseen "
        "photographs of the plain GAN is this many times that with a backbone (above 1 a backbone "
        f"helps; {_over(seeds)}):",
        table(
            ["plain against", "times"],
            [
                [NAMES["first"], geometric(_ratios(seeds, judge, "plain", "first"))],
                [NAMES["last"], geometric(_ratios(seeds, judge, "plain", "last"))],
            ],
        ),
        "The last of the ranking has this many times the distance of the first: "
        f"{geometric(_ratios(seeds, judge, 'last', 'first'))}.",
        " ".join(
            _verdict(NAMES[a], NAMES[b], mean_interval(_ratios(seeds, judge, a, b), geometric=True))
            for a, b in (("plain", "first"), ("plain", "last"), ("last", "first"))
        ),
    ]
    return "\n\n".join(lines)


def _over(seeds: Sequence[Any]) -> str:
    if len(seeds) == 1:
        return "one seed, so there is no interval"
    return f"geometric mean over {len(seeds)} seeds, 95 % t-interval over seeds"


def _verdict(one: str, other: str, ratio: Interval) -> str:
    """Say in words which of two arms is nearer to the photographs, if that is settled."""
    if ratio.low is None or ratio.high is None or ratio.low <= 1 <= ratio.high:
        return f"It is open whether {one} or {other} is nearer."
    near, far = (other, one) if ratio.low > 1 else (one, other)
    return f"{near.capitalize()} is nearer than {far}."


def _by_judge(plan: Mapping[str, Any], seeds: Sequence[Mapping[str, Any]]) -> str:
    columns = ["judge", "arm", "Fréchet", "kernel · 1000", "precision", "recall", "coverage"]
    rows = []
    for judge in plan["judges"]:
        for arm, name in NAMES.items():
            judged = [seed["arms"][arm]["judged"][judge] for seed in seeds]
            rows.append(
                [
                    judge, name,
                    linear(j["frechet"] for j in judged),
                    linear(1000 * j["kernel"] for j in judged),
                    *(linear(j[key] for j in judged) for key in columns[4:]),
                ]
            )  # fmt: skip
    text = "Means over seeds, in brackets their 95 % t-intervals. Lower distances are better."
    return f"{text}\n\n{table(columns, rows)}"


def _by_seed(plan: Mapping[str, Any], seeds: Sequence[Mapping[str, Any]]) -> str:
    judge = plan["judges"][0]
    rows = [
        [seed["seed"], number(seed["warmup"][judge]["frechet"])]
        + [number(_distance(seed, arm, judge)) for arm in NAMES]
        for seed in seeds
    ]
    return f"Fréchet distance, {judge}.\n\n" + table(
        ["seed", "after the warm-up", *NAMES.values()], rows
    )


def _rankings(seeds: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [seed["seed"], ", ".join(f"{r['name']} ({number(r['score'])})" for r in seed["ranking"])]
        for seed in seeds
    ]
    return "Scores are mean log-likelihoods; -0.693 is chance.\n\n" + table(
        ["seed", "first to last"], rows
    )


def _setting(plan: Mapping[str, Any]) -> str:
    warm, steps = (plan[key] * plan["batch"] / 1000 for key in ("warmup", "steps"))
    return (
        f"{plan['pool']} photographs are trained on, and all others judge. The warm-up takes "
        f"{number(warm)} thousand images, each arm {number(steps)} thousand more, in batches of "
        f"{plan['batch']}. The backbones are {listed(plan['candidates'])}, fed 64 px (CRAFT 32 px) "
        "as in the [study](study.md), with DiffAugment and R1 at the features "
        f"(`gamma={plan['gamma']:g}`). All arms begin with new optimizers. Judged are "
        f"{plan['samples']} samples of the generator's running average. Judges: "
        f"{listed(plan['judges'])}; the last is a relative of two of the backbones. "
        "Runs are short and the network is small, so this shows a tendency and no best result."
    )
