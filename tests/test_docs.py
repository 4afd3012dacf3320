"""The documentation: it builds without a warning, its examples run, its commands exist."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import typer
from inputs import tiny_generator, write_bank, write_images, write_judged_bank

import probe
from probe.cli import app
from probe.generators.files.snapshot import save_snapshot

ROOT = Path(__file__).parents[1]
WRITTEN = [p for p in sorted((ROOT / "docs").glob("*.md")) if p.name != "commands.md"]
PAGES = [ROOT / "README.md", *WRITTEN, ROOT / "experiments/README.md"]  # commands.md is generated
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    return [text for kind, text in BLOCK.findall(page.read_text("utf-8")) if kind == language]


def test_it_builds_without_a_warning(tmp_path):
    pytest.importorskip("sphinx", reason="needs the extra 'docs'")
    source = shutil.copytree(ROOT / "docs", tmp_path / "docs")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", source, tmp_path / "html"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    commands = (tmp_path / "html" / "commands.html").read_text("utf-8")
    assert "probe-rank" in commands and "--match-jpeg" in commands


def test_the_python_page_runs_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_bank(tmp_path).rename("modelbank.yaml")
    write_images(tmp_path / "my_images", 64, seed=0)
    save_snapshot(tmp_path / "G.safetensors", tiny_generator(), metadata={})
    page = ROOT / "docs" / "api.md"
    (entry,) = blocks(page, "yaml")
    Path("mine.yaml").write_text(entry)
    names: dict = {"__name__": "page"}
    exec("import torch", names)
    for text in blocks(page, "python"):
        if "torch.jit.script" in text:  # it reads the source of a class, so it needs a file
            Path("mine.py").write_text("import torch\n" + text)
            subprocess.run([sys.executable, "mine.py"], check=True)
        else:
            exec(compile(text, str(page), "exec"), names)
    assert {r.name for r in names["ranking"].leaderboard.rows if r.role != "null"} >= {"mine"}


CLIP = """
- name: clip-vit-b32
  source: timm
  model: test_vit
  weights: {random: 0}
  input: 160
  mean: [0.5, 0.5, 0.5]
  std: [0.5, 0.5, 0.5]
  task: none
  data: none
  license: none
  role: control
"""


def test_the_page_on_other_trainers_runs_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("modelbank.yaml").write_text(write_judged_bank(tmp_path).read_text() + CLIP)
    reals = write_images(tmp_path / "my_images", 40, seed=0)
    blue = probe.open_images(write_images(tmp_path / "fakes", 40, seed=9, blue=55))
    images = blue.load(range(40), 32).images
    probe.rank(reals, images, out="ranking", offline=True)
    two = images[:2].float() / 127.5 - 1
    noise = torch.randint(0, 255, (40, 3, 32, 32), dtype=torch.uint8)  # what is left sees edges
    names = {"reals": two, "fakes": two.clone().requires_grad_(), "draw": lambda n, s: noise[:n]}
    page = ROOT / "docs" / "any-trainer.md"
    for text in blocks(page, "python"):
        exec(compile(text, str(page), "exec"), names)
    assert list(names["critics"].backbones) == ["clip-vit-b32"]
    assert names["loss_g"].isfinite() and names["found"].added


def commands(page: Path) -> list[list[str]]:
    """Return the words of every `probe` command on a page."""
    lines = []
    for text in blocks(page, "console"):
        joined = text.replace("\\\n", " ")
        lines += re.findall(r"^\$ probe (.*)$", joined, re.MULTILINE)
    return [re.split(r"\s+(?![^']*'(?:[^']*'[^']*')*[^']*$)", line.strip()) for line in lines]


def find(words: list[str]):
    """Return what Typer makes of a command's name."""
    command = typer.main.get_command(app)
    for word in words:
        if not hasattr(command, "commands"):
            break
        assert word in command.commands, f"there is no command '{' '.join(words)}'"
        command = command.commands[word]
    return command


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_command_and_flag_exists(page):
    for words in commands(page):
        if words[0].startswith("-"):
            continue
        known = {o for p in find(words).params for o in (*p.opts, *p.secondary_opts)}
        known |= {"--help", "--version"}
        given = {w.partition("=")[0] for w in words if re.match(r"--?[a-zA-Z]", w)}
        assert given <= known, f"probe {' '.join(words)}: no {sorted(given - known)}"


def test_there_are_commands_to_check():
    assert sum(len(commands(page)) for page in PAGES) > 20
