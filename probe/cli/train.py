"""`probe train`: train a generator on a folder of images, with discriminators chosen by probes."""

import os
import re
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

import probe
from probe.accel.memory import keep_freed_memory
from probe.cli.complete import backbones as complete_backbones
from probe.cli.complete import words
from probe.cli.launch import start_processes
from probe.cli.options import KINDS, Device, Quiet, number_option, with_options
from probe.cli.output import say
from probe.options import Range
from probe.training.config import TrainConfig


@with_options("config", TrainConfig, "Training")
def train(
    *,
    real: Annotated[
        str,
        typer.Option(
            "--real",
            "--data",
            help=f"Training images: {KINDS}.",
            show_default=False,
        ),
    ],
    outdir: Annotated[Path, typer.Option(help="Folder to create run directories in.")] = Path(
        "runs"
    ),
    init: Annotated[
        Path | None, typer.Option(help="StyleGAN2 checkpoint or snapshot to start from.")
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(help="Run directory to resume, or latest; repeating the command works too."),
    ] = None,
    bank: Annotated[
        Path | None,
        typer.Option(
            help="Model bank; ./modelbank.yaml or the packaged one.", rich_help_panel="Backbones"
        ),
    ] = None,
    backbones: Annotated[
        str | None,
        typer.Option(
            help="Those to choose from: names, patterns, presets, comma-separated.",
            autocompletion=complete_backbones,
            rich_help_panel="Backbones",
        ),
    ] = None,
    gpus: Annotated[
        int,
        typer.Option(
            help="Number of processes (GPUs, or CPU processes); the batch is split across them.",
            **number_option("--gpus", Range(1, 1024), whole=True),
        ),
    ] = 1,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run/--no-dry-run",
            "-n",
            help="Check everything, print the plan and its cost, and stop.",
        ),
    ] = False,
    hours: Annotated[
        float | None,
        typer.Option(
            help="Plan for so many hours on this machine: say how many kimg and stages fit and "
            "what to expect, print the command, and stop.",
            rich_help_panel="Schedule",
            **number_option("--hours", Range(0, 100_000, is_open=True), whole=False),
        ),
    ] = None,
    device: Device = "auto",
    precision: Annotated[
        str,
        typer.Option(help="auto, fp32 or bf16.", autocompletion=words(("auto", "fp32", "bf16"))),
    ] = "auto",
    offline: Annotated[
        bool,
        typer.Option(
            "--offline/--no-offline", help="Never download weights.", rich_help_panel="Backbones"
        ),
    ] = False,
    quiet: Quiet = False,
    config: TrainConfig,
) -> None:
    """Train a StyleGAN2 with discriminators chosen by probes."""
    if gpus > 1 and "WORLD_SIZE" not in os.environ:
        start_processes(gpus, device)
    keep_freed_memory()
    from probe.api.train import plan_training
    from probe.reports.train_progress import TrainLog

    dry_run = dry_run or hours is not None
    with TrainLog(quiet=quiet and not dry_run) as log:  # the plan is what a dry run is for
        common = {"config": config, "bank": bank, "backbones": backbones, "init": init,
                  "device": device, "precision": precision, "offline": offline}  # fmt: skip
        if dry_run:
            estimate = plan_training(real, **common, on_event=log)
            log.show_estimate(estimate, hours, _again)
            return
        snapshot = probe.train(real, outdir=outdir, resume=resume, **common, on_event=log)
    if os.environ.get("RANK", "0") == "0":
        say(snapshot)


def _again(kimg: float) -> str:
    """Return this command, as a training of a length."""
    kept, words = [], iter(sys.argv[1:])
    for word in words:
        if word in ("--hours", "--kimg", "--stage-kimg"):
            next(words, None)
        elif word not in ("-n", "--dry-run") and not re.match("--(hours|kimg|stage-kimg)=", word):
            kept.append(word)
    return shlex.join(["probe", *kept, "--kimg", f"{kimg:g}"])
