"""The examples run, at tiny size, and stay short enough to read."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from inputs import write_judged_bank
from PIL import Image

import probe

EXAMPLES = Path(__file__).parents[2] / "examples"
TINY = ["--steps", "3", "--batch", "4", "--side", "16", "--width", "4", "--device", "cpu"]


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda p: p.name)
def test_it_is_short(path):
    assert len(path.read_text().splitlines()) < 150


def test_there_are_examples():
    assert {path.name for path in EXAMPLES.glob("*.py")} >= {"dcgan.py"}


@pytest.mark.parametrize("against", ["nothing", "names", "ranking"])
def test_dcgan(against, reals, fakes, tmp_path):
    bank = write_judged_bank(tmp_path)
    given = []
    if against == "names":
        given = ["--backbones", "grid, colour", "--bank", bank]
    if against == "ranking":
        probe.rank(reals, fakes, bank=bank, out=tmp_path / "ranking", offline=True)
        given = ["--ranking", tmp_path / "ranking", "--k", "1"]
    command = [sys.executable, EXAMPLES / "dcgan.py", reals, *TINY, "--out", tmp_path / "out"]
    done = subprocess.run([*command, *given], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "step 2: D " in done.stdout
    assert ("Loss/G/" in done.stdout) == (against != "nothing")
    assert Image.open(tmp_path / "out" / "samples.png").size == (8 * 16, 8 * 16)
    state = torch.load(tmp_path / "out" / "generator.pt", weights_only=True)
    assert all(value.isfinite().all() for value in state.values() if value.is_floating_point())
