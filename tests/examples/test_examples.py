"""The examples run, at tiny size, and stay short enough to read."""

import os
import re
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
    found = {path.name for path in EXAMPLES.glob("*.py")}
    assert found >= {"dcgan.py", "enlarge.py", "distill.py", "dcgan_accelerate.py"}


@pytest.fixture
def against(request, reals, fakes, tmp_path):
    """Options that name nothing, backbones or a ranking."""
    bank = write_judged_bank(tmp_path)
    if request.param == "names":
        return ["--backbones", "grid, colour", "--bank", bank]
    if request.param == "ranking":
        images = [probe.open_images(x).load(range(40), 32).images for x in (reals, fakes)]
        probe.rank(*images, bank=bank, out=tmp_path / "ranking", offline=True)
        return ["--ranking", tmp_path / "ranking"]
    return []


def run(command, folder):
    done = subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True, cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def is_finite(path):
    state = torch.load(path, weights_only=True)
    return all(value.isfinite().all() for value in state.values() if value.is_floating_point())


@pytest.mark.parametrize("against", ["nothing", "names", "ranking"], indirect=True)
def test_dcgan(against, reals, tmp_path):
    shown = run(
        [EXAMPLES / "dcgan.py", reals, *TINY, "--k", "1", "--out", "out", *against], tmp_path
    )
    assert "step 2: D " in shown
    assert ("Loss/G/" in shown) == bool(against)
    assert Image.open(tmp_path / "out" / "samples.png").size == (8 * 16, 8 * 16)
    assert is_finite(tmp_path / "out" / "generator.pt")


@pytest.mark.parametrize("against", ["nothing", "ranking"], indirect=True)
def test_enlarge(against, reals, tmp_path):
    command = [EXAMPLES / "enlarge.py", reals, *TINY, "--side", "32", "--out", "out", *against]
    shown = run(command, tmp_path)
    (fooled,) = re.findall(r"step 2: L1 \d\.\d+, backbones (.*)", shown)
    assert (float(fooled) > 0) == bool(against)
    assert Image.open(tmp_path / "out" / "samples.png").size == (6 * 32, 8 * 32)
    assert is_finite(tmp_path / "out" / "enlarger.pt")


@pytest.mark.parametrize("against", ["names"], indirect=True)
def test_distill(against, reals, tmp_path):
    shown = run([EXAMPLES / "distill.py", reals, *TINY, "--out", "out", *against], tmp_path)
    assert "teacher, step 2: " in shown
    (fooled,) = re.findall(r"student, step 2: L1 \d\.\d+, backbones (.*)", shown)
    assert float(fooled) > 0
    for name in ("teacher", "student"):
        assert Image.open(tmp_path / "out" / f"{name}.png").size == (8 * 16, 8 * 16)
    assert is_finite(tmp_path / "out" / "student.pt")


@pytest.mark.parametrize("against", ["names"], indirect=True)
def test_dcgan_in_two_processes(against, reals, tmp_path):
    pytest.importorskip("accelerate", reason="the example needs accelerate")
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0"]
    tiny = [*TINY[:-2], "--cpu"]
    shown = run(
        [*launcher, EXAMPLES / "dcgan_accelerate.py", reals, *tiny, "--out", "out", *against],
        tmp_path,
    )
    prints = dict(re.findall(r"process (\d): (.*)", shown))
    assert set(prints) == {"0", "1"} and len(set(prints.values())) == 1
    assert shown.count("step 2: D ") == 1
    assert is_finite(tmp_path / "out" / "generator.pt")
