"""The page of a study on photographs, from its results alone: a picture, a table, the rest."""

from typing import Any

from findings import Results
from intervals import mean_interval
from words import between, cell, geometric, linear, listed, number, plain, table, times

NEIGHBOURS = ("precision", "recall", "density", "coverage")
SEES = {
    "efficientnet-lite2": "classification; of the family of `efficientnet-lite1`",
    "hed-vgg16": "edge detection",
    "craft-vgg16": "text detection",
    "random-resnet18-judge": "random weights: low-level statistics alone",
}


def render(results: Results, *, command: str, figures: dict[str, str], folder: str) -> str:
    """Return the page as Markdown.

    Args:
        results: of the study.
        command: what repeats it.
        figures: name → file of the sheets that were drawn.
        folder: of the sheets, relative to the page.
    """
    parts = [
        f"# {results.study['title']}",
        "<!-- Written by experiments/study.py from its results. Do not edit. -->",
    ]
    if not results.runs:
        parts.append("No run is finished yet, so there is nothing to show.")
        return "\n\n".join([*parts, _status(results, command)]) + "\n"
    if "samples" in figures:
        parts += [
            f"![samples]({folder}/{figures['samples']})",
            "*Last snapshots of one seed, with the same latents for every arm; not cherry-picked.*",
        ]
    parts += [_answer(results), _one_table(results)]
    if "blind" in figures:
        parts.append(
            f"To judge by eye first, see [the sheet without names]({folder}/{figures['blind']}); "
            f"which row is which arm is in `{folder}/{figures['key']}`."
        )
    parts += [
        "## How many times lower", _ratios(results),
        *_choice(results),
        "## By judge", _by_judge(results),
        "## Are photographs copied?", _memory(results),
        "## What joined", _joined(results),
        "## Setting", _setting(results),
        "## What this does not show", _limits(results),
        "## Runs", _status(results, command),
    ]  # fmt: skip
    return "\n\n".join(part for part in parts if part) + "\n"


def _answer(results: Results) -> str:
    lines = []
    for images in results.sizes:
        for judge in results.evaluators:
            found = results.ratio(images, "progressive", evaluator=judge)
            if found is None:
                continue
            text = f"- `{judge}` ({SEES.get(judge, 'another network')}): {times(found['value'])}"
            if found["low"] is None:
                lines.append(f"{text}, from one seed.")
            else:
                where = "above 1" if found["low"] > 1 else "below 1" if found["high"] < 1 else None
                text += f", 95 % interval over {found['n']} seeds {between(found)}"
                lines.append(text + (f": {where}." if where else ": it includes 1."))
    if not lines:
        return (
            "The contrast of `none` and `progressive` is missing: it needs both, finished, with "
            "the same seed."
        )
    kimg = max(run["training"]["series"][-1]["kimg"] for run in results.runs)
    return (
        "Fréchet distance to photographs that no run has seen, without backbones, divided by that "
        f"of `progressive`, after {kimg:g} thousand images shown. Above 1, backbones help:\n\n"
        + "\n".join(lines)
    )


def _one_table(results: Results) -> str:
    first, parts = results.evaluators[0], []
    for images in results.sizes:
        rows = []
        for arm in results.arms(images):
            distances = [
                results.measured(images, arm, "frechet", evaluator=e) for e in results.evaluators
            ]
            others = [plain(results.measured(images, arm, m).values()) for m in NEIGHBOURS]
            rows.append(
                (f"`{arm}`", len(distances[0]),
                 *(number(_mean(found)) for found in distances), *others)
            )  # fmt: skip
        floor = results.runs[0]["floor"]
        rows.append(
            ("*photographs*", "", *(number(floor[e]["frechet"]) for e in results.evaluators),
             *(f"{floor[first][m]:.2f}" for m in NEIGHBOURS))
        )  # fmt: skip
        columns = ["arm", "seeds", *(f"Fréchet, `{e}`" for e in results.evaluators), *NEIGHBOURS]
        parts.append(
            f"{images} photographs to train on; means over seeds; precision to coverage by "
            f"`{first}`. The last row compares one half of the unseen photographs with the other:"
            f"\n\n{table(columns, rows)}"
        )
    return "\n\n".join(parts)


def _mean(found: dict[int, float]) -> float:
    return mean_interval(list(found.values()), geometric=True).value


def _ratios(results: Results) -> str:
    rows = []
    for images in results.sizes:
        for arm in results.arms(images):
            if arm == "none":
                continue
            cells = [cell(results.ratio(images, arm, evaluator=e)) for e in results.evaluators]
            rows.append((images, f"`{arm}`", *cells))
    if not rows:
        return "Not yet: it needs a finished arm beside `none`."
    columns = ["photographs", "arm", *(f"`{e}`" for e in results.evaluators)]
    return (
        "Fréchet distance of `none` divided by that of the arm, by judge; geometric means over "
        f"seeds, with 95 % intervals:\n\n{table(columns, rows)}"
    )


def _choice(results: Results) -> list[str]:
    """Return the section that compares `progressive` with the other arms that have backbones."""
    rows = []
    for images in results.sizes:
        for arm in results.arms(images):
            if arm in ("none", "progressive"):
                continue
            found = [
                results.ratio(images, "progressive", base=arm, evaluator=e)
                for e in results.evaluators
            ]
            if any(found):
                rows.append((images, f"`{arm}`", *map(cell, found)))
    if not rows:
        return []
    columns = ["photographs", "instead", *(f"`{e}`" for e in results.evaluators)]
    return [
        "## Does it matter which backbones?",
        "Fréchet distance with other backbones, or one alone, divided by that of `progressive`; "
        "above 1, the picks of `progressive` are better:\n\n" + table(columns, rows),
    ]


def _by_judge(results: Results) -> str:
    parts = []
    for images in results.sizes:
        for judge in results.evaluators:
            rows = []
            for arm in results.arms(images):
                options = {"evaluator": judge}
                kernel = results.measured(images, arm, "kernel", **options)
                rows.append(
                    (f"`{arm}`", geometric(results.measured(images, arm, "frechet",
                                                            **options).values()),
                     linear([1000 * v for v in kernel.values()]),
                     *(plain(results.measured(images, arm, m, **options).values())
                       for m in NEIGHBOURS))
                )  # fmt: skip
            floor = results.runs[0]["floor"][judge]
            rows.append(
                ("*photographs*", number(floor["frechet"]), number(1000 * floor["kernel"]),
                 *(f"{floor[m]:.2f}" for m in NEIGHBOURS))
            )  # fmt: skip
            parts.append(
                f"`{judge}`: {SEES.get(judge, 'another network')}; {images} photographs to train "
                f"on.\n\n{table(['arm', 'Fréchet', 'kernel · 1000', *NEIGHBOURS], rows)}"
            )
    return "\n\n".join(parts)


def _memory(results: Results) -> str:
    rows = []
    for images in results.sizes:
        for judge in results.evaluators:
            for arm in results.arms(images):
                found = [
                    run["judged"]["last"][judge].get("memory")
                    for run in results.runs
                    if (run["images"], run["arm"]) == (images, arm)
                ]
                found = [one for one in found if one]
                if not found:
                    continue
                mean = {key: sum(one[key] for one in found) / len(found) for key in found[0]}
                rows.append(
                    (images, f"`{judge}`", f"`{arm}`", number(mean["fakes"]),
                     number(mean["unseen"]), f"{mean['near']:.1%}")
                )  # fmt: skip
    if not rows:
        return "Not measured yet."
    columns = ["photographs", "judge", "arm", "samples", "unseen photographs", "nearer"]
    return (
        "Median distance to the nearest training photograph, of samples and of photographs that no "
        "run has seen; and the share of samples that are nearer than 99 % of the latter are, 1 % "
        f"if nothing is copied. Means over seeds:\n\n{table(columns, rows)}"
    )


def _joined(results: Results) -> str:
    rows = [
        (run["images"], run["seed"], f"`{run['arm']}`",
         listed(f"`{j['name']}` at {j['kimg']:g}" for j in run["training"]["joined"]))
        for run in results.runs
        if run["training"]["joined"]
    ]  # fmt: skip
    if not rows:
        return "Nothing yet."
    return "Which backbone joined, after how many thousand images:\n\n" + table(
        ["photographs", "seed", "arm", "joined"], rows
    )


def _setting(results: Results) -> str:
    study, runs = results.study, results.runs
    train, pool = study["train"], study["pool"]
    rows = [
        ("images", f"photographs of clothes (CC0) at {train['resolution']} px; {pool} may be "
         "trained on, judges compare with the others"),
        ("network", f"StyleGAN2, channel base {train['channel_base']}, at most "
         f"{train['channel_max']}, latent {train['z_dim']}; batch {train['batch']}, mirrored, ADA; "
         "everything else from the preset"),
        ("length", f"{runs[0]['training']['series'][-1]['kimg']:g} thousand images each; all runs "
         "of a seed share the warm-up"),
        ("judges", f"{listed(f'`{e}`' for e in study['evaluators'])}, chosen before the first "
         f"result; no run trained against them. {study['fakes']} samples from the last snapshot, "
         f"with latents no run has seen; {runs[0]['precision']}"),
        ("neighbours", "precision, recall, density, coverage with k = 5 on equal image counts"),
        ("trained on", "; ".join(sorted({_machine(run["machine"]) for run in runs}))),
        ("versions", ", ".join(f"{k} {v}" for k, v in runs[0]["versions"].items())),
    ]  # fmt: skip
    return table(["", ""], rows)


def _machine(machine: dict[str, Any]) -> str:
    gpu = machine.get("gpu")
    return f"{gpu}, several runs at a time" if gpu else f"{machine['cpu']}, one thread per run"


def _limits(results: Results) -> str:
    return (
        f"- Images of {results.study['train']['resolution']} px, a small network, short runs, "
        "photographs of one kind.\n"
        "- `efficientnet-lite2` is of the family of one backbone and shares the training images of "
        "both. The others are of other families, and see less of what is in a photograph.\n"
        "- The random networks are a single one each; arm and judge have one architecture, but not "
        "the same weights.\n"
        "- Intervals over three seeds are wide. They do not cover the draw of the photographs, "
        "which all runs share."
    )


def _status(results: Results, command: str) -> str:
    missing = results.record["missing"]
    done, name = len(results.runs), results.study["name"]
    text = f"{done} of {done + len(missing)} runs are finished."
    if missing:
        text += f" Missing: {', '.join(f'`{one}`' for one in missing)}."
    text += f" All numbers are in `experiments/results/{name}.json`."
    return f"{text} To repeat or resume:\n\n```console\n$ {command}\n```"
