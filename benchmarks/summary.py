"""Render results/*.json into README.md and two pages of docs, so that no number is typed by hand.

    python benchmarks/summary.py [--check]

`--check` changes nothing and exits with 1 where a page is behind the results.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import RESULTS, describe, show

README = Path(__file__).resolve().parent / "README.md"
LEADERBOARD = README.parent.parent / "docs" / "leaderboard.md"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
CHOOSING = README.parent.parent / "docs" / "choosing.md"
DAMAGE, DAMAGE_END = "<!-- damage: begin -->", "<!-- damage: end -->"
COVERED, COVERED_END = "<!-- coverage: begin -->", "<!-- coverage: end -->"


def markdown_table(columns: list[str], rows: list[list[Any]]) -> Iterator[str]:
    """Yield the lines of a Markdown table; all but the first column to the right."""
    yield f"| {' | '.join(columns)} |"
    yield f"| {' | '.join(['---', *['---:'] * (len(columns) - 1)])} |"
    for row in rows:
        yield f"| {' | '.join(show(value).replace('|', '/') for value in row)} |"


def section(record: dict[str, Any]) -> Iterator[str]:
    """Yield the lines that stand for one record."""
    yield f"### {record['title']} (`{record['name']}.py`)"
    yield ""
    if record["quick"]:
        yield "**Quick run: these figures mean nothing.**"
        yield ""
    if record["checks"]:
        rows = [
            [c["what"], f"{show(c['value'])}{c['unit']}", c["target"], c["met"]]
            for c in record["checks"]
        ]
        yield from markdown_table(["promise", "found", "target", "met"], rows)
        yield ""
    for table in record["tables"]:
        yield f"{table['title']}:"
        yield ""
        yield from markdown_table(table["columns"], table["rows"])
        yield ""
    yield f"{describe(record)}."
    yield ""


def figures() -> str:
    """Return the section between the markers."""
    records = [json.loads(path.read_text("utf-8")) for path in sorted(RESULTS.glob("*.json"))]
    lines = [line for record in records for line in section(record)]
    return "\n".join([BEGIN, "", *(lines or ["No results yet.", ""]), END])


def coverage() -> str:
    """Return the table of docs/leaderboard.md between its markers."""
    record = json.loads((RESULTS / "coverage.json").read_text("utf-8"))
    (table,) = record["tables"]
    lines = [*markdown_table(table["columns"], table["rows"]), "", f"{describe(record)}."]
    return "\n".join([COVERED, "", *lines, "", COVERED_END])


def damage() -> str:
    """Return the tables of docs/choosing.md between their markers."""
    lines = []
    record = _read("damage")
    if record is not None:
        first = next(iter(record["values"].values()))
        names = [name for name, row in first.items() if row["role"] != "null"]
        rows = [
            [name, *(_score(board[name]) for board in record["values"].values())]
            for name in sorted(names, key=lambda name: (first[name]["role"] == "control", name))
            if first[name]["score"] is not None
        ]
        kinds = [f"{row[0]}: {row[1]}" for row in record["tables"][0]["rows"]]
        lines += [*markdown_table(["backbone", *kinds], rows), ""]
        lines += [f"{record['settings']['num']} images of each class. {describe(record)}.", ""]
        lines += [*markdown_table(*_costs(first, [row[0] for row in rows])), ""]
        for title in ("extraction", "extraction-h100"):
            if (speed := _read(title)) is not None:
                place = speed["machine"]["gpu"] or f"{speed['machine']['cores']} cores"
                lines += [f"Images per second, {place}: {describe(speed)}.", ""]
    return "\n".join([DAMAGE, "", *lines, DAMAGE_END])


def _read(name: str) -> dict[str, Any] | None:
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text("utf-8")) if path.exists() else None


def _score(row: dict[str, Any]) -> str:
    text = f"{row['score']:.2f} ({row['score_low']:.2f} to {row['score_high']:.2f})"
    return f"**{text}**" if row["rank"] == 1 else text


def _costs(rows: dict[str, Any], names: list[str]) -> tuple[list[str], list[list[Any]]]:
    """Return columns and rows of what backbones are and how fast, on a CPU and a GPU."""
    speeds = []
    for name in ("extraction", "extraction-h100"):
        record = _read(name)
        table = record["tables"][0] if record else {"columns": ["ours"], "rows": []}
        column = table["columns"].index("ours")
        speeds.append({row[0]: round(row[column]) for row in table["rows"]})
    columns = ["backbone", "features", "M parameters", "G multiply-adds", "CPU images/s"]
    return [*columns, "GPU images/s", "licence"], [
        [
            name, rows[name]["dim"], f"{rows[name]['params'] / 1e6:.1f}",
            f"{rows[name]['flops'] / 1e9:.2f}", *(speed.get(name, "—") for speed in speeds),
            rows[name]["license"],
        ]
        for name in names
    ]  # fmt: skip


def replaced(text: str, begin: str, end: str, section: str) -> str:
    """Return a page with a new section, markers included."""
    before, rest = text.split(begin)
    return before + section + rest.split(end)[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only say whether it is up to date")
    args = parser.parse_args()
    pages = {
        README: (BEGIN, END, figures()),
        LEADERBOARD: (COVERED, COVERED_END, coverage()),
        CHOOSING: (DAMAGE, DAMAGE_END, damage()),
    }
    for page, parts in pages.items():
        text = page.read_text("utf-8")
        rendered = replaced(text, *parts)
        if rendered == text:
            continue
        if args.check:
            sys.exit(f"{page.name} is behind the results.")
        page.write_text(rendered, "utf-8")


if __name__ == "__main__":
    main()
