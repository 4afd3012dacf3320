"""The page of the study, from its results alone: every number in it is computed here."""

from typing import Any

from findings import CONTROLS, PAIR, TARGET, Results
from words import between, cell, geometric, linear, listed, number, plain, table, times

FIGURE_TEXT = {
    "curves": "Fréchet distance during training, measured by the trainer on its own snapshots "
    "against its own training images. Thin: seeds; thick: their geometric mean; dashed: a backbone "
    "joins.",
    "finals": "Final distance to all bundled images. Dots: seeds; bar: geometric mean; line: its "
    "95 % interval over seeds.",
    "selection": "Probe score at the end of the warm-up against final distance. Dots: seeds; "
    "hollow: controls with random weights; dotted line: no backbone. If the score predicts the "
    "distance, the points fall to the right.",
    "overfitting": "Share of real images that the GAN's own discriminator classifies as real, "
    "among training images (solid) and held-out images (dashed). The gap is overfitting.",
    "separability": "Probe score of every backbone that may be chosen, during one progressive run; "
    "dotted: during the run without backbones.",
}


def render(results: Results, *, command: str, figures: dict[str, str], folder: str) -> str:
    """Return the page as Markdown.

    Args:
        results: of the study.
        command: what repeats it.
        figures: name → file of those that were drawn.
        folder: of the figures, relative to the page.
    """
    study = results.study
    parts = [
        f"# {study['title']}",
        "<!-- Written by experiments/study.py from its results. Do not edit. -->",
        _status(results, command),
    ]
    if results.runs:

        def figure(name: str) -> str:
            if name not in figures:
                return ""
            return f"![{name}]({folder}/{figures[name]})\n\n*{FIGURE_TEXT[name]}*"

        parts += [
            "## In short", _in_short(results),
            "## Setting", _setting(results),
            "## Does training against chosen backbones help?", _contrast(results),
            figure("curves"), figure("finals"), _arms_table(results),
            "## Does selection matter?", _selection(results), figure("selection"),
            "## Limited data", _limited(results), figure("overfitting"),
            "## Does linear separability fall?", _separability(results), figure("separability"),
            "## Samples", _samples(figures, folder),
            _diagnosis(results),
            "## What this does not show", _limits(results),
        ]  # fmt: skip
    return "\n\n".join(part for part in parts if part) + "\n"


# ---------------------------------------------------------------------------------------------
# Parts
# ---------------------------------------------------------------------------------------------


def _status(results: Results, command: str) -> str:
    missing = results.record["missing"]
    done, total = len(results.runs), len(results.runs) + len(missing)
    text = f"{done} of {total} runs are finished."
    if missing:
        text += f" Missing: {', '.join(f'`{name}`' for name in missing)}."
    name = results.study["name"]
    text += f" All numbers are in `experiments/results/{name}.json` and `{name}.csv`."
    return f"{text} To repeat or resume:\n\n```console\n$ {command}\n```"


def _in_short(results: Results) -> str:
    lines = []
    for images in results.sizes:
        found = results.ratio(images, "progressive")
        if found:
            lines.append(f"- **{images} images**: {_ratio_sentence(found)} {_verdict(found)}")
    for row in _correlations(results)[:1]:
        lines.append(f"- **Selection**: {_correlation_sentence(row)}")
    falls = _falls(results)
    if falls:
        lines.append(f"- **Separability**: {falls}")
    return "\n".join(lines) or "No results yet."


def _ratio_sentence(found: dict[str, Any]) -> str:
    text = (
        f"without backbones the final Fréchet distance is {times(found['value'])} that of "
        "`progressive`"
    )
    if found["low"] is not None:
        return f"{text} (95 % interval over {found['n']} seeds {between(found)})."
    image = next((v for v in (found.get("images") or {}).values() if v), None)
    if image:
        text += f" (one seed; interval over images, not over seeds: {between(image)})"
    else:
        text += " (one seed)"
    return f"{text}."


def _verdict(found: dict[str, Any]) -> str:
    low, high = found["low"], found["high"]
    if low is None:
        word = "reached" if found["value"] >= TARGET else "not reached"
        return f"The target factor of {TARGET:g} is {word}, on one seed."
    if low >= TARGET:
        return f"The target factor of {TARGET:g} is reached."
    if high < TARGET:
        return f"The target factor of {TARGET:g} is not reached."
    word = "reached by the mean" if found["value"] >= TARGET else "missed by the mean"
    return f"The target factor of {TARGET:g} is {word}; the interval includes it."


def _setting(results: Results) -> str:
    study, first = results.study, results.runs[0]
    train = study["train"]
    arms = study["arms"]
    machines = sorted(
        {
            f"{r['machine']['cpu']}, {r['machine']['cores']} cores, "
            f"{r['machine']['threads'] or '?'} thread(s) per run"
            for r in results.runs
        }
    )
    commits = sorted({r["versions"]["commit"] for r in results.runs})
    spread = results.warmup_spread()
    rows = [
        ("images", f"bundled emoji at {train['resolution']} px; {listed(map(str, results.sizes))} "
         "of the 1 000 are used for training, drawn by the seed; the others are held out"),
        ("network", f"StyleGAN2, channel base {train['channel_base']}, at most "
         f"{train['channel_max']}, latent {train['z_dim']}; batch {train['batch']}, mirrored, ADA; "
         "everything else from the preset"),
        ("length", "; ".join(_length(name, arm) for name, arm in _lengths(arms).items())),
        ("judges", f"{listed(f'`{e}`' for e in study['evaluators'])}; the first decides. No run "
         f"trained against them. {study['fakes']} samples from the last snapshot, with latents no "
         f"run has seen, against all bundled images; {first['precision']}"),
        ("neighbours", "precision, recall, density, coverage with k = 5 on equal image counts"),
        ("intervals", "95 %, t-distribution over seeds; of logarithms for distances and ratios"),
        ("machine", "; ".join(machines)),
        ("versions", ", ".join(f"{k} {v}" for k, v in first["versions"].items() if k != "commit")
         + f"; commit {', '.join(commits)}"),
    ]  # fmt: skip
    if text := _heads(arms):
        rows.insert(2, ("heads", text))
    if spread == 0:
        rows.append(("warm-up", "shared by all runs of one seed"))
    elif spread is not None:
        rows.append(("warm-up", f"repeated for one seed: first snapshots differ by {spread:.1%}"))
    return table(["", ""], rows)


def _heads(arms: dict[str, Any]) -> str:
    """Say what the arms with backbones set for them; nothing if they set nothing."""
    known = {"strategy", "k", "kimg", "stage_kimg", "backbones"}
    found = {
        f"`--{key.replace('_', '-')} {value}`"
        for arm in arms.values()
        for key, value in arm.items()
        if key not in known
    }
    return listed(sorted(found)) if found else ""


def _lengths(arms: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return one arm per strategy."""
    found: dict[str, dict[str, Any]] = {}
    for arm in arms.values():
        found.setdefault(arm["strategy"], arm)
    return found


def _length(name: str, arm: dict[str, Any]) -> str:
    if arm.get("kimg"):
        return f"`{name}` {arm['kimg']:g} thousand images"
    warmup, *stages = arm["stage_kimg"].split(",")
    return f"`{name}` {warmup} thousand for the warm-up, then {', '.join(stages)} (k = {arm['k']})"


def _contrast(results: Results) -> str:
    rows = []
    for images in results.sizes:
        for evaluator in results.evaluators:
            for part in ("all", "training", "holdout"):
                found = results.ratio(images, "progressive", evaluator=evaluator, part=part)
                if found is None:
                    continue
                best = results.ratio(
                    images, "progressive", evaluator=evaluator, part=part, which="best"
                )
                rows.append(
                    (images, f"`{evaluator}`", {"all": "all bundled images",
                     "training": "training images", "holdout": "held-out images"}[part],
                     cell(found), cell(best), found["n"])
                )  # fmt: skip
    if not rows:
        return (
            "Not yet: it needs a finished `none` and a finished `progressive` run with the same "
            "seed."
        )
    parts = [
        "Fréchet distance without backbones, divided by that of `progressive`, after the same "
        "number of images shown; above 1, backbones help.",
        table(
            [
                "images",
                "judge",
                "distance to",
                "ratio, last snapshot",
                "ratio, best snapshot",
                "seeds",
            ],
            rows,
        ),
        _each_seed(results),
    ]
    return "\n\n".join(part for part in parts if part)


def _each_seed(results: Results) -> str:
    rows = []
    for images in results.sizes:
        found = results.ratio(images, "progressive")
        for seed, value in (found["each"] if found else {}).items():
            interval = ((found and found["images"]) or {}).get(seed)
            run = results.result(images, "progressive", seed)
            joined = [f"`{j['name']}` at {j['kimg']:g}" for j in run["training"]["joined"]]
            rows.append(
                (images, seed, number(value), between(interval) if interval else "",
                 ", ".join(joined) or "none")
            )  # fmt: skip
    if not rows:
        return ""
    return "For each seed, with a jackknife interval over images:\n\n" + table(
        ["images", "seed", "ratio", "interval over images", "joined (thousands of images)"], rows
    )


def _arms_table(results: Results) -> str:
    parts = []
    for images in results.sizes:
        for evaluator in results.evaluators:
            rows = []
            for arm in results.arms(images):
                frechet = results.measured(images, arm, "frechet", evaluator=evaluator)
                kernel = results.measured(images, arm, "kernel", evaluator=evaluator)
                others = [
                    plain(results.measured(images, arm, m, evaluator=evaluator).values())
                    for m in ("precision", "recall", "density", "coverage")
                ]
                rows.append(
                    (f"`{arm}`", len(frechet), geometric(frechet.values()),
                     linear([1000 * v for v in kernel.values()]), *others)
                )  # fmt: skip
            if not rows:
                continue
            floor = results.runs[0]["floor"][evaluator]
            rows.append(
                ("*real against real*", "", number(floor["frechet"]),
                 number(1000 * floor["kernel"]),
                 *(f"{floor[m]:.2f}" for m in ("precision", "recall", "density", "coverage")))
            )  # fmt: skip
            parts.append(
                f"{images} images, `{evaluator}`, last snapshot against all bundled images; means "
                "over seeds, with intervals for the distances:\n\n"
                + table(
                    [
                        "arm",
                        "seeds",
                        "Fréchet",
                        "kernel · 1000",
                        "precision",
                        "recall",
                        "density",
                        "coverage",
                    ],
                    rows,
                )
            )
    if parts:
        parts.append(
            "*Real against real* compares one half of the bundled images with the other, as a "
            "reference point: it uses fewer images, which raises the Fréchet distance."
        )
    return "\n\n".join(parts)


def _correlations(results: Results) -> list[dict[str, Any]]:
    return results.correlations(results.sizes[0]) if results.sizes else []


def _selection(results: Results) -> str:
    images = results.sizes[0]
    points = results.points(images)
    if not points:
        return "Not yet: it needs finished runs with a single backbone."
    rows = []
    for point in sorted(points, key=lambda p: -p["score"]):
        ratio = results.ratio(images, point["arm"], seeds=point["seeds"])
        rows.append(
            (f"`{point['arm']}`", "random" if point["control"] else "pretrained",
             len(point["seeds"]), f"{point['score']:.4f}", f"{point['accuracy']:.3f}",
             *(number(point["distance"][e]) for e in results.evaluators), cell(ratio))
        )  # fmt: skip
    text = [
        f"One backbone each, {images} images: its probe score at the end of the warm-up (held-out "
        "log-likelihood; 0 is certainty, -0.693 is chance) and the final distance of the training "
        "run.",
        table(
            [
                "backbone",
                "weights",
                "seeds",
                "score",
                "accuracy",
                *(f"Fréchet `{e}`" for e in results.evaluators),
                "ratio to `none`",
            ],
            rows,
        ),
    ]
    idle = [
        f"`{run['run']}`"
        for run in results.runs
        if run["arm"] in results.fixed_arms(images) and not run["training"]["joined"]
    ]
    if idle:
        text.append(
            f"In {listed(idle)} nothing joined: the backbone told samples from real images no "
            "better than chance, so these runs are plain ones."
        )
    found = _correlations(results)
    if found:
        text.append(
            "Spearman's rank correlation between score and final distance, over backbones (means "
            "over seeds). It is negative if a higher score means a more helpful backbone:"
        )
        text.append(
            table(
                ["judge", "backbones", "points", "correlation", "95 % interval", "p"],
                [
                    (
                        f"`{r['evaluator']}`",
                        "all" if r["controls"] else "pretrained only",
                        r["n"],
                        f"{r['rho']:+.2f}",
                        "" if r["low"] is None else f"{r['low']:+.2f} to {r['high']:+.2f}",
                        f"{r['p']:.3f}",
                    )
                    for r in found
                ],
            )
        )
        sentence = _correlation_sentence(found[0])
        text.append(sentence[0].upper() + sentence[1:])
    return "\n\n".join(text)


def _correlation_sentence(row: dict[str, Any]) -> str:
    start = (
        f"over {row['n']} backbones, the rank correlation between probe score and final distance "
        f"in `{row['evaluator']}` is {row['rho']:+.2f}"
    )
    if row["low"] is None:
        return f"{start}; there are too few points for an interval."
    start += f" (95 % interval {row['low']:+.2f} to {row['high']:+.2f}, p = {row['p']:.3f})"
    sure = row["p"] < 0.05
    if sure and row["high"] < 0:
        return f"{start}: a higher score went with a smaller distance."
    if sure and row["low"] > 0:
        return f"{start}: a higher score went with a larger distance, against the claim."
    return f"{start}: these runs do not show that a higher score means a more helpful backbone."


def _limited(results: Results) -> str:
    rows = []
    for images in results.sizes:
        for arm in PAIR:
            found = results.overfitting(images, arm, results.seeds(images, [arm]))
            if not found or "holdout" not in found:
                continue
            rows.append(
                (images, f"`{arm}`", found["n"], f"{found['train']:.2f}", f"{found['holdout']:.2f}",
                 f"{found['train'] - found['holdout']:.2f}", f"{found['fake']:.2f}")
            )  # fmt: skip
    if not rows:
        return "Not yet."
    return (
        "Accuracy of the GAN's own discriminator at the end, without augmentation; means over "
        "seeds. Accuracies on training images and on held-out images diverge as it overfits:\n\n"
        + table(
            ["images", "arm", "seeds", "training images", "held-out images", "gap", "generated"],
            rows,
        )
    )


def _tracks(results: Results) -> list[tuple[dict[str, Any], str]]:
    """Return (run, backbone) of every progressive run that scored the bank as it went."""
    found = []
    for run in results.runs:
        if run["arm"] == "progressive" and len(run["training"]["probes"]) > 1:
            names = sorted(run["training"]["probes"][0]["scores"])
            found += [(run, name) for name in names]
    return found


def _change(run: dict[str, Any], name: str) -> tuple[float, float] | None:
    scores = [p["scores"].get(name) for p in run["training"]["probes"]]
    scores = [s for s in scores if s is not None]
    return (scores[0], scores[-1]) if len(scores) > 1 else None


def _falls(results: Results) -> str:
    changes = [(run, name, _change(run, name)) for run, name in _tracks(results)]
    changes = [(run, name, change) for run, name, change in changes if change]
    if not changes:
        return ""
    fell = sum(last < first for _, _, (first, last) in changes)
    in_use = [
        last < first
        for run, name, (first, last) in changes
        if name in {j["name"] for j in run["training"]["joined"]}
    ]
    return (
        f"from the first to the last snapshot of the progressive run(s), the probe score fell for "
        f"{fell} of {len(changes)} backbones, and for {sum(in_use)} of the {len(in_use)} trained "
        "against."
    )


def _separability(results: Results) -> str:
    rows = []
    for run, name in _tracks(results):
        change = _change(run, name)
        if change is None:
            continue
        plain = results.get(run["images"], "none", run["seed"])
        other = _change(plain, name) if plain else None
        joined = {j["name"]: j["kimg"] for j in run["training"]["joined"]}
        rows.append(
            (run["images"], run["seed"], f"`{name}`",
             f"{joined[name]:g}" if name in joined else "", f"{change[0]:.4f}", f"{change[1]:.4f}",
             f"{other[1]:.4f}" if other else "")
        )  # fmt: skip
    if not rows:
        return "Not yet."
    return (
        "Probe score of each backbone on the first and the last snapshot (nats; 0 is certainty, "
        "-0.693 is chance). If separability falls, the last score is lower:\n\n"
        + table(
            ["images", "seed", "backbone", "joins at", "first", "last", "last without backbones"],
            rows,
        )
    )


def _samples(figures: dict[str, str], folder: str) -> str:
    if "samples" not in figures:
        return "Not yet."
    return (
        f"![samples]({folder}/{figures['samples']})\n\n*Last snapshots of one seed, with the same "
        "latents for every arm; not cherry-picked.*"
    )


def _diagnosis(results: Results) -> str:
    """If the factor is missed: what the records say about each head."""
    images = results.sizes[0]
    found = results.ratio(images, "progressive")
    if found is None or found["value"] >= TARGET:
        return ""
    rows = []
    for run in results.runs:
        if run["images"] != images or run["arm"] != "progressive":
            continue
        last = run["training"]["series"][-1]
        right = run["training"]["snapshots"][-1]["accuracy"]
        for name in ["D", *(j["name"] for j in run["training"]["joined"])]:
            label = "loss" if name == "D" else name
            suffix = "" if name == "D" else f"/{name}"
            rows.append(
                (run["seed"], f"`{name}`", *(number(last.get(key)) for key in (
                    f"Loss/D/{label}", f"Loss/G/{label}", f"Progress/augment{suffix}")),
                 *(number(right.get(f"{name}/{kind}")) for kind in ("train", "holdout", "fake")))
            )  # fmt: skip
    return (
        f"## Why not {TARGET:g} times?\n\nThe target was missed. State of each discriminator at "
        "the end:\n\n"
        + table(
            [
                "seed",
                "discriminator",
                "its loss",
                "the generator's loss against it",
                "ADA p",
                "accuracy on training images",
                "on held-out images",
                "on generated images",
            ],
            rows,
        )
    )


def _limits(results: Results) -> str:
    resolution = results.study["train"]["resolution"]
    return (
        f"- Images of {resolution} px, a small network and short runs: two CPU cores allow no "
        "more. Whether the same is true at 256 px on a GPU was not tested.\n"
        "- The first judge belongs to the same family as two backbones in the bank and shares "
        "their training images; the other judges, if there are any, belong to another family.\n"
        "- Intervals over seeds cover the draw of training images, initialisation and sampling; "
        "few seeds make them wide. Intervals over images do not cover the variation of "
        "retraining.\n"
        f"- The controls ({listed(f'`{c}`' for c in CONTROLS)}) are each a single random network.\n"
        "- Equal numbers of images shown do not mean equal time: a backbone costs time "
        "(`step_seconds` in the results)."
    )
