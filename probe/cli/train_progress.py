"""Output of `probe train`: a live line on a terminal, plain lines in a log, and log.txt."""

import math
from pathlib import Path
from types import TracebackType
from typing import Any

from rich import progress as rich_progress

from probe.cli.output import say
from probe.cli.progress import Bars
from probe.errors import printable
from probe.events import (
    BackboneFailed,
    Event,
    ExtractionStarted,
    Note,
    RunPlanned,
    SnapshotSaved,
    StageStarted,
    StepDone,
    TickDone,
)
from probe.run_files import LOG_FILE


class TrainLog(Bars):
    """Shows the events of `probe.train`."""

    def __init__(self, *, quiet: bool) -> None:
        column = rich_progress.TextColumn("{task.fields[kimg]}")
        super().__init__(column, quiet=quiet, period=600)
        self.file: Path | None = None
        self.task: rich_progress.TaskID | None = None
        self.stage = "training"
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
            case Note(text):
                self.say(text)
            case StepDone():
                self._move(event)
            case TickDone():
                self._show_tick(event)
            case SnapshotSaved():
                self._show_snapshot(event)
            case StageStarted():
                self._show_stage(event)
            case ExtractionStarted(kind, count):
                self.say(f"ranking: {count} {kind} images, {len(event.backbones)} backbones")
                self.stage = f"ranking, {kind} images"
            case BackboneFailed(name, reason):
                self.say(f"  {name}: {reason}")

    def say(self, text: str) -> None:
        """Write a line to the terminal, and to the run's log.txt."""
        text = printable(text, lines=True)
        if not self.quiet:
            if self.live:
                self.console.print(text, markup=False)
            else:
                say(text, err=True)
        if self.file is not None:
            with self.file.open("a", encoding="utf-8", errors="backslashreplace") as f:
                f.write(text + "\n")

    def _show_plan(self, event: RunPlanned) -> None:
        self.plan, record = event.plan, event.record
        folder = Path(event.folder)
        if folder != Path():
            self.file = folder / LOG_FILE
            self.say(f"Run directory: {folder}")
        config, real = self.plan.config, record["real"]
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

    def _move(self, event: StepDone) -> None:
        if not self.live:
            return
        if self.task is None:
            self.task = self.bars.add_task(self.stage, total=event.total, kimg="")
        self.bars.update(
            self.task,
            completed=event.images,
            total=event.total,
            description=self.stage,
            kimg=f"{event.images / 1000:.1f}/{event.total / 1000:g} kimg",
        )

    def _show_tick(self, event: TickDone) -> None:
        found, best = event.statistics, event.best
        p = [f"{value:.3f}" for name, value in found.items() if name.startswith("Progress/augment")]
        heads = [
            f"{name} {found[f'Loss/G/{name}']:.2f}/{found[f'Loss/D/{name}']:.2f}"
            for name in event.members
            if f"Loss/G/{name}" in found
        ]
        pace, kimg = found["Timing/sec_per_kimg"], found["Progress/kimg"]
        left = _duration(max(0, event.total / 1000 - kimg) * pace / 3600)
        self.say(
            f"kimg {kimg:<8.1f} stage {found['Progress/stage']:.0f}  "
            f"sec/kimg {pace:<7.1f} left {left:<9} "
            f"loss G {found['Loss/G/loss']:<6.3f} D {found['Loss/D/loss']:<6.3f} "
            + (f"heads G/D {', '.join(heads)}  " if heads else "")
            + (f"p {' '.join(p)}  " if p else "")
            + (f"best {best[1]:.4g} at {best[0]:.1f}" if best else "")
        )
        for name, value in found.items():
            part = name.removeprefix("Timing/")
            if name.startswith("Timing/") and part not in ("sec_per_kimg", "images_per_sec"):
                self.spent[part] = self.spent.get(part, 0.0) + value * (kimg - self.kimg)
        self.kimg = kimg
        self.stage = f"stage {found['Progress/stage']:.0f}, kimg {kimg:.1f}"

    def _show_snapshot(self, event: SnapshotSaved) -> None:
        found = event.results
        text = f"kimg {event.kimg:<8.1f} {Path(event.path).name}"
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
        self.say(
            f"kimg {event.kimg:<8.1f} stage {event.stage} on {event.snapshot}: "
            f"{added} joins{smooth}"
        )
        self.stage = f"stage {event.stage}"

    def show_estimate(self, estimate: Any) -> None:
        """Print what a run would cost, from a `probe.training.availability.Estimate`."""
        config, ends = self.plan.config, self.plan.stage_ends
        low, high = estimate.hours(ends, config.members_by_stage)
        self.say(f"Measured here: {estimate.own:.1f} s/kimg for the GAN alone")
        for name, seconds in estimate.each.items():
            self.say(f"  + {seconds:.1f} s/kimg with {name}")
        span = (
            _duration(low) if math.isclose(low, high) else f"{_duration(low)} to {_duration(high)}"
        )
        self.say(
            f"{ends[-1] / 1000:g} kimg take about {span}, evaluation and ranking not counted; "
            f"memory {estimate.peak_gib:.1f} GiB. Nothing was written."
        )


def _duration(hours: float) -> str:
    if hours < 1:
        return f"{hours * 60:.0f} min"
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days"
