"""What `probe train` shows: a live line on a terminal, plain lines in a log, log.txt always."""

import math
from pathlib import Path
from types import TracebackType
from typing import Any

from rich import progress as rich_progress
from rich.console import Console

from probe.cli.output import say
from probe.errors import printable


class TrainLog:
    """Takes the records of `probe.api.train`; see `probe.training.loop`."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self.console = Console(stderr=True, highlight=False)
        self.live = self.console.is_terminal and not quiet
        self.file: Path | None = None
        self.bar = rich_progress.Progress(
            rich_progress.TextColumn("{task.description}"),
            rich_progress.BarColumn(),
            rich_progress.TextColumn("{task.fields[kimg]}"),
            rich_progress.TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.live,
            speed_estimate_period=600,
        )
        self.task: rich_progress.TaskID | None = None
        self.stage = "training"
        self.plan: Any = None
        self.spent: dict[str, float] = {}
        self.kimg = 0.0

    def __enter__(self) -> "TrainLog":
        """Start the live line."""
        if self.live:  # rich before 14.3 ends a hidden bar with an empty line
            self.bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove the live line, and say where the time went."""
        if self.live:
            self.bar.stop()
        if self.spent and kind is None:
            total = sum(self.spent.values())
            parts = sorted(self.spent.items(), key=lambda item: -item[1])
            shares = ", ".join(f"{name} {seconds / total:.0%}" for name, seconds in parts)
            self.say(f"Time in steps: {shares}.")

    def __call__(self, record: dict[str, Any]) -> None:
        """Take one record."""
        handler = getattr(self, f"_on_{record['event']}", None)
        if handler is not None:
            handler(record)

    def say(self, text: str) -> None:
        """Write a line to the terminal, and to the run's log.txt."""
        text = printable(text, lines=True)
        if not self.quiet:
            if self.live:
                self.bar.console.print(text, markup=False)
            else:
                say(text, err=True)
        if self.file is not None:
            with self.file.open("a", encoding="utf-8", errors="backslashreplace") as f:
                f.write(text + "\n")

    def _on_plan(self, record: dict[str, Any]) -> None:
        self.plan = record["plan"]
        folder = Path(record["folder"])
        if folder != Path():
            self.file = folder / "log.txt"
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
        for note in record["notes"]:
            self.say(note)

    def _on_note(self, record: dict[str, Any]) -> None:
        self.say(record["text"])

    def _on_step(self, record: dict[str, Any]) -> None:
        if not self.live:
            return
        if self.task is None:
            self.task = self.bar.add_task(self.stage, total=record["total"], kimg="")
        done, total = record["images"] / 1000, record["total"] / 1000
        self.bar.update(
            self.task,
            completed=record["images"],
            total=record["total"],
            description=self.stage,
            kimg=f"{done:.1f}/{total:g} kimg",
        )

    def _on_tick(self, record: dict[str, Any]) -> None:
        p = [f"{record[key]:.3f}" for key in record if key.startswith("Progress/augment")]
        heads = [
            f"{name} {record[f'Loss/G/{name}']:.2f}/{record[f'Loss/D/{name}']:.2f}"
            for name in record["members"]
            if f"Loss/G/{name}" in record
        ]
        best = record["best"]
        pace = record["Timing/sec_per_kimg"]
        left = _duration(max(0, record["total"] / 1000 - record["Progress/kimg"]) * pace / 3600)
        self.say(
            f"kimg {record['Progress/kimg']:<8.1f} stage {record['Progress/stage']:.0f}  "
            f"sec/kimg {pace:<7.1f} left {left:<9} "
            f"loss G {record['Loss/G/loss']:<6.3f} D {record['Loss/D/loss']:<6.3f} "
            + (f"heads G/D {', '.join(heads)}  " if heads else "")
            + (f"p {' '.join(p)}  " if p else "")
            + (f"best {best[1]:.4g} at {best[0]:.1f}" if best else "")
        )
        kimg = record["Progress/kimg"]
        for name, value in record.items():
            part = name.removeprefix("Timing/")
            if name.startswith("Timing/") and part not in ("sec_per_kimg", "images_per_sec"):
                self.spent[part] = self.spent.get(part, 0.0) + value * (kimg - self.kimg)
        self.kimg = kimg
        self.stage = f"stage {record['Progress/stage']:.0f}, kimg {kimg:.1f}"

    def _on_snapshot(self, record: dict[str, Any]) -> None:
        text = f"kimg {record['kimg']:<8.1f} {Path(record['path']).name}"
        if "frechet" in record:
            text += (
                f"  Fréchet {record['frechet']:.4g}  kernel {record['kernel']:.3g} "
                f"[{record['kernel_low']:.3g}, {record['kernel_high']:.3g}]"
            )
        rates = [f"{record[f'Accuracy/D/{k}']:.2f}" for k in ("train", "holdout", "fake")
                 if f"Accuracy/D/{k}" in record]  # fmt: skip
        kinds = "train/held out/fake" if len(rates) == 3 else "train/fake"
        self.say(f"{text}  D is right on {kinds} {'/'.join(rates)}  ({record['seconds']:.0f} s)")

    def _on_stage(self, record: dict[str, Any]) -> None:
        added = ", ".join(record["added"]) or "nothing (no backbone tells the two sets apart)"
        smoothed = [name for name in record["added"] if name in record["smoothed"]]
        smooth = f"; real targets smoothed for {', '.join(smoothed)}" if smoothed else ""
        self.say(
            f"kimg {record['kimg']:<8.1f} stage {record['stage']} on {record['snapshot']}: "
            f"{added} joins{smooth}"
        )
        self.stage = f"stage {record['stage']}"

    def _on_start(self, record: dict[str, Any]) -> None:
        kind, count = record["class"], record["images"]
        self.say(f"ranking: {count} {kind} images, {len(record['backbones'])} backbones")
        self.stage = f"ranking, {kind} images"

    def _on_failed(self, record: dict[str, Any]) -> None:
        self.say(f"  {record['backbone']}: {record['reason']}")

    def show_estimate(self, estimate: Any) -> None:
        """Say what a run would cost: a `probe.training.availability.Estimate`."""
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
