"""Starting: instant help, version, switches, the launcher."""

import subprocess
import sys
from pathlib import Path

import pytest

import probe
from probe.cli import normalise

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "timm", "sklearn", "pandas", "open_clip", "torchvision", "numpy", "PIL")


@pytest.mark.parametrize("arguments", [["--help"], ["rank", "--help"], ["train", "--help"]])
def test_help_loads_nothing_heavy(arguments):
    code = (
        "import sys; sys.argv = ['probe', *sys.argv[1:]]\n"
        "from probe.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        f"print([m for m in {HEAVY} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stderr.strip() == "[]"
    assert "Usage" in done.stdout


def test_launcher_and_module_start_the_same_app():
    for start in (["cli.py"], ["-m", "probe"]):
        done = subprocess.run(
            [sys.executable, *start, "--version"], cwd=ROOT, capture_output=True, text=True
        )
        assert done.stdout == f"probe {probe.__version__}\n" and done.returncode == 0


def test_bank_list_needs_no_torch():
    code = (
        "import sys; sys.argv = ['probe', 'bank', 'list']\n"
        "from probe.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "efficientnet-lite0" in done.stdout


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("--mirror=1", ["--mirror"]),
        ("--mirror=False", ["--no-mirror"]),
        ("--match-jpeg=true", ["--match-jpeg"]),
        ("--seed=1", ["--seed=1"]),
        ("--mirror=2", ["--mirror", "2"]),
    ],
)
def test_switches_as_users_of_neighbouring_tools_type_them(typed, meant):
    assert normalise([typed]) == meant


def test_public_names_are_listed_and_resolve():
    assert sorted(probe._PUBLIC) == list(probe._PUBLIC)
    for name in probe._PUBLIC:
        assert getattr(probe, name).__name__ == name
    with pytest.raises(AttributeError):
        _ = probe.nothing
