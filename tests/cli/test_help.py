"""What a user reads before anything runs: help that fits, completion, near misses."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.cells import cell_len
from typer.main import get_command

from probe.cli import app

PANELS = ["Options", "Backbones", "Schedule", "Network", "Augmentation", "Evaluation", "Advanced"]
NAMES = ["train", "rank", "metrics", "score", "doctor", "generate", "demo", "bank", "cache", None]


def helped(cli, monkeypatch, name: str | None, width: int) -> str:
    monkeypatch.setenv("COLUMNS", str(width))
    return cli(*([] if name is None else [name]), "--help").out


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("name", NAMES)
def test_help_fits_and_cuts_nothing(cli, monkeypatch, name, width):
    text = helped(cli, monkeypatch, name, width)
    assert max(map(cell_len, text.splitlines())) <= width
    assert "<bool>" not in text and "default: no-" not in text
    words = " ".join(re.sub("[│╭╮╰╯─]", " ", text).split())
    command = get_command(app) if name is None else get_command(app).commands[name]
    for parameter in command.params:
        assert " ".join((parameter.help or "").split()) in words, parameter.name
        flags = parameter.secondary_opts if parameter.default is True else parameter.opts
        assert all(flag in words for flag in flags), parameter.name


def test_the_options_of_training_stand_in_panels(cli, monkeypatch):
    text = helped(cli, monkeypatch, "train", 80)
    assert re.findall(r"^╭─ (\w+) ", text, re.MULTILINE) == PANELS
    schedule = text.partition("─ Schedule ")[2].partition("╰")[0]
    assert all(flag in schedule for flag in ("--kimg", "--stage-kimg", "--patience", "--batch"))
    assert "--no-mirror" in text and "--mirror" not in text and "--no-cond" not in text


def test_num_is_a_number_of_images_everywhere(cli, reals):
    """Not the number of backbones, for which `probe train` once took it."""
    for name in ("rank", "metrics", "train", "demo"):
        (found,) = [p for p in get_command(app).commands[name].params if "--num" in p.opts]
        assert "images" in found.help.lower()
    assert cli("train", "--real", reals, "--num", 3).code == 2


def completed(line: str, *, cwd: Path | None = None) -> list[str]:
    """Return what bash is offered after a line, by the protocol of Typer's own script."""
    words = line.split(" ")
    environment = {**os.environ, "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1),
                   "_PROBE_COMPLETE": "complete_bash"}  # fmt: skip
    start = "import sys; sys.argv = ['probe']; from probe.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", start], env=environment, cwd=cwd, capture_output=True, text=True
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("probe ra", ["rank"]),
        ("probe bank in", ["init"]),
        ("probe rank --back", ["--backbones"]),
        ("probe rank --backbones mobile", ["mobilenetv2"]),
        ("probe rank --backbones mobilenetv2,clip-vit-b", ["mobilenetv2,clip-vit-b32"]),
        ("probe rank --backbones mobilenetv2,@pa", ["mobilenetv2,@paper"]),
        ("probe train --backbones @pa", ["@paper"]),
        ("probe bank show swin-t-m", ["swin-t-moby"]),
        ("probe bank fetch @off", ["@offline"]),
        ("probe train --strategy pro", ["progressive"]),
        ("probe train --cfg paper5", ["paper512"]),
        ("probe rank --precision t", ["tf32"]),
        ("probe export x --format ros", ["rosinality"]),
    ],
)
def test_the_shell_completes(line, offered):
    assert completed(line) == offered


def test_names_come_from_the_bank_in_use(bank, tmp_path):
    line = f"probe rank --bank {bank} --backbones "
    assert completed(f"{line}c") == ["colour"]
    bank.write_text("- [")
    assert completed(f"{line}c") == []


def test_completion_can_be_installed(cli, monkeypatch):
    text = helped(cli, monkeypatch, None, 80)
    assert "--install-completion" in text
    code = "import sys; sys.argv = ['probe']; from probe.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "_PROBE_COMPLETE": "source_zsh"},
        capture_output=True, text=True, encoding="utf-8",
    )  # fmt: skip
    assert done.returncode == 0 and "#compdef probe" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["rnk"], "'rank'"),
        (["bank", "fethc"], "'fetch'"),
        (["rank", "--reel", "x"], "--real"),
        (["train", "--real", "reals", "--no-miror"], "--no-mirror"),
        (["train", "--real", "reals", "--strategy", "progresive"], "'progressive'"),
        (["rank", "--real", "reals", "--gen", "x", "--backbones", "clip"], "'clip-vit-b32'"),
        (["rank", "--real", "reals", "--gen", "x", "--backbones", "@papr"], "'paper'"),
        (["rank", "--real", "raels", "--gen", "x"], "'reals'"),
        (["rank", "--real", "reals", "--gen", "G.pk"], "'G.pkl'"),
        (["score", "reals", "--run", "raels"], "'reals'"),
        (["bank", "list", "--bank", "mybnk.yaml"], "'mybank.yaml'"),
        (["report", "raels"], "'reals'"),
    ],
)
def test_a_near_miss_is_suggested(cli, reals, tmp_path, monkeypatch, arguments, meant):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "G.pkl").write_bytes(b"x")
    (tmp_path / "mybank.yaml").write_text("[]")
    result = cli(*arguments)
    assert result.code in (1, 2) and meant in result.err, result.err


def test_an_unknown_backbone_is_met_with_the_nearest_not_with_all(cli, reals):
    error = cli("rank", "--real", reals, "--gen", "x", "--backbones", "zzz").err
    assert "The nearest of" in error and error.count(",") == 2
