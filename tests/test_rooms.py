"""The page about the architecture is up to date with the imports and the files."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "draw_rooms.py"
PAGE = ROOT / "docs" / "architecture.md"


def load_script():
    spec = importlib.util.spec_from_file_location("draw_rooms", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_picture_and_table_are_what_the_imports_say():
    done = subprocess.run([sys.executable, SCRIPT, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_file_that_the_page_names_is_there():
    named = re.findall(r"`((?:probe|tests|scripts)/[\w/.]*)`", PAGE.read_text("utf-8"))
    assert len(named) > 15
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_a_longer_way_down_stands_for_a_short_one():
    rooms = {"a": {"b", "c"}, "b": {"c"}, "c": set()}
    script = load_script()
    assert script.direct(rooms) == {("a", "b"), ("b", "c")}
    assert script.floors(rooms) == {"a": 2, "b": 1, "c": 0}
