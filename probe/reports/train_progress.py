"""Output of `probe train`: a live line on a terminal, plain lines in a log, and log.txt."""

import math
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from probe.errors import printable
from probe.events import (
    BackboneFailed,
    Event,
    ExtractionStarted,
    InputRead,
    Note,
    RunPlanned,
    SnapshotSaved,
    SnapshotStarted,
    StageStarted,
    StepDone,
    TickDone,
)
from probe.figures import duration
from probe.reports.progress import Bar, extraction_size
from probe.reports.remaining import RankWork, Schedule, TrainWork
from probe.run_files import LOG_FILE

NIGHT = 8.0  # hours


class TrainLog(Bar):
    """Shows the events of `probe.train`, and writes the lines to the run's log.txt."""

    def __init__(self, *, quiet: bool) -> None:
        super().__init__(quiet=quiet)
        self.file: Path | None = None
        self.work = TrainWork()
        self.ranking: RankWork | None = None
        self.plan: Any = None
        self.spent: dict[str, float] = {}
        self.kimg = 0.0

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove the bar, and print how the time was spent."""
        super().__exit__(kind, error, trace)
        if self.spent and kind is None:
            total = sum(self.spent.values())
            parts = sorted(self.spent.items(), key=lambda item: -item[1])
            shares = ", ".join(f"{name} {seconds / total:.0%}" for name, seconds in parts)
            self.say(f"Time in steps: {shares}.")

    def __call__(self, event: Event) -> None:
        """Show an event of `probe.train`."""
        match event:
            case RunPlanned():
                self._show_plan(event)
            case InputRead():
                self.read(event)
            case Note(text):
                self.say(text)
            case StepDone(images, total):
                self.work.step(images, total)
            case SnapshotStarted():
                self.work.evaluating()
            case TickDone():
                self._show_tick(event)
            case SnapshotSaved():
                self._show_snapshot(event)
            case StageStarted():
                self._show_stage(event)
            case ExtractionStarted():
                self.say(f"ranking: {extraction_size(event)}")
                self.work.ranking()
                self.ranking = self.ranking or RankWork()
            case BackboneFailed(name, reason):
                self.say(f"  {name}: {reason}")
        if self.ranking is not None:
            self.ranking.see(event)
        self._move()

    def say(self, text: str) -> None:
        """Write a line to the terminal, and to the run's log.txt."""
        super().say(text)
        if self.file is not None:
            with self.file.open("a", encoding="utf-8", errors="backslashreplace") as f:
                f.write(printable(text, lines=True) + "\n")

    def _show_plan(self, event: RunPlanned) -> None:
        self.plan, record = event.plan, event.record
        folder = Path(event.folder)
        if folder != Path():
            self.file = folder / LOG_FILE
            self.say(f"Run directory: {folder}")
        config, real = self.plan.config, record["real"]
        every = config.tick * config.snap * 1000
        self.work.plan(
            Schedule(every, self.plan.stage_ends, config.members_by_stage, config.eval_num)
        )
        held = f", {real['holdout']} held out" if real["holdout"] else ""
        classes = f", {record['classes']} classes" if record["classes"] else ""
        self.say(
            f"{real['training']} training images at {record['resolution']} px{classes}{held}; "
            f"{record['precision']} on {record['device']}"
            + (f", {record['processes']} processes" if record["processes"] > 1 else "")
        )
        for name, (value, why) in self.plan.reasons.items():
            shown = f"{value:.4g}" if isinstance(value, float) else value
            self.say(f"  {name.replace('_', '-'):<14} {shown!s:<18} {why}")
        ends = " → ".join(f"{end:g}" for end in record["stage_ends_kimg"])
        chosen = "" if config.strategy == "none" else f", k {config.k}"
        self.say(f"Strategy {config.strategy}{chosen}; stages end at kimg {ends}")
        for note in event.notes:
            self.say(note)

    def _move(self) -> None:
        """Show how many images were seen in which stage, what goes on, and the time left."""
        work = self.work
        if not work.total:
            return
        text = f"kimg {kimg_text(work.images, work.total)}/{work.total / 1000:g}"
        if len(self.plan.stage_ends) > 1:
            text += f", stage {work.stage} of {len(self.plan.stage_ends) - 1}"
        doing = work.doing
        if self.ranking is not None:
            doing = f"{doing}: {self.ranking.doing}, {self.ranking.share():.0%}"
        self.move(work.images / work.total, f"{text}, {doing}", work.left())

    def _show_tick(self, event: TickDone) -> None:
        found, best = event.statistics, event.best
        p = [f"{value:.3f}" for name, value in found.items() if name.startswith("Progress/augment")]
        heads = [
            f"{name} {found[f'Loss/G/{name}']:.2f}/{found[f'Loss/D/{name}']:.2f}"
            for name in event.members
            if f"Loss/G/{name}" in found
        ]
        pace, kimg = found["Timing/sec_per_kimg"], found["Progress/kimg"]
        left = self.work.left()
        left = duration(max(0, event.total / 1000 - kimg) * pace if left is None else left)
        shown = kimg_text(round(kimg * 1000), event.total)
        self.say(
            f"kimg {shown:<8} stage {found['Progress/stage']:.0f}  "
            f"sec/kimg {pace:<7.1f} left {left:<9} "
            f"loss G {found['Loss/G/loss']:<6.3f} D {found['Loss/D/loss']:<6.3f} "
            + (f"heads G/D {', '.join(heads)}  " if heads else "")
            + (f"p {' '.join(p)}  " if p else "")
            + (
                f"best {best[1]:.4g} at {kimg_text(round(best[0] * 1000), event.total)}"
                if best
                else ""
            )
        )
        for name, value in found.items():
            part = name.removeprefix("Timing/")
            if name.startswith("Timing/") and part not in ("sec_per_kimg", "images_per_sec"):
                self.spent[part] = self.spent.get(part, 0.0) + value * (kimg - self.kimg)
        self.kimg = kimg

    def _show_snapshot(self, event: SnapshotSaved) -> None:
        found = event.results
        self.work.evaluated(event.seconds)
        shown = kimg_text(round(event.kimg * 1000), self.work.total)
        text = f"kimg {shown:<8} {Path(event.path).name}"
        if "frechet" in found:
            text += (
                f"  Fréchet {found['frechet']:.4g}  kernel {found['kernel']:.3g} "
                f"[{found['kernel_low']:.3g}, {found['kernel_high']:.3g}]"
            )
        rates = [f"{found[f'Accuracy/D/{k}']:.2f}" for k in ("train", "holdout", "fake")
                 if f"Accuracy/D/{k}" in found]  # fmt: skip
        kinds = "train/held out/fake" if len(rates) == 3 else "train/fake"
        self.say(f"{text}  D is right on {kinds} {'/'.join(rates)}  ({event.seconds:.0f} s)")

    def _show_stage(self, event: StageStarted) -> None:
        added = ", ".join(event.added) or "nothing (no backbone tells the two sets apart)"
        smoothed = [name for name in event.added if name in event.smoothed]
        smooth = f"; real targets smoothed for {', '.join(smoothed)}" if smoothed else ""
        shown = kimg_text(round(event.kimg * 1000), self.work.total)
        self.say(f"kimg {shown:<8} stage {event.stage} on {event.snapshot}: {added} joins{smooth}")
        self.work.begin_stage(event.stage)
        self.ranking = None

    def show_estimate(
        self, estimate: Any, hours: float | None, again: Callable[[float], str]
    ) -> None:
        """Print what a run would cost, and what fits the hours there are.

        Args:
            estimate: see `probe.training.availability.Estimate`.
            hours: there are; None advises a night if the run takes longer.
            again: kimg → the command that trains for so long.
        """
        self.say(f"Measured here: {estimate.own:.1f} s/kimg for the GAN alone")
        for name, seconds in estimate.each.items():
            self.say(f"  + {seconds:.1f} s/kimg with {name}")
        if estimate.evaluation:
            self.say(f"  + {duration(estimate.evaluation)} to evaluate each snapshot")
        low, high = estimate.hours(self.plan)
        span = duration(low * 3600)
        if not math.isclose(low, high, rel_tol=0.05):
            span = f"{span} to {duration(high * 3600)}"
        total = self.plan.stage_ends[-1] / 1000
        self.say(
            f"{total:g} kimg take about {span}, ranking not counted; "
            f"memory {estimate.peak_gib:.1f} GiB. Nothing was written."
        )
        if hours is not None or high > NIGHT:
            self._advise(estimate, NIGHT if hours is None else hours, again)

    def _advise(self, estimate: Any, hours: float, again: Callable[[float], str]) -> None:
        """Print what fits some hours here, what to expect of it, and the command."""
        kimg, total = estimate.fitting(hours, self.plan), self.plan.stage_ends[-1] / 1000
        if kimg is None:
            self.say(
                f"{hours:g} hours are too few for this network here. A smaller --resolution, or "
                "--eval-num 0, needs less."
            )
            return
        ends = [end / 1000 * kimg / total for end in self.plan.stage_ends]
        stages = (
            "" if len(ends) == 1 else f", stages ending at {', '.join(f'{e:.3g}' for e in ends)}"
        )
        self.say(f"{hours:g} h here are about {kimg:g} kimg{stages}. {_expected(kimg / total)}")
        self.say(f"  {again(kimg)}")


def _expected(share: float) -> str:
    """Return what to expect of a run that is this share of the one that was planned."""
    if share >= 1:
        return "That is the whole schedule: the best snapshot may come before its end."
    if share >= 0.3:
        return f"That is {share:.0%} of the schedule: expect most of the quality that it reaches."
    if share >= 0.03:
        return (
            f"That is {share:.0%} of the schedule: expect the right shapes and colours, in images "
            "that still improve when it ends."
        )
    return (
        f"That is {share:.1%} of the schedule: expect a trial that shows whether everything works, "
        "not good images. A smaller --resolution gets much further in the same time."
    )


def kimg_text(images: int, total: int) -> str:
    """Return thousands of images, with as many digits as tell one log line from the next."""
    digits = 3 if total < 10_000 else 2 if total < 100_000 else 1
    return f"{images / 1000:.{digits}f}"
