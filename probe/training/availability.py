"""Check whether a run is possible here, before it costs hours."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from probe.bank.spec import BackboneSpec
from probe.bank.weights.find import find_weights
from probe.devices import peak_gib
from probe.discriminators.member import discriminator_step, generator_gradient
from probe.errors import BackboneUnavailable, UsageError
from probe.missing import missing_summary
from probe.processes import Processes
from probe.training.candidates import Candidates
from probe.training.clock import Clock
from probe.training.config import TrainConfig
from probe.training.run import Run
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
        able = [spec.name for spec in candidates.specs if spec.name not in problems]
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


@dataclass(frozen=True)
class Estimate:
    """The cost of a run on this machine, measured over a few steps.

    Attributes:
        own: seconds per thousand images for the GAN alone.
        each: backbone → extra seconds per thousand images.
        peak_gib: peak memory use, of the GPU or of the process.
    """

    own: float
    each: dict[str, float]
    peak_gib: float

    def hours(self, plan_ends: Sequence[int], k_by_stage: Sequence[int]) -> tuple[float, float]:
        """Return the hours with the cheapest and with the most expensive backbones.

        Evaluation and ranking come on top.
        """
        cheap, total_low, total_high, start = sorted(self.each.values()), 0.0, 0.0, 0
        for end, k in zip(plan_ends, k_by_stage, strict=True):
            kimg = (end - start) / 1000
            total_low += kimg * (self.own + sum(cheap[:k]))
            total_high += kimg * (self.own + sum(cheap[len(cheap) - k :] if k else []))
            start = end
        return total_low / 3600, total_high / 3600


def estimate(run: Run, state: TrainState) -> Estimate:
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
    absent = missing(run.candidates.specs, offline=run.ctx.offline)
    for spec in run.candidates.specs:
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
    return Estimate(own, each, peak_gib(run.ctx.device))
