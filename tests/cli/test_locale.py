"""Whole commands in a locale that is ASCII, in folders and on files whose names are not UTF-8."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from inputs import write_bank, write_images

# One process for all: each would load PyTorch anew.
CODE = """
import json, sys
from probe.cli import main
for words in json.loads(sys.argv[1]):
    sys.argv = ["probe", *words]
    try:
        main()
    except SystemExit as end:
        code = end.code or 0
    else:
        code = 0
    sys.stdout.flush()
    print(f"{words[0]} ends with {code}", file=sys.stderr, flush=True)
"""
JUDGE = """
- name: judge
  source: torchscript
  model: edges
  weights: {file: edges.pt}
  input: 32
  mean: [0.5, 0.5, 0.5]
  std: [0.5, 0.5, 0.5]
  task: none
  data: none
  license: none
  role: evaluator
"""


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder whose name is Latin-1, with images of such names, a bank and a checkpoint."""
    place = tmp_path / os.fsdecode(b"bilder \xe9")
    try:
        place.mkdir()
    except OSError:
        pytest.skip("this file system takes names in UTF-8 alone")
    for name, seed, blue in (("reals", 1, 0), ("fakes", 2, 40)):
        images = write_images(place / name, 40, seed=seed, blue=blue)
        (images / "000.png").rename(images / os.fsdecode(b"caf\xe9.png"))
        (images / "001.png").rename(images / "naïve ≥.png")
        (images / os.fsdecode(b"broken \xe9.png")).write_bytes(b"\x89PNG")
    bank = write_bank(tmp_path)
    (place / "bank.yaml").write_text(bank.read_text("utf-8") + JUDGE, "utf-8")
    for path in tmp_path.glob("*.pt"):
        path.rename(place / path.name)
    return place


def run(place: Path, *commands: list[object], **environment: str):
    """Run commands in the locale C, which Python is kept from taking for UTF-8."""
    words = json.dumps([[str(word) for word in command] for command in commands])
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", CODE, words], cwd=place, capture_output=True,
        env={**os.environ, **locale, **environment},
    )  # fmt: skip
    errors = done.stderr.decode("utf-8")  # whatever the locale
    assert done.returncode == 0 and "Traceback" not in errors, errors
    assert all(f"{command[0]} ends with 0" in errors for command in commands), errors
    return done.stdout.decode("utf-8")


def test_rankings_and_their_files(folder):
    out = folder / "out"
    common = ["--bank", "bank.yaml", "--offline"]
    image = folder / "fakes" / os.fsdecode(b"caf\xe9.png")
    pair = ["--real", folder / "reals", "--gen", folder / "fakes", *common]
    shown = run(
        folder,
        ["rank", *pair, "--out", out],
        ["score", image, "--run", out, "--format", "csv", *common],
        ["report", out],
    )
    assert "caf\\udce9.png" in shown and "report.html" in shown
    board = json.loads((out / "leaderboard.json").read_text("utf-8"))
    assert board["config"]["real"]["path"] == str(folder / "reals")  # and can be opened again
    scores = (out / "scores.csv").read_text("utf-8")
    assert "caf\\udce9.png" in scores
    assert "data:image" in (out / "report.html").read_text("utf-8")
    table = run(folder, ["rank", *pair, "--format", "json"])
    assert json.loads(table)["n_real"] == 40


def test_training_and_what_it_leaves(folder):
    runs = folder / "runs"
    common = ["--bank", "bank.yaml", "--offline"]
    training = ["train", "--real", "reals", "--outdir", runs, *common, "--strategy", "fixed"]
    small = ["--k", 1, "--batch", 8, "--channel-base", 512, "--channel-max", 16, "--snap", 1]
    length = ["--eval-num", 16, "--tick", 0.016, "--stage-kimg", "0.016,0.016"]
    run(folder, [*training, *small, *length])
    done = runs / "00000-reals"
    assert "Fréchet" in (done / "log.txt").read_text("utf-8")
    assert (done / "selection-stage1.json").exists()
    shown = run(
        folder,
        ["generate", "--gen", done, "--seeds", "0-1", "--outdir", folder / "drawn"],
        ["inspect", done / "network-snapshot-best.safetensors"],
        ["doctor", "--real", "reals", "--run", done, "--no-measure"],
        ["report", done],
        ["rank", "--real", "reals", "--gen", done, *common, "--num", 16],
    )
    assert "stylegan2" in shown.lower() and len(list((folder / "drawn").iterdir())) == 2
    (done / "report.html").read_text("utf-8")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_what_is_piped_is_utf8(folder, encoding):
    shown = run(folder, ["bank", "list", "--bank", folder / "bank.yaml"], ["rank", "--help"],
                PYTHONIOENCODING=encoding)  # fmt: skip
    assert "colour" in shown and "--match-jpeg" in shown
