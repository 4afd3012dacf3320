"""`probe bank`: what is in the model bank, and what of it is here."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from probe.bank.spec import BackboneSpec

app = typer.Typer(help="The model bank: entries, and whether their weights are here.")

BankPath = Annotated[
    Path | None, typer.Option(help="Model bank; ./modelbank.yaml or the packaged one.")
]


@app.command("list")
def list_entries(bank: BankPath = None) -> None:
    """List the entries and whether their weights are here."""
    from probe.bank.spec import load_bank
    from probe.reports.text import text_table

    found = load_bank(bank)
    rows = [(s.name, _weights(s), s.role, s.task, s.data, s.license) for s in found.specs]
    headings = ("backbone", "weights", "role", "task", "pretraining data", "weights licence")
    typer.echo(text_table(headings, rows, kept=3), nl=False)
    typer.echo(f"{len(rows)} entries of {found.path}", err=True)


def _weights(spec: "BackboneSpec") -> str:
    """Return "random", "here" or "missing"."""
    from probe.bank.weights import find_weights
    from probe.errors import BackboneUnavailable

    if spec.role == "control":
        return "random"
    try:
        find_weights(spec, offline=True)
    except BackboneUnavailable:
        return "missing"
    return "here"


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Name of an entry.")], bank: BankPath = None
) -> None:
    """Show one entry with everything that is known of it, as YAML."""
    from dataclasses import asdict

    import yaml

    from probe.bank.load import input_spec
    from probe.bank.spec import load_bank
    from probe.bank.weights import find_weights
    from probe.errors import BackboneUnavailable

    for spec in load_bank(bank).select([name]):
        fed = input_spec(spec)  # also where the entry leaves it to timm
        record = asdict(spec) | {"input": fed.size, "mean": fed.mean, "std": fed.std}
        record["weights"] = {k: v for k, v in record["weights"].items() if v is not None}
        if spec.role != "control":
            try:
                record["found"] = str(find_weights(spec, offline=True))
            except BackboneUnavailable as error:
                record["missing"] = str(error)
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in record.items()}
        typer.echo(yaml.safe_dump([plain], sort_keys=False, allow_unicode=True), nl=False)


@app.command()
def check(
    bank: BankPath = None,
    backbones: Annotated[
        str | None, typer.Option(help="Names or patterns, comma-separated.")
    ] = None,
) -> None:
    """Load every entry whose weights are here and say what is wrong with the others."""
    from probe.api import check_bank

    names = [name.strip() for name in backbones.split(",")] if backbones else None
    failed = 0
    for name, problem, dim in check_bank(bank, names):
        failed += problem is not None
        typer.echo(f"{name}: {problem}" if problem else f"{name}: ok, {dim} features")
    raise typer.Exit(3 if failed else 0)


@app.command()
def fetch(
    names: Annotated[list[str] | None, typer.Argument(help="Names or patterns; all.")] = None,
    bank: BankPath = None,
) -> None:
    """Download weights into the hub's own cache, for later use offline."""
    from probe.bank.spec import load_bank
    from probe.bank.weights import verified_weights
    from probe.errors import BackboneUnavailable

    failed = 0
    for spec in load_bank(bank).select(names or None):
        if spec.role == "control":
            continue
        try:
            path, _ = verified_weights(spec, offline=False)
            typer.echo(f"{spec.name}: {path}")
        except BackboneUnavailable as error:
            failed += 1
            # The remedy of a missing download is this very command.
            again = error.remedy.startswith("probe bank fetch")
            typer.echo(f"{spec.name}: {error.reason if again else error}", err=True)
    raise typer.Exit(3 if failed else 0)
