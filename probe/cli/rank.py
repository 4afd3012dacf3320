"""`probe rank`: the leaderboard."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

import probe
from probe.accel.memory import keep_freed_memory
from probe.cli.options import GEN, REAL, Backbones, BankPath, Device, Offline, Quiet, with_options
from probe.cli.output import show_view
from probe.errors import UsageError, printable
from probe.generators.config import SampleOptions
from probe.options import changed_flags
from probe.probing.config import RankOptions


class OutputFormat(StrEnum):
    """Output formats of the leaderboard on stdout."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    MARKDOWN = "markdown"


@with_options("sample", SampleOptions, "Sampling a checkpoint")
@with_options("options", RankOptions, "Ranking")
def rank(
    *,
    real: Annotated[str | None, REAL] = None,
    gen: Annotated[str | None, GEN] = None,
    features: Annotated[
        list[str] | None,
        typer.Option(
            "--features",
            metavar="[NAME=]FILE",
            help="One backbone's features, in place of images and bank: an .npz or .safetensors "
            "file with the arrays 'real' (N, d) and 'fake' (M, d). Repeat it for each backbone.",
            show_default=False,
        ),
    ] = None,
    bank: BankPath = None,
    backbones: Backbones = None,
    out: Annotated[
        Path | None, typer.Option("--out", "--outdir", help="Folder to write all results to.")
    ] = None,
    format: Annotated[OutputFormat, typer.Option(help="Output format.")] = OutputFormat.TABLE,
    device: Device = "auto",
    offline: Offline = False,
    quiet: Quiet = False,
    options: RankOptions,
    sample: SampleOptions,
) -> None:
    """Rank backbones by how well they tell real images from generated ones."""
    from probe.reports.progress import Progress
    from probe.reports.rank_table import render

    keep_freed_memory()
    with Progress(quiet=quiet) as progress:
        if features:
            of_images = {"--real": real, "--gen": gen, "--bank": bank, "--backbones": backbones}
            given = [flag for flag, value in of_images.items() if value is not None]
            given += ["--device"] * (device != "auto") + ["--offline"] * offline
            _refuse([*given, *changed_flags(sample).values()])
            ranking = probe.rank_features(
                _named(features), options=options, out=out, on_event=progress
            )
        elif real is None or gen is None:
            raise UsageError("--real and --gen are needed, or --features in their place.")
        else:
            ranking = probe.rank(
                real,
                gen,
                bank=bank,
                backbones=backbones,
                options=options,
                sample=sample,
                out=out,
                device=device,
                offline=offline,
                on_event=progress,
            )
    if ranking is None:  # another torchrun process prints it
        return
    show_view(render(list(ranking.leaderboards.values()), format.value))
    raise typer.Exit(ranking.leaderboard.exit_code)


def _refuse(flags: list[str]) -> None:
    """Refuse flags that mean nothing beside --features.

    Raises:
        UsageError: there are any.
    """
    if flags:
        raise UsageError(
            f"{', '.join(flags)}: --features takes the place of images and bank. Leave one of the "
            "two out."
        )


def _named(given: list[str]) -> dict[str, Path]:
    """Return name → file of every NAME=FILE or FILE, whose stem is then the name.

    Raises:
        UsageError: two files have one name.
    """
    files: dict[str, Path] = {}
    for text in given:
        name, equals, rest = text.partition("=")
        path = Path(text)
        if equals and not path.exists():  # a path may have "=" in it
            path = Path(rest)
        else:
            name = path.stem
        if name in files:
            raise UsageError(
                f"--features: {files[name]} and {path} are both called '{printable(name, 100)}'. "
                "Name them with NAME=FILE."
            )
        files[name] = path
    return files
