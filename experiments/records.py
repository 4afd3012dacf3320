"""What a trainer's run directory holds, and what all runs' results come to, as plain values."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from plan import Run, read_json

from probe.generators.files.run_folder import kimg_in_name

SERIES = ("Loss/", "Progress/", "Timing/sec_per_kimg")  # of stats.jsonl, kept in a result


def last_snapshot(trained: Path, kimg: float) -> Path:
    """Return the last snapshot up to `kimg`."""
    found = [
        (at, path)
        for path in trained.glob("network-snapshot-*.safetensors")
        if (at := kimg_in_name(path)) is not None and at <= kimg
    ]
    return max(found, key=lambda one: one[0])[1]


def read_training(trained: Path, run: Run) -> dict[str, Any]:
    """Return what a finished run directory says about its run.

    Returns:
        series: one record per tick; snapshots: one per snapshot, with in-run distances and the
        discriminators' accuracies; selections: the leaderboards' scores; probes: the bank's scores
        at each snapshot; joined: kimg and name of each backbone; best_kimg.
    """
    snapshots: dict[float, dict[str, Any]] = {}
    for path in sorted(trained.glob("metric-*.jsonl")):
        kind = path.stem.removeprefix("metric-").partition("-")[0]
        for line in _lines(path):
            record = snapshots.setdefault(line["kimg"], {"kimg": line["kimg"]})
            if kind == "accuracy":
                record["accuracy"] = {
                    name.removeprefix("Accuracy/"): value for name, value in line["results"].items()
                }
            else:
                record[kind] = next(iter(line["results"].values()))
    selections, joined = [], []
    lengths = [run.kimg] if run.config.strategy == "none" else run.config.stage_lengths()
    for path in sorted(trained.glob("selection-stage*.json")):
        selection = read_json(path)
        kimg = sum(lengths[: selection["stage"]])
        scores = {
            row["name"]: {k: row[k] for k in ("score", "score_low", "score_high", "accuracy")}
            for row in selection["leaderboard"]["rows"]
            if row["role"] in ("candidate", "discriminator") and row["score"] is not None
        }
        selections.append(
            {"stage": selection["stage"], "kimg": kimg, "added": selection["added"],
             "snapshot": selection["snapshot"], "scores": scores}
        )  # fmt: skip
        joined += [{"kimg": kimg, "name": name} for name in selection["added"]]
    series = [
        {"kimg": line["kimg"]}
        | {name: value["mean"] for name, value in line.items() if name.startswith(SERIES)}
        for line in _lines(trained / "stats.jsonl")
    ]
    rows = [snapshots[kimg] for kimg in sorted(snapshots)]
    measured = [row for row in rows if "frechet" in row]
    best = min(measured, key=lambda row: row["frechet"])["kimg"] if measured else None
    return {
        "series": series,
        "snapshots": rows,
        "selections": selections,
        "probes": [
            {"kimg": line["kimg"], "scores": line["scores"]}
            for line in _lines(trained / "probes.jsonl")
        ],
        "joined": joined,
        "best_kimg": best,
    }


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if path.exists():
        for line in path.read_text("utf-8").splitlines():
            yield json.loads(line)


def to_frame(results: list[dict[str, Any]]) -> pd.DataFrame:
    """Return one row per run, judged snapshot and evaluator: what `runs.csv` holds."""
    rows = []
    for result in results:
        training = result["training"]
        first = training["selections"][0] if training["selections"] else None
        arm_score = first["scores"].get(result["arm"], {}) if first else {}
        for which, by_judge in result["judged"].items():
            for judge, measured in by_judge.items():
                rows.append(
                    {
                        "run": result["run"],
                        "arm": result["arm"],
                        "images": result["images"],
                        "seed": result["seed"],
                        "snapshot": which,
                        "kimg": training["series"][-1]["kimg"]
                        if which == "last"
                        else training["best_kimg"],
                        "evaluator": judge,
                        **{
                            f"{metric}_{part}": measured[part][metric]
                            for part in ("all", "training", "holdout")
                            if part in measured
                            for metric in ("frechet", "kernel")
                        },
                        **measured["neighbours"],
                        "joined": " ".join(j["name"] for j in training["joined"]),
                        "warmup_score": arm_score.get("score"),
                        "warmup_accuracy": arm_score.get("accuracy"),
                        "step_seconds": result["seconds"]["steps"],
                        "commit": result["versions"]["commit"],
                    }
                )
    return pd.DataFrame(rows)
