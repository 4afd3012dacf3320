"""How the documentation is built: `make docs`."""

import os
import subprocess
import sys
from pathlib import Path

import probe

HERE = Path(__file__).parent

project = "probe"
author = copyright = "the authors of probe"
version = release = probe.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"probe {version}"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
nitpicky = False


def write_commands() -> None:
    """Write commands.md: what every command's --help says."""
    text = subprocess.run(
        [sys.executable, "-m", "typer", "probe.cli", "utils", "docs", "--name", "probe",
         "--title", "Commands"],
        check=True, capture_output=True, encoding="utf-8",
        env=os.environ | {"PYTHONIOENCODING": "utf-8"},
    ).stdout  # fmt: skip
    path = HERE / "commands.md"
    if not path.exists() or path.read_text("utf-8") != text:
        path.write_text(text, "utf-8")


write_commands()
