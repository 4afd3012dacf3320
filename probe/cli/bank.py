"""`probe bank`: list, check, download and add entries of the model bank."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from probe.cli.complete import entries
from probe.cli.help import App
from probe.cli.options import Backbones, BankPath
from probe.cli.output import say, show_view

if TYPE_CHECKING:
    from probe.bank.spec import BackboneSpec

app = App(help="List, check, fetch and extend the model bank.")


@app.command("list")
def list_entries(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Names, patterns, presets, licences: @commercial, @mit; default all."),
    ] = None,
    bank: BankPath = None,
) -> None:
    """List entries and whether their weights are installed."""
    from probe.bank.file import load_bank
    from probe.bank.spec import Misplaced
    from probe.reports.text import columns_of, text_table

    found = load_bank(bank)
    specs = found.select(names or None)
    rows = [(s.name, _weights(s), s.role, s.task, s.data, s.license) for s in specs]
    headings = ("backbone", "weights", "role", "task", "pretraining data", "weights licence")
    show_view(text_table(columns_of(headings, rows)))
    say(f"{len(rows)} entr{'y' if len(rows) == 1 else 'ies'} of {found.path}", err=True)
    for spec in specs:
        if isinstance(spec.weights, Misplaced):
            say(spec.weights.mistake, err=True)


def _weights(spec: "BackboneSpec") -> str:
    """Return "random", "here" or "missing"."""
    from probe.bank.weights.find import find_weights
    from probe.errors import BackboneUnavailable

    if spec.role == "control":
        return "random"
    try:
        find_weights(spec, offline=True)
    except BackboneUnavailable:
        return "missing"
    return "here"


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="File to write.")] = Path("modelbank.yaml"),
) -> None:
    """Copy the packaged bank here, to change it; ./modelbank.yaml takes precedence over it."""
    from probe.bank.file import packaged_bank
    from probe.errors import UsageError
    from probe.files import copy_file

    if path.exists():
        raise UsageError(f"{path} exists and is not overwritten. Name another file.")
    copy_file(packaged_bank(), path)
    say(f"{path} is a copy of the packaged bank.", err=True)


@app.command()
def show(
    name: Annotated[
        str, typer.Argument(help="Name of an entry, or NAME@LAYER.", autocompletion=entries)
    ],
    bank: BankPath = None,
) -> None:
    """Show one entry in full, as YAML: its paper, data, licence and address, taps and head."""
    import yaml

    from probe.api.bank import describe_entry
    from probe.bank.file import load_bank

    for spec in load_bank(bank).select([name]):
        record = describe_entry(spec)
        say(yaml.safe_dump([record], sort_keys=False, allow_unicode=True, width=76).rstrip())


@app.command()
def check(
    bank: BankPath = None,
    backbones: Backbones = None,
) -> None:
    """Load every entry that has its weights, and report problems with the others."""
    from probe.api.bank import check_bank

    failed = 0
    for name, problem, dim in check_bank(bank, backbones):
        failed += problem is not None
        say(f"{name}: {problem}" if problem else f"{name}: ok, {dim} features")
    raise typer.Exit(3 if failed else 0)


@app.command()
def fetch(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Names, patterns, presets; all by default.", autocompletion=entries),
    ] = None,
    bank: BankPath = None,
) -> None:
    """Download weights into the hub's own cache, for later use offline.

    Interrupted downloads resume. Each file's checksum and each network's fingerprint are recorded
    in the lock file next to the bank, for the packaged bank in the cache folder, and verified on
    every later load.
    """
    from dataclasses import replace

    from probe.api.bank import record_weights
    from probe.bank.file import load_bank, lock_of
    from probe.bank.layers import split
    from probe.bank.weights.find import verified_weights
    from probe.errors import BackboneUnavailable
    from probe.reports.text import columns_of, text_table

    found = load_bank(bank)
    wanted = {split(spec.name)[0] for spec in found.select(names or None)}
    rows: list[tuple[str, str, str, str]] = []
    failed = 0
    for spec in found.specs:
        if spec.role == "control" or spec.name not in wanted:
            continue
        before = _weights(spec)
        try:
            path, digest = verified_weights(spec, offline=False)
        except BackboneUnavailable as error:
            # The remedy for a missing download is this same command.
            again = error.remedy.startswith("probe bank fetch")
            rows.append((spec.name, "failed", "", error.reason if again else str(error)))
            failed += 1
            continue
        size = path.stat().st_size
        came = "was here" if before == "here" else "fetched"
        rows.append((spec.name, came, f"{size / 1e6:.1f} MB", str(path)))
        told = "" if spec.weights.kind == "file" else record_weights(found, spec, digest, size)
        say(f"{spec.name}: {came}{'; ' if told else ''}{told}", err=True)
    columns = columns_of(("backbone", "", "size", "file, or why not"), rows)
    show_view(text_table([replace(c, importance=0) for c in columns]))
    if failed < len(rows):
        say(f"Checksums: {lock_of(found.path)}", err=True)
    raise typer.Exit(3 if failed else 0)


@app.command()
def add(
    reference: Annotated[
        str,
        typer.Argument(
            help="timm:MODEL.TAG or open_clip:MODEL/TAG, e.g. timm:convnext_tiny.fb_in22k.",
            show_default=False,
        ),
    ],
    bank: Annotated[
        Path, typer.Option(help="Bank file to append to; created from the packaged one if missing.")
    ] = Path("modelbank.yaml"),
    name: Annotated[str | None, typer.Option(help="Name of the entry.")] = None,
    task: Annotated[str | None, typer.Option(help="Task the weights were trained for.")] = None,
    data: Annotated[str | None, typer.Option(help="Dataset they were trained on.")] = None,
    license: Annotated[str | None, typer.Option(help="Licence of the weights.")] = None,
) -> None:
    """Add an entry for pretrained weights from timm or open_clip.

    Input size, mean, std and licence come from the library. The network is built once, without its
    weights, to check that it yields features.
    """
    from probe.bank.add import add as append
    from probe.bank.add import describe_weights
    from probe.bank.file import packaged_bank
    from probe.errors import UsageError
    from probe.files import copy_file

    if bank.resolve() == packaged_bank():
        raise UsageError(f"--bank: {bank} comes with probe and is not changed. Name a copy.")
    spec, backbone = describe_weights(reference, name=name, task=task, data=data, license=license)
    if not bank.exists():
        copy_file(packaged_bank(), bank)
        say(f"{bank} begins as a copy of the packaged bank.", err=True)
    say(append(bank, spec, backbone).rstrip())
    say(f"Added to {bank}. Its weights: probe bank fetch {spec.name} --bank {bank}", err=True)
