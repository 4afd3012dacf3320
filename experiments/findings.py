"""All results become the numbers that the page shows: means, ratios, correlations."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from intervals import mean_interval, rank_correlation

PAIR = ("none", "progressive")
CONTROLS = ("random-efficientnet-lite0", "random-resnet18")
TARGET = 1.3  # the ratio below which the study has to find out why


class Results:
    """The results of a study, by arm, number of images and seed.

    Args:
        record: what `study.py` wrote to results/NAME.json.
    """

    def __init__(self, record: Mapping[str, Any]) -> None:
        self.record = record
        self.study: Mapping[str, Any] = record["study"]
        self.runs: list[dict[str, Any]] = record["runs"]
        self.evaluators: list[str] = self.study["evaluators"]
        self._by = {(r["images"], r["arm"], r["seed"]): r for r in self.runs}

    def result(self, images: int, arm: str, seed: int) -> dict[str, Any]:
        """Return the result of a run that has one."""
        return self._by[images, arm, seed]

    def get(self, images: int, arm: str, seed: int) -> dict[str, Any] | None:
        """Return one run's result."""
        return self._by.get((images, arm, seed))

    def seeds(self, images: int, arms: Iterable[str]) -> list[int]:
        """Return the seeds of which all these arms have a result."""
        every = sorted({r["seed"] for r in self.runs})
        return [s for s in every if all((images, arm, s) in self._by for arm in arms)]

    def arms(self, images: int) -> list[str]:
        """Return the arms that have a result, in the configuration's order."""
        found = {r["arm"] for r in self.runs if r["images"] == images}
        return [arm for arm in self.study["arms"] if arm in found]

    @property
    def sizes(self) -> list[int]:
        """The numbers of images that were trained on, the largest first."""
        return sorted({r["images"] for r in self.runs}, reverse=True)

    def fixed_arms(self, images: int) -> list[str]:
        """Return the arms with a single backbone."""
        return [a for a in self.arms(images) if self.study["arms"][a]["strategy"] == "fixed"]

    def measured(
        self,
        images: int,
        arm: str,
        metric: str,
        *,
        part: str = "all",
        evaluator: str | None = None,
        which: str = "last",
    ) -> dict[int, float]:
        """Return seed → a distance ("frechet", "kernel") or a neighbour measure, of one arm."""
        judge, found = evaluator or self.evaluators[0], {}
        for (size, name, seed), result in sorted(self._by.items()):
            if (size, name) != (images, arm):
                continue
            judged = result["judged"].get(which) or result["judged"]["last"]
            row = judged[judge]
            found[seed] = row[part][metric] if metric in row[part] else row["neighbours"][metric]
        return found

    def ratio(
        self, images: int, arm: str, *, base: str = "none", evaluator: str | None = None,
        part: str = "all", which: str = "last", metric: str = "frechet",
        seeds: Collection[int] | None = None,
    ) -> dict[str, Any] | None:  # fmt: skip
        """Return how many times the base's distance is an arm's.

        Over the seeds that both have, of those that are named; all unless given.

        Returns:
            value, low, high and n of the geometric mean, `each` by seed, and `images`: for a
            single seed the interval over images instead, where it was computed.
        """
        options = {"evaluator": evaluator, "part": part, "which": which}
        ours = self.measured(images, arm, metric, **options)
        theirs = self.measured(images, base, metric, **options)
        wanted = ours.keys() & theirs.keys() & set(ours if seeds is None else seeds)
        each = {s: theirs[s] / ours[s] for s in sorted(wanted)}
        if not each or min(each.values()) <= 0:
            return None
        found = {**asdict(mean_interval(list(each.values()), geometric=True)), "each": each}
        if (evaluator in (None, self.evaluators[0]), part, which, base) == (
            True,
            "all",
            "last",
            "none",
        ):
            found["images"] = {
                s: self.record["intervals"].get(f"{images}-{arm}-s{s}") for s in each
            }
        return found

    def points(self, images: int) -> list[dict[str, Any]]:
        """Return score at the warm-up's end and final distance of each single backbone.

        Means over the seeds that all of them have; where there is none, the first seed's.
        """
        arms = self.fixed_arms(images)
        seeds = self.seeds(images, arms) or [min((r["seed"] for r in self.runs), default=0)]
        points = []
        for arm in arms:
            rows = [self.get(images, arm, s) for s in seeds]
            rows = [row for row in rows if row and row["training"]["selections"]]
            scores = [row["training"]["selections"][0]["scores"].get(arm) for row in rows]
            if not rows or any(score is None for score in scores):
                continue
            distances = [
                {e: row["judged"]["last"][e]["all"]["frechet"] for e in self.evaluators}
                for row in rows
            ]
            points.append(
                {
                    "arm": arm,
                    "control": arm in CONTROLS,
                    "seeds": [row["seed"] for row in rows],
                    "score": sum(score["score"] for score in scores) / len(scores),
                    "accuracy": sum(score["accuracy"] for score in scores) / len(scores),
                    "scores": [score["score"] for score in scores],
                    "distances": distances,
                    "distance": {
                        e: math.exp(sum(math.log(d[e]) for d in distances) / len(distances))
                        for e in self.evaluators
                    },
                }
            )
        return points

    def correlations(self, images: int) -> list[dict[str, Any]]:
        """Return the rank correlations of score and distance, with and without the controls."""
        found = []
        for evaluator in self.evaluators:
            for controls in (True, False):
                points = [p for p in self.points(images) if controls or not p["control"]]
                result = rank_correlation(
                    [p["score"] for p in points], [p["distance"][evaluator] for p in points]
                )
                if result is not None:
                    found.append({"evaluator": evaluator, "controls": controls, **asdict(result)})
        return found

    def warmup_spread(self) -> float | None:
        """Return by how much runs of a seed differ at the first snapshot, relative; 0 if equal.

        They share everything up to there, so that any difference is one of computation.
        """
        groups: dict[tuple[int, int], list[float]] = {}
        for result in self.runs:
            first = result["training"]["snapshots"][:1]
            if first and "frechet" in first[0]:
                groups.setdefault((result["images"], result["seed"]), []).append(
                    first[0]["frechet"]
                )
        spreads = [max(v) / min(v) - 1 for v in groups.values() if len(v) > 1]
        return max(spreads, default=None)

    def overfitting(self, images: int, arm: str, seeds: Sequence[int]) -> dict[str, Any] | None:
        """Return the own discriminator's last accuracies on training and held-out images."""
        rows = [self.get(images, arm, s) for s in seeds]
        last = [row["training"]["snapshots"][-1]["accuracy"] for row in rows if row]
        if not last:
            return None
        kinds = ("train", "holdout", "fake")
        found = {
            kind: sum(row[f"D/{kind}"] for row in last) / len(last)
            for kind in kinds
            if all(f"D/{kind}" in row for row in last)
        }
        return {**found, "n": len(last)}
