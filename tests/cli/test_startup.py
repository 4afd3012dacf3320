"""Starting: instant help, version, switches, the launcher."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

import probe
from probe.cli import app, normalise_switches, switches

ROOT = Path(__file__).parents[2]
LIBRARIES = ("timm", "sklearn", "pandas", "open_clip", "torchvision")
HEAVY = ("torch", "numpy", "PIL", "pydantic", *LIBRARIES)
COMPILER = ("sympy", "torch._dynamo")
TRAINER = ("probe.training.loop", "probe.checks.run")


@pytest.mark.parametrize(
    "arguments", [[], ["rank"], ["metrics"], ["score"], ["train"]], ids=lambda a: " ".join(a)
)
def test_help_loads_nothing_heavy(arguments):
    code = (
        "import sys; sys.argv = ['probe', *sys.argv[1:]]\n"
        "from probe.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        f"print([m for m in {HEAVY} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments, "--help"], cwd=ROOT, capture_output=True, text=True
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


def test_a_ranking_that_has_everything_loads_no_library_of_networks_or_fits(
    cli, reals, checkpoint, bank
):
    arguments = ["rank", "--real", reals, "--gen", checkpoint, "--bank", bank, "--offline"]
    arguments = [str(a) for a in (*arguments, "--num", 16, "--quiet")]
    first = cli(*arguments)
    assert first.code == 0
    code = (
        "import sys; sys.argv = ['probe', *sys.argv[1:]]\n"
        "from probe.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        f"print([m for m in {LIBRARIES + COMPILER + TRAINER} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stderr.strip() == "[]"
    assert done.stdout == first.out


def test_networks_are_built_for_their_shapes_without_the_compiler():
    code = (
        "import sys, torch\n"
        "from probe.generators.networks import fastgan, r3gan, stylegan2, stylegan3\n"
        "with torch.device('meta'):\n"
        "    stylegan2.Generator(64, 3, 64, 32, 3)\n"
        "    stylegan2.Generator(64, 0, 64, 32, 3, synthesis_kwargs={'architecture': 'resnet'})\n"
        "    stylegan3.Generator(64, 3, 64, 32, 3)\n"
        "    fastgan.Generator(64, 3, 32, cond=True)\n"
        "    r3gan.Generator(64, [32] * 3, [4] * 3, [1] * 3, 2)\n"
        f"print([m for m in {COMPILER} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


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
    assert normalise_switches([typed], switches(get_command(app))) == meant


def test_public_names_are_listed_and_resolve():
    assert sorted(probe._PUBLIC) == list(probe._PUBLIC)
    for name in probe._PUBLIC:
        assert getattr(probe, name).__name__ == name
    with pytest.raises(AttributeError):
        _ = probe.nothing
