"""What a type checker sees of the package: in its own code, and in the script of a user."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import probe

pytest.importorskip("pyright", reason="pyright is not installed: pip install 'pyright[nodejs]'")

SCRIPT = """
from pathlib import Path

import probe

reveal_type(probe.load_bank(Path("modelbank.yaml")).specs[0].name)
ranking = probe.rank("reals", "generator.pkl", options=probe.RankOptions(num=100))
assert ranking is not None
reveal_type(ranking)
reveal_type(ranking.leaderboard.winner)
reveal_type(probe.train("reals", outdir="runs", config=probe.TrainConfig(k=2)))
reveal_type(probe.measure("reals", "generator.pkl").rows[0].frechet)
reveal_type(probe.score("new", "ranking").exit_code)
reveal_type(probe.load_generator("generator.pkl").generator)
reveal_type(probe.open_images("reals").name)
"""
MISTAKES = """
import probe

probe.rnak("reals", "generator.pkl")
probe.RankOptions(number=100)
probe.rank(1, "generator.pkl")
probe.open_images("reals").name = "others"
"""


def check(folder: Path, text: str) -> list[dict]:
    """Return what pyright says of a script outside the checkout."""
    script = folder / "script.py"
    script.write_text(text)
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--outputjson"]
    done = subprocess.run([*command, script], capture_output=True, text=True, cwd=folder)
    return json.loads(done.stdout)["generalDiagnostics"]


def test_a_users_script_is_typed(tmp_path):
    found = check(tmp_path, SCRIPT)
    assert not [one for one in found if one["severity"] == "error"]
    types = [one["message"].partition(" is ")[2] for one in found]
    assert len(types) == SCRIPT.count("reveal_type")
    assert types[1] == '"Ranking"'
    assert not [kind for kind in types if "Any" in kind or "Unknown" in kind]


def test_a_users_mistakes_are_found(tmp_path):
    lines = [one["range"]["start"]["line"] for one in check(tmp_path, MISTAKES)]
    assert lines == [3, 4, 5, 6]


def test_type_checkers_are_told_of_the_public_names():
    tree = ast.parse(Path(probe.__file__).read_text("utf-8"))
    typed = {
        alias.asname: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname
    }
    assert typed == probe._PUBLIC
