"""What the shell completes: names of backbones, presets, and the words an option accepts."""

from collections.abc import Callable, Collection

import typer

from probe.errors import ProbeError

Complete = Callable[[str], list[str]]


def words(choices: Collection[str]) -> Complete:
    """Return the completion of an option that accepts some words."""

    def complete(incomplete: str) -> list[str]:
        return [word for word in choices if word.startswith(incomplete)]

    return complete


def backbones(ctx: typer.Context, incomplete: str) -> list[str]:
    """Complete the last of comma-separated names of backbones and @presets."""
    before, comma, last = incomplete.rpartition(",")
    taken = before.split(",")
    names = [name for name in _names(ctx) if name.startswith(last) and name not in taken]
    return [f"{before}{comma}{name}" for name in names]


def entries(ctx: typer.Context, incomplete: str) -> list[str]:
    """Complete one name of a backbone or @preset."""
    return [name for name in _names(ctx) if name.startswith(incomplete)]


def _names(ctx: typer.Context) -> list[str]:
    """Return the names in the bank of the command; none if it cannot be read."""
    from probe.bank.file import load_bank
    from probe.bank.presets import SIGN, presets

    bank = ctx.params.get("bank")
    try:
        specs = load_bank(bank).specs
    except (ProbeError, OSError):  # the command itself says what is wrong
        return []
    return [*(spec.name for spec in specs), *(f"{SIGN}{name}" for name in presets(specs))]
