"""Check whether a run is possible here, before it costs hours."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from probe.bank.layers import one_each
from probe.bank.load import load_backbone
from probe.bank.spec import BackboneSpec
from probe.bank.weights.find import find_weights
from probe.devices import peak_gib
from probe.discriminators.gradient import generator_gradient
from probe.discriminators.member import discriminator_step
from probe.errors import BackboneUnavailable, UsageError
from probe.features.extract import pooled_features
from probe.missing import missing_summary
from probe.processes import Processes
from probe.training.candidates import Candidates
from probe.training.clock import Clock
from probe.training.config import TrainConfig
from probe.training.evaluation import sample_source
from probe.training.presets import Plan
from probe.training.run import RunInputs
from probe.training.session import open_session, open_stream
from probe.training.state import TrainState
from probe.training.step import train_step


def require_backbones(config: TrainConfig, candidates: Candidates, *, offline: bool) -> list[str]:
    """Check that enough of the bank's weights are available for the strategy.

    Returns:
        Notes for the user, as sentences.

    Raises:
        UsageError: fewer than k backbones are available (it names the missing ones), or the
            evaluator that the strategy needs is missing.
    """
    notes = []
    problems = missing(candidates.specs, offline=offline)
    if config.strategy != "none":
        able = one_each(spec.name for spec in candidates.specs if spec.name not in problems)
        if len(able) < config.k:
            names = f" ({', '.join(able)})" if able else ""
            reasons = "".join(f"\n  {line}" for line in missing_summary(problems))
            raise UsageError(
                f"--k: {config.k} backbones are wanted and {len(able)} can be used{names}."
                + (f" Missing:{reasons}" if reasons else " The bank has no more.")
            )
        if problems:
            notes += [f"Left out: {line}" for line in missing_summary(problems)]
    if not config.eval_num:
        return notes
    judge = candidates.evaluator
    if judge is None:
        if config.strategy != "none":
            raise UsageError(
                "The bank has no evaluator to choose the best snapshot with. Mark one entry with "
                "'role: evaluator', which keeps it from becoming a discriminator, or use the "
                "latest snapshot with --eval-num 0."
            )
        return [*notes, "The bank has no evaluator: no distances are measured."]
    absent = missing([judge], offline=offline)
    if absent:
        text = f"The evaluator {judge.name} is missing ({absent[judge.name]})"
        if config.strategy != "none":
            raise UsageError(f"{text}. Get it, or use the latest snapshot with --eval-num 0.")
        notes.append(f"{text}: no distances are measured.")
    return notes


def missing(specs: Sequence[BackboneSpec], *, offline: bool) -> dict[str, BackboneUnavailable]:
    """Return name → why, for the entries whose weights are not available."""
    problems = {}
    for spec in specs:
        try:
            find_weights(spec, offline=offline)
        except BackboneUnavailable as error:
            problems[spec.name] = error
    return problems


TIMED = 8  # images


@dataclass(frozen=True)
class Estimate:
    """The cost of a run on this machine, measured over a few steps.

    Attributes:
        own: seconds per thousand images for the GAN alone.
        each: backbone → extra seconds per thousand images; none if the strategy uses none.
        evaluation: seconds for each snapshot; 0 if none is evaluated.
        peak_gib: peak memory use, of the GPU or of the process.
    """

    own: float
    each: dict[str, float]
    evaluation: float
    peak_gib: float

    def hours(self, plan: Plan) -> tuple[float, float]:
        """Return the hours with the cheapest and with the most expensive backbones.

        Evaluation is counted; ranking comes on top.
        """
        low, high = (self._steps(plan, dear=dear) for dear in (False, True))
        evaluation = self.evaluation * _snapshots(plan)
        return (low + evaluation) / 3600, (high + evaluation) / 3600

    def fitting(self, hours: float, plan: Plan) -> float | None:
        """Return how many kimg fit some hours, stages in proportion; None if not even a batch does.

        Rounded down to two digits.
        """
        config, total = plan.config, plan.stage_ends[-1] / 1000
        each = self._steps(plan, dear=True) / total + self.evaluation / (config.tick * config.snap)
        kimg = (hours * 3600 - self.evaluation * len(plan.stage_ends)) / each
        if kimg * 1000 < config.batch:
            return None
        unit = 10.0 ** (math.floor(math.log10(kimg)) - 1)
        return float(f"{math.floor(kimg / unit) * unit:.3g}")

    def _steps(self, plan: Plan, *, dear: bool) -> float:
        """Return the seconds of all steps, with the cheapest or the most expensive backbones."""
        costs, seconds, start = sorted(self.each.values(), reverse=dear), 0.0, 0
        for end, k in zip(plan.stage_ends, plan.config.members_by_stage, strict=True):
            seconds += (end - start) / 1000 * (self.own + sum(costs[:k]))
            start = end
        return seconds


def _snapshots(plan: Plan) -> int:
    """Return how many snapshots a run takes: at regular intervals, and at the end of each stage."""
    every = plan.config.tick * plan.config.snap * 1000
    return int(plan.stage_ends[-1] // every) + sum(end % every > 0 for end in plan.stage_ends)


def estimate(run: RunInputs, state: TrainState) -> Estimate:
    """Time a step of the GAN, and of a discriminator on every available backbone.

    This trains the state a little, so pass one that will be thrown away.
    """
    # Measure with one process, even if several will share the batches.
    run = replace(run, ctx=replace(run.ctx, processes=Processes()))
    config, clock = run.plan.config, Clock(run.ctx.device)
    stream, session = open_stream(run), open_session(run, clock)

    def synchronise() -> float:
        if run.ctx.device.type == "cuda":
            torch.cuda.synchronize(run.ctx.device)
        return time.monotonic()

    # A full period of the regularisers, after one warm-up step.
    reals = stream.at(state.images)
    train_step(state, reals, session)
    started, steps = synchronise(), min(config.r1_interval, 16)
    for n in range(steps):
        reals = stream.at(state.images)
        train_step(state, reals, session)
        if n == 0 and synchronise() - started > 5:
            steps = 1  # enough if each step takes seconds
            break
    own = (synchronise() - started) / steps * 1000 / config.batch
    each = {}
    specs = run.candidates.specs if max(config.members_by_stage) else ()
    absent = missing(specs, offline=run.ctx.offline)
    for spec in specs:
        if spec.name in absent:
            continue
        member = run.member(spec.name)
        for n in range(2):  # the first warms up
            started = synchronise()
            step = session.step(n)
            generator_gradient([member], reals, step)
            discriminator_step(member, reals, reals, step)
        each[spec.name] = (synchronise() - started) * 1000 / config.batch
        del member
    return Estimate(own, each, _evaluation(run, state), peak_gib(run.ctx.device))


def _evaluation(run: RunInputs, state: TrainState) -> float:
    """Return the seconds that evaluating a snapshot takes, measured on a few of its images."""
    count, judge, ctx = run.plan.config.eval_num, run.candidates.evaluator, run.ctx
    if not count or judge is None:
        return 0.0
    backbone = load_backbone(judge, offline=ctx.offline, bn_images=ctx.bn_images).to(ctx.device)
    source = sample_source(state.average, run.reals, count=2 * TIMED, seed=0)

    def run_on(first: int) -> float:
        started = time.monotonic()
        images = source.load(range(first, first + TIMED), run.reals.resolution).images
        pooled_features(backbone, images, device=ctx.device, precision=ctx.precision)
        return time.monotonic() - started

    run_on(0)  # warms up
    return run_on(TIMED) / TIMED * count
