"""`probe cache`: list, verify, prune and merge stored features and results."""

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from probe.cli.help import App
from probe.cli.output import say, show_view

if TYPE_CHECKING:
    from collections.abc import Sequence

    from probe.features.contents import Part

app = App(help="Inspect, verify, shrink and join feature caches.")

SIZES = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
# Kinds of parts that are counted together.
COUNTED = (
    ("result", "probe results"),
    ("index", "indexes of tars"),
    ("reference", "copies of references"),
)
SPANS = {"h": 3600, "d": 86_400, "w": 7 * 86_400}


@app.command("ls")
def list_parts(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with every folder.")] = False,
) -> None:
    """List what is cached, largest first."""
    from probe.features.contents import parts
    from probe.files import cache_root, to_json
    from probe.reports.text import columns_of, text_table

    root = cache_root()
    found = parts(root)
    if as_json:
        records = [
            {"kind": p.kind, "what": p.what, "folder": str(p.folder), "images": p.rows,
             "bytes": p.size, "written": p.written}
            for p in found
        ]  # fmt: skip
        say(to_json({"root": str(root), "parts": records}))
        return
    now = time.time()
    rows = [
        (p.what, str(p.rows), _size(p.size), _age(now - p.written), p.folder.name)
        for p in found
        if p.kind == "features"
    ]
    show_view(text_table(columns_of(("features", "images", "size", "age", "folder"), rows)))
    _count(found)
    say(f"{_size(sum(p.size for p in found))} in {root}")


@app.command()
def verify(
    remove: Annotated[
        bool,
        typer.Option("--remove", help="Remove damaged files; they are recomputed when needed."),
    ] = False,
) -> None:
    """Check every file and name damaged ones. Damaged files are never used."""
    from probe.features.contents import damaged_files, parts, remove_files
    from probe.files import cache_root

    root = cache_root()
    found = damaged_files(root)
    for path in found:
        if remove:
            remove_files([path])
        say(f"{'removed' if remove else 'damaged'}: {path}")
    total = _size(sum(p.size for p in parts(root)))
    say(f"{total} in {root}: {len(found) or 'nothing'} damaged.", err=True)
    raise typer.Exit(1 if found and not remove else 0)


@app.command()
def prune(
    older_than: Annotated[
        str | None, typer.Option(help="Remove entries not written for this long: 12h, 30d, 8w.")
    ] = None,
    larger_than: Annotated[
        str | None,
        typer.Option(help="Remove the oldest entries until the cache is this small: 500MB, 20GB."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Show what would be removed.")
    ] = False,
) -> None:
    """Remove old features and results; anything written within the last hour stays."""
    from probe.errors import UsageError
    from probe.features.contents import choose_parts, incomplete_files, parts, remove, remove_files
    from probe.files import cache_root

    if older_than is None and larger_than is None:
        raise UsageError("Say what to remove: --older-than 30d, --larger-than 20GB, or both.")
    root = cache_root()
    chosen = choose_parts(
        parts(root),
        older_than=None if older_than is None else _span(older_than),
        larger_than=None if larger_than is None else _bytes(larger_than),
        now=time.time(),
    )
    _show(chosen)
    if not dry_run:
        remove(chosen)
        remove_files(list(incomplete_files(root)))
    total = _size(sum(part.size for part in chosen))
    say(f"{total} {'would be' if dry_run else 'were'} removed from {root}.", err=True)


@app.command("merge")
def merge_others(
    others: Annotated[
        list[Path],
        typer.Argument(metavar="OTHER...", help="Other cache folders.", show_default=False),
    ],
) -> None:
    """Take the features and results of other cache folders that are missing here.

    What is here stays as it is, and the others are only read. Damaged files are named and left out.
    """
    from probe.features.merge import check_other, merge_caches
    from probe.files import cache_root

    root, damaged = cache_root(), 0
    for other in others:
        check_other(other, root)
    for other in others:
        done = merge_caches(other, root)
        for path in done.damaged:
            say(f"damaged: {path}")
        damaged += len(done.damaged)
        say(
            f"{other}: {done.rows} rows and {done.results} probe results were taken, "
            f"{done.present} rows were here already, {len(done.damaged) or 'no'} damaged "
            f"file{'s' * (len(done.damaged) != 1)}.",
            err=True,
        )
    raise typer.Exit(3 if damaged else 0)


def _show(chosen: "Sequence[Part]") -> None:
    for part in chosen:
        if part.kind == "features":
            say(f"{part.what}: {part.rows} images, {_size(part.size)} ({part.folder.name})")
    _count(chosen)


def _count(parts: "Sequence[Part]") -> None:
    """Print how many parts there are of those that are not listed one by one."""
    for kind, name in COUNTED:
        if some := [part for part in parts if part.kind == kind]:
            say(f"{len(some)} {name}, {_size(sum(part.size for part in some))}")


def _size(count: int) -> str:
    for unit, length in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= length:
            return f"{count / length:.1f} {unit}"
    return f"{count} B"


def _age(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return "now"


def _span(text: str) -> float:
    from probe.errors import UsageError

    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)\s*([hdw])", text.strip().lower())
    if match is None:
        raise UsageError(f"--older-than: '{text}' is not a duration. Write 12h, 30d or 8w.")
    return float(match[1]) * SPANS[match[2]]


def _bytes(text: str) -> int:
    from probe.errors import UsageError

    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,9})?)\s*([KMGT]?)B?", text.strip().upper())
    if match is None:
        raise UsageError(f"--larger-than: '{text}' is not a size. Write 500MB or 20GB.")
    return int(float(match[1]) * SIZES[match[2]])
