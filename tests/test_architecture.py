"""Imports go down: the allowed edges between rooms, as a table."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "probe"
BASE = {"errors", "memory", "registry", "files", "runtime", "options", "snapshots", "stored"}
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "bundled": set(),
    "snapshots": set(),
    "options": {"errors"},
    "memory": {"errors"},
    "registry": {"errors"},
    "files": {"errors"},
    "runtime": {"errors"},
    "stored": {"errors"},
    "images": BASE,
    "bank": BASE | {"images"},  # calibration images are an ImageSource
    "generators": BASE | {"images"},
    "features": BASE | {"images", "bank"},
    "probing": BASE | {"images", "bank", "features"},
    "metrics": BASE | {"images", "bank", "features"},
    "training": BASE
    | {"__init__", "images", "generators", "bank", "features", "probing", "metrics"},
    "checks": BASE | {"images", "bank", "features", "probing", "training"},
    "reports": BASE | {"__init__", "probing", "metrics", "checks"},  # __init__: the version
}
ALLOWED["api"] = {*ALLOWED, "__init__"}
ALLOWED["cli"] = {"__init__", "api", "errors", "files", "memory", "options", "registry"} | {
    "reports", "bank",
    "features.contents", "generators.config", "generators.seeds", "metrics.config",
    "probing.config", "runtime", "training.config",
}  # fmt: skip


def edges():
    """Yield (file, its room, imported module below probe) of every import in the package."""
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
                if node.module == "probe":
                    names = [f"probe.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            for name in names:
                if name == "probe" or name.startswith("probe."):
                    yield path, room, name.removeprefix("probe").lstrip(".") or "__init__"


def test_every_import_is_an_allowed_edge():
    found = list(edges())
    assert len(found) > 100
    wrong = []
    for path, room, target in found:
        target_room = target.split(".")[0].replace("__version__", "__init__")
        allowed = ALLOWED.get(room, {"cli"})  # __init__ and __main__ start the command line
        if target_room != room and target_room not in allowed and target not in allowed:
            wrong.append(f"{path.relative_to(PACKAGE)} imports probe.{target}")
    assert not wrong, wrong


@pytest.mark.parametrize("room", [p for p in sorted(PACKAGE.iterdir()) if p.is_dir()])
def test_every_room_says_what_it_is_for(room):
    if not (room / "__init__.py").exists():
        pytest.skip("data")
    assert ast.get_docstring(ast.parse((room / "__init__.py").read_text()))
