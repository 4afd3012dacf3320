"""Fill in open options: presets by name, or "auto" by resolution, batch and number of images.

The paper* presets and the schedules follow the code of Kumari et al. 2022; the small ones are ours.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from probe.errors import UsageError
from probe.training.config import ResolvedConfig, TrainConfig

# Channel bases are 32768 times that code's channel multiplier.
_PAPER = {"ema_rampup": 0.0, "map_layers": 8, "mbstd_group": 4, "batch": 16, "pl_weight": 2.0,
          "style_mixing": 0.9, "channel_max": 512, "lr": 0.002,
          "d_architecture": "resnet"}  # fmt: skip
_SMALL = {"ema_rampup": 0.05, "map_layers": 2, "pl_weight": 0.0, "style_mixing": 0.0, "lr": 0.0025,
          "d_architecture": "resnet"}  # fmt: skip
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "paper256": {**_PAPER, "channel_base": 16384, "gamma": 1.0, "ema_kimg": 10.0},
    "paper256_2fmap": {**_PAPER, "channel_base": 32768, "gamma": 1.0, "ema_kimg": 10.0},
    "paper512": {**_PAPER, "channel_base": 32768, "gamma": 0.5, "ema_kimg": 20.0, "lr": 0.0025},
    "paper1024": {**_PAPER, "channel_base": 32768, "gamma": 2.0, "ema_kimg": 10.0},
    "stylegan2": {**_PAPER, "channel_base": 32768, "gamma": 10.0, "ema_kimg": 10.0},
    "cifar": {**_SMALL, "batch": 64, "mbstd_group": 32, "channel_base": 32768, "channel_max": 512,
              "gamma": 0.01, "ema_kimg": 500.0, "d_architecture": "orig"},
    "small32": {**_SMALL, "batch": 32, "mbstd_group": 4, "channel_base": 2048,
                "channel_max": 256, "gamma": 0.02, "ema_kimg": 10.0},
    "small64": {**_SMALL, "batch": 32, "mbstd_group": 4, "channel_base": 4096,
                "channel_max": 256, "gamma": 0.1, "ema_kimg": 10.0},
}  # fmt: skip

GROUP = 4  # images, of minibatch-std
# Length by image count (maximum images; warm-up, first stage, each later stage, in kimg).
SCHEDULES = (
    (500, 200.0, 1000.0, 1000.0),
    (1000, 500.0, 4000.0, 1000.0),
    (None, 500.0, 8000.0, 2000.0),
)


@dataclass(frozen=True)
class Plan:
    """The resolved options and schedule.

    Attributes:
        config: every option with a value.
        stage_ends: images seen at the end of each stage, warm-up first.
        reasons: option → (value, why), for options chosen here.
    """

    config: ResolvedConfig
    stage_ends: tuple[int, ...]
    reasons: dict[str, tuple[Any, str]]


def make_plan(
    config: TrainConfig,
    *,
    resolution: int,
    images: int,
    processes: int = 1,
    inherited: bool = False,
) -> Plan:
    """Fill in the options the user left open.

    Args:
        config: options given by the user.
        resolution: side of the training images, in pixels.
        images: number of training images.
        processes: number of processes that split each batch.
        inherited: whether training starts from given networks, which need neither a warm-up nor
            a ramp-up of their weight average.

    Raises:
        UsageError: the batch does not divide by processes and minibatch-std groups, or no channels
            are left at the resolution.
    """
    preset, why = _preset(config, resolution, processes)
    preset["resolution"], why["resolution"] = resolution, "the images' own"
    if inherited:
        # A ramp-up discards a young average, but this one is as old as the file's training.
        preset["ema_rampup"], why["ema_rampup"] = 0.0, "--init brings a weight average"
    given = vars(config)
    chosen = {k: v for k, v in preset.items() if given[k] is None}
    resolved = ResolvedConfig(**{**given, **chosen})
    _check_fit(resolved, resolution, processes)
    lengths, reason = stage_lengths(config, images, inherited)
    reasons = {k: (v, why[k]) for k, v in chosen.items()}
    if reason:
        reasons["stage_kimg"] = (",".join(f"{length:g}" for length in lengths), reason)
    ends = accumulate(length * 1000 for length in lengths)
    return Plan(resolved, tuple(round(end) for end in ends), reasons)


def _preset(
    config: TrainConfig, resolution: int, processes: int
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the values of the preset in use, and why."""
    name = config.cfg
    if name == "auto" and resolution <= 64:
        name = "small32" if resolution <= 32 else "small64"
    if name == "auto":
        whole = min(processes * min(4096 // resolution, 32), 64)
        return _auto(resolution, config.batch or _divisible(whole, processes), processes)
    preset = dict(PRESETS[name])
    why = dict.fromkeys(preset, f"preset {name}")
    batch = config.batch or _divisible(preset["batch"], processes)
    if batch != preset["batch"]:
        # The preset's value assumes its own batch size.
        preset["gamma"] = preset["gamma"] * preset["batch"] / batch
        why["gamma"] = f"preset {name}'s {PRESETS[name]['gamma']:g}, scaled to the batch"
        preset["mbstd_group"] = min(preset["mbstd_group"], max(1, batch // processes))
        why["batch"] = f"preset {name}'s {preset['batch']}, shared out over {processes} processes"
        preset["batch"] = batch
    return preset, why


def _divisible(batch: int, processes: int) -> int:
    """Return the batch nearest below that divides over processes and groups of four images."""
    each = max(1, batch // processes)
    return processes * (each if each < GROUP else each - each % GROUP)


def _check_fit(config: ResolvedConfig, resolution: int, processes: int) -> None:
    """Check that the widths fit the resolution, and the batch its processes and groups.

    Raises:
        UsageError: they do not fit.
    """
    if config.channel_base < resolution:
        raise UsageError(
            f"--channel-base: {config.channel_base} leaves no channel at {resolution} px; use "
            f"{resolution} or more."
        )
    if config.batch % processes:
        raise UsageError(f"--batch: {config.batch} does not divide over {processes} processes.")
    each = config.batch // processes
    if each % min(config.mbstd_group, each):
        raise UsageError(
            f"--batch: {each} images per process do not divide into groups of "
            f"{config.mbstd_group} (--mbstd-group)."
        )


def _auto(resolution: int, batch: int, processes: int) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the values that "auto" computes, and why."""
    each = max(1, batch // processes)
    values = {
        "batch": (batch, "min(4096 / resolution, 32) per process, at most 64"),
        "mbstd_group": (min(each, GROUP), "at most 4, and the batch of one process"),
        "channel_base": (32768 if resolution >= 512 else 16384, "by resolution"),
        "channel_max": (512, "always"),
        "d_architecture": ("resnet", "always"),
        "lr": (0.002 if resolution >= 1024 else 0.0025, "by resolution"),
        "gamma": (0.0002 * resolution**2 / batch, "0.0002 · resolution² / batch"),
        "ema_kimg": (batch * 10 / 32, "batch · 10 / 32"),
        "ema_rampup": (0.05, "always"),
        "map_layers": (2, "always"),
        "pl_weight": (2.0, "always"),
        "style_mixing": (0.9, "always"),
    }
    return {k: v for k, (v, _) in values.items()}, {k: why for k, (_, why) in values.items()}


def stage_lengths(
    config: TrainConfig, images: int, inherited: bool = False
) -> tuple[list[float], str]:
    """Return the length of each stage in kimg, and why; the reason is "" if the user gave them.

    `kimg` alone keeps the proportions of the default schedule, so that strategies can be compared
    at equal length.
    """
    if config.stage_kimg is not None:
        return config.stage_lengths(), ""
    limit, warmup, first, later = next(s for s in SCHEDULES if s[0] is None or images <= s[0])
    warmup = 0.0 if inherited else warmup
    stages = [first, *[later] * (config.k - 1)]
    lengths = {"none": [warmup + sum(stages)], "fixed": [warmup, sum(stages)]}.get(
        config.strategy, [warmup, *stages]
    )
    count = f"{images} images are " + (f"at most {limit}" if limit else "more than 1000")
    if config.kimg is None:
        return lengths, count
    scale = config.kimg / sum(lengths)
    lengths = [length * scale for length in lengths]
    return lengths, "" if len(lengths) == 1 else f"--kimg shared out as for {count}"
