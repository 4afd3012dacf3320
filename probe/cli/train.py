"""`probe train`: a generator from a folder of images."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from probe.cli.options import with_options
from probe.training.config import TrainConfig


class Strategy(StrEnum):
    """How the discriminator ensemble is chosen."""

    NONE = "none"


@with_options("config", TrainConfig, "Training")
def train(
    *,
    real: Annotated[
        Path,
        typer.Option("--real", "--data", help="Folder or zip of images.", show_default=False),
    ],
    outdir: Annotated[Path, typer.Option(help="Run directories are made here.")] = Path("runs"),
    strategy: Annotated[
        Strategy, typer.Option(help="How discriminators are chosen; none: the GAN's own alone.")
    ] = Strategy.NONE,
    resume: Annotated[
        Path | None, typer.Option(help="Run directory to continue, with the same options.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32 or bf16.")] = "auto",
    quiet: Annotated[bool, typer.Option("--quiet/--no-quiet", help="No progress.")] = False,
    config: TrainConfig,
) -> None:
    """Train a StyleGAN2 generator on a folder of images."""
    from probe import api
    from probe.cli.progress import TrainLog

    snapshot = api.train(
        real,
        outdir=outdir,
        config=config,
        resume=resume,
        device=device,
        precision=precision,
        report=TrainLog(quiet=quiet),
    )
    typer.echo(snapshot)
