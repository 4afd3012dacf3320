"""Draw the rooms of the package and who imports whom, from the imports themselves.

    python scripts/draw_rooms.py           # writes docs/pictures/rooms.svg and its table
    python scripts/draw_rooms.py --check   # says whether they are up to date

The table is between two marks in docs/architecture.md. Imports go down. If a room is reached in two
ways, the picture shows the longer one; the table has every import.
"""

import argparse
import ast
import html
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "probe"
PAGE, PICTURE = ROOT / "docs" / "architecture.md", ROOT / "docs" / "pictures" / "rooms.svg"
BEGIN, END = "<!-- rooms: scripts/draw_rooms.py -->", "<!-- end of rooms -->"
BASE = "base"  # the modules that are files of their own, drawn as one
GIVES = {  # what a room hands to those above it
    "compat": "calls of other packages",
    "cli": "tables, exit codes",
    "api": "the verbs",
    "reports": "pages, tables, files",
    "training": "snapshots, a run's records",
    "checks": "findings, costs",
    "scoring": "P(generated) per image",
    "metrics": "distances",
    "probing": "scores, leaderboards, choices",
    "discriminators": "logits of heads, losses",
    "features": "features (N, d), stored",
    "bank": "backbones: pixels to features",
    "generators": "images of a checkpoint, by seed",
    "images": "uint8 batches (N, 3, R, R)",
    "accel": "the same networks, faster",
    BASE: "errors, files, devices, events",
}
WIDTH, FLOOR = 960, 92  # of the picture, and from one floor to the next
BOX, HEIGHT = 216, 46

Graph = Mapping[str, set[str]]


def read_rooms() -> dict[str, set[str]]:
    """Return room → the rooms that it imports, when it runs and not for its types alone."""
    rooms: dict[str, set[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).parts
        if parts[0] in ("__init__.py", "__main__.py"):
            continue
        room = _room(parts[0].removesuffix(".py"))
        found = rooms.setdefault(room, set())
        found |= {_room(name) for name in _imported(ast.parse(path.read_text("utf-8")))} - {room}
    return rooms


def _room(name: str) -> str:
    return name if (PACKAGE / name / "__init__.py").exists() else BASE


def _imported(tree: ast.AST) -> set[str]:
    """Return the modules and rooms right below `probe` that a file imports."""
    if isinstance(tree, ast.If) and ast.unparse(tree.test) == "TYPE_CHECKING":
        return set()
    if isinstance(tree, ast.ImportFrom) and str(tree.module).startswith("probe."):
        return {str(tree.module).split(".")[1]}
    if isinstance(tree, ast.ImportFrom) and tree.module == "probe":
        return {alias.name for alias in tree.names}
    if isinstance(tree, ast.Import):
        names = [alias.name.split(".") for alias in tree.names]
        return {parts[1] for parts in names if parts[0] == "probe" and len(parts) > 1}
    return set().union(*map(_imported, ast.iter_child_nodes(tree)))


def floors(rooms: Graph) -> dict[str, int]:
    """Return the floor of each room: one above the highest that it imports."""
    found: dict[str, int] = {}

    def floor(room: str) -> int:
        if room not in found:
            found[room] = 1 + max((floor(other) for other in rooms[room]), default=-1)
        return found[room]

    for room in rooms:
        floor(room)
    return found


def direct(rooms: Graph) -> set[tuple[str, str]]:
    """Return the imports without those that a longer way down stands for."""

    def below(room: str) -> set[str]:
        return rooms[room].union(*(below(other) for other in rooms[room]))

    return {
        (room, other)
        for room, others in rooms.items()
        for other in others
        if not any(other in below(between) for between in others - {other})
    }


def draw(rooms: Graph) -> str:
    """Return the picture, as SVG."""
    found = floors(rooms)
    top = max(found.values())
    middle: dict[str, tuple[float, float]] = {}
    for level in range(top + 1):
        row = sorted(room for room in rooms if found[room] == level)
        for i, room in enumerate(row):
            middle[room] = (WIDTH * (i + 1) / (len(row) + 1), (top - level) * FLOOR + 40)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top * FLOOR + 80}" '
        'font-family="sans-serif" font-size="13" text-anchor="middle">',
        f'<rect width="{WIDTH}" height="{top * FLOOR + 80}" fill="#fff"/>',
    ]
    for upper, lower in sorted(direct(rooms)):
        (x1, y1), (x2, y2) = middle[upper], middle[lower]
        y1, y2 = y1 + HEIGHT / 2, y2 - HEIGHT / 2
        bend = (y2 - y1) / 2
        lines.append(
            f'<path d="M{x1:.0f} {y1:.0f}C{x1:.0f} {y1 + bend:.0f} {x2:.0f} {y2 - bend:.0f} '
            f'{x2:.0f} {y2:.0f}" fill="none" stroke="#8a94a6" stroke-width="1.3"/>'
        )
    for room, (x, y) in sorted(middle.items()):
        lines += [
            f'<rect x="{x - BOX / 2:.0f}" y="{y - HEIGHT / 2:.0f}" width="{BOX}" '
            f'height="{HEIGHT}" rx="6" fill="#eef3fb" stroke="#48658f"/>',
            f'<text x="{x:.0f}" y="{y - 4:.0f}" font-weight="bold" fill="#1b2a41">{room}</text>',
            f'<text x="{x:.0f}" y="{y + 14:.0f}" fill="#3c4a60">{html.escape(GIVES[room])}</text>',
        ]
    return "\n".join([*lines, "</svg>"]) + "\n"


def table(rooms: Graph) -> str:
    """Return the rooms from the top floor to the lowest, as a Markdown table."""
    found = floors(rooms)
    rows = ["| room | gives | imports |", "| --- | --- | --- |"]
    for room in sorted(rooms, key=lambda room: (-found[room], room)):
        rows.append(f"| {room} | {GIVES[room]} | {', '.join(sorted(rooms[room])) or 'nothing'} |")
    return "\n".join(rows)


def main() -> int:
    """Write the picture and the table, or compare them with what is there."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing")
    checks = parser.parse_args().check
    rooms = read_rooms()
    page = PAGE.read_text("utf-8")
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    wanted = {
        PAGE: f"{before}{BEGIN}\n{table(rooms)}\n{END}{after}",
        PICTURE: draw(rooms),
    }
    stale = [p for p, text in wanted.items() if not p.exists() or p.read_text("utf-8") != text]
    for path in stale:
        if checks:
            print(f"{path} is not up to date: python scripts/draw_rooms.py", file=sys.stderr)
        else:
            path.write_text(wanted[path], "utf-8")
    return int(checks and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
