"""Render results/*.json into README.md and docs/leaderboard.md, so that no number is typed by hand.

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
