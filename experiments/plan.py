"""A configuration becomes the list of runs, in the order in which they are done."""

import fnmatch
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from probe.bundled import DEMO_REALS
from probe.errors import UsageError
from probe.images.open import open_images
from probe.training.config import TrainConfig

HERE = Path(__file__).resolve().parent
WARMUP = "warmup"
# What an arm may set for itself and still begin as the others do.
AFTER_WARMUP = {
    "strategy", "k", "kimg", "stage_kimg", "gamma_heads", "aug_heads", "target_heads", "head_loss",
    "head_norm", "smooth", "smooth_generator",
}  # fmt: skip
OWN_KEYS = {"seed", "holdout", "track_probes"}  # set by the study itself


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training run.

    Attributes:
        name: its folder, "500-none-s0".
        arm: what is compared: "none", "progressive" or the one backbone's name.
        images: how many images it is trained on; the others that may be trained on are held out.
        seed: of the run; it also draws which images are held out.
        group: where it stands in the configuration.
        options: of `TrainConfig`, all that are given.
        backbones: those that may be chosen.
    """

    name: str
    arm: str
    images: int
    seed: int
    group: str
    options: Mapping[str, Any]
    backbones: Sequence[str]

    @property
    def config(self) -> TrainConfig:
        """The options of `probe train`."""
        return TrainConfig(**self.options)

    @property
    def kimg(self) -> float:
        """How long it is trained, in thousands of images."""
        return self.config.kimg or sum(self.config.stage_lengths())

    @property
    def warmup(self) -> float:
        """When the first backbone joins, in thousands of images."""
        return self.kimg if self.config.strategy == "none" else self.config.stage_lengths()[0]


@dataclass(frozen=True, kw_only=True)
class Study:
    """A configuration file, checked.

    Attributes:
        path: the file.
        title: heads the page.
        threads: of each run.
        evaluators: backbones that judge, the deciding one first.
        fakes: per judged snapshot.
        judge_seed: of the judged samples.
        probe_seeds: seeds whose runs with the whole bank score it at each snapshot.
        train: options that all runs share.
        arms: name → further options, and `backbones`.
        groups: name, images, arms and seeds of the runs, in order.
        real: a zip or folder of images, relative to the repository; the bundled ones unless given.
        pool: how many images of `real` may be trained on, the same ones for all runs; judges
            compare with the others. Unless given, all may be, and judges compare with all.
        device: what trains, as `probe train` takes it; judges use the CPU.
        scale: a factor for all lengths.
        inputs: backbone or judge → side of its input, if it is not the bank's.
        runs: what the groups come to, each run once.
    """

    path: Path
    title: str
    threads: int
    evaluators: list[str]
    fakes: int
    judge_seed: int
    probe_seeds: list[int]
    train: dict[str, Any]
    arms: dict[str, dict[str, Any]]
    groups: list[dict[str, Any]]
    real: str | None = None
    pool: int | None = None
    device: str = "cpu"
    scale: float = 1
    inputs: dict[str, int] = field(default_factory=dict)
    runs: tuple[Run, ...] = field(default=(), compare=False)

    @property
    def archive(self) -> Path:
        """The zip or folder of all images."""
        return DEMO_REALS if self.real is None else HERE.parent / self.real

    @property
    def available(self) -> int:
        """How many images may be trained on."""
        return self.pool or len(open_images(self.archive))

    def inputs_of(self, names: Sequence[str]) -> dict[str, int]:
        """Return the inputs of these that are not the bank's."""
        return {name: side for name, side in self.inputs.items() if name in names}

    def warmup_of(self, run: Run) -> Run | None:
        """Return the warm-up of a run as a run without backbones; None where it shares none.

        It is shared where all arms warm up for the same length, at whose end a snapshot is taken
        anyway, and where this run's arm sets nothing that would change it.
        """
        config = run.config
        with_stages = [r.warmup for r in self.runs if r.config.strategy != "none"]
        if not with_stages or len({*with_stages}) > 1:
            return None
        kimg = with_stages[0]
        if config.patience or kimg % (config.tick * config.snap) or run.kimg <= kimg:
            return None
        tracked = {tuple(r.backbones) for r in self.runs if r.options["track_probes"]}
        if len(tracked) > 1:
            return None
        options = {k: v for k, v in run.options.items() if k not in AFTER_WARMUP}
        if any(self.train.get(k) != v for k, v in options.items() if k not in OWN_KEYS):
            return None
        options |= {"strategy": "none", "kimg": kimg}
        options["track_probes"] = bool(tracked) and run.seed in self.probe_seeds
        return Run(
            name=f"{run.images}-{WARMUP}-s{run.seed}",
            arm=WARMUP,
            images=run.images,
            seed=run.seed,
            group=run.group,
            options=options,
            # Without tracking they change nothing, so that all arms may share it.
            backbones=list(*tracked) or list(self.runs[0].backbones),
        )

    def run(self, name: str) -> Run:
        """Return the run of a name, or the warm-up.

        Raises:
            UsageError: there is none.
        """
        for run in self.runs:
            if run.name == name:
                return run
        for run in self.runs:
            warmup = self.warmup_of(run)
            if warmup is not None and warmup.name == name:
                return warmup
        raise UsageError(f"{self.path.name} has no run '{name}'.")

    def select(self, patterns: Sequence[str]) -> list[Run]:
        """Return the runs whose name or group fits one of the patterns; all without patterns.

        Raises:
            UsageError: a pattern fits nothing.
        """
        chosen = set()
        for pattern in patterns:
            fitting = {
                run.name
                for run in self.runs
                if fnmatch.fnmatch(run.name, pattern) or fnmatch.fnmatch(run.group, pattern)
            }
            if not fitting:
                groups = ", ".join(group["name"] for group in self.groups)
                raise UsageError(f"--only: '{pattern}' fits no run and no group ({groups}).")
            chosen |= fitting
        return [run for run in self.runs if not patterns or run.name in chosen]


def read_study(path: Path) -> Study:
    """Read and check a configuration.

    Raises:
        UsageError: a key that is unknown or missing, or options that `probe train` would refuse.
    """
    record = yaml.safe_load(path.read_text("utf-8"))
    keys = [f for f in fields(Study) if f.name not in ("path", "runs")]
    required = {f.name for f in keys if f.default is MISSING and f.default_factory is MISSING}
    _check_keys(path, "the file", record, {f.name for f in keys}, required=required)
    study = Study(path=path, **record)
    available = study.available
    named = {
        *study.evaluators,
        *(n for arm in study.arms.values() for n in arm.get("backbones", ())),
    }
    if unused := sorted(study.inputs.keys() - named):
        raise UsageError(f"{path}: inputs: no arm and no judge uses {', '.join(unused)}.")
    seen: dict[str, Run] = {}
    for group in study.groups:
        keys = {"name", "images", "arms", "seeds"}
        _check_keys(path, "a group", group, keys, required=keys)
        for run in _runs_of(study, group, available):
            seen.setdefault(run.name, run)
    for run in seen.values():
        try:
            run.config  # noqa: B018 - checks every option
        except TypeError as error:
            raise UsageError(f"{path}: arm '{run.arm}': {error}.") from error
    return Study(**{**vars(study), "runs": tuple(seen.values())})


def longer(options: Mapping[str, Any], scale: float) -> dict[str, Any]:
    """Return an arm's options with all lengths multiplied."""
    if options.get("kimg"):
        return {**options, "kimg": options["kimg"] * scale}
    lengths = [float(part) * scale for part in options["stage_kimg"].split(",")]
    return {**options, "stage_kimg": ",".join(f"{length:g}" for length in lengths)}


def _runs_of(study: Study, group: Mapping[str, Any], available: int) -> Iterator[Run]:
    if group["images"] > available:
        raise UsageError(
            f"{study.path}: group '{group['name']}' wants {group['images']} images of {available}."
        )
    for seed in group["seeds"]:
        for arm in _flat(group["arms"]):
            if arm == WARMUP:
                raise UsageError(f"{study.path}: no arm can be called '{WARMUP}'.")
            if arm not in study.arms:
                raise UsageError(f"{study.path}: group '{group['name']}' has no arm '{arm}'.")
            options = {**study.train, **study.arms[arm]}
            backbones = options.pop("backbones", None)
            if not backbones or OWN_KEYS & options.keys():
                raise UsageError(
                    f"{study.path}: arm '{arm}' needs backbones, and none of {sorted(OWN_KEYS)}."
                )
            if study.scale != 1:
                options = longer(options, study.scale)
            options["seed"] = seed
            options["holdout"] = available - group["images"]
            options["track_probes"] = len(backbones) > 1 and seed in study.probe_seeds
            yield Run(
                name=f"{group['images']}-{arm}-s{seed}",
                arm=arm,
                images=group["images"],
                seed=seed,
                group=group["name"],
                options=options,
                backbones=backbones,
            )


def _flat(arms: Sequence[Any]) -> Iterator[str]:
    """Yield names of a list that may hold lists (anchors in YAML are lists in lists)."""
    for arm in arms:
        if isinstance(arm, list):
            yield from _flat(arm)
        else:
            yield arm


def _check_keys(path: Path, what: str, record: Any, known: set[str], *, required: set[str]) -> None:
    found = set(record) if isinstance(record, dict) else set()
    for text, keys in (("unknown", found - known), ("missing", required - found)):
        if keys:
            raise UsageError(f"{path}: {text} in {what}: {', '.join(sorted(keys))}.")


def read_json(path: Path) -> Any:
    """Return a JSON file's value, None where there is no file."""
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
