"""Text from outside: shown by every door, obeyed by none."""

import ast
import contextlib
import csv
import http.server
import io
import json
import os
import pty
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from inputs import ENTRY, write_bank

from probe.errors import UNREADABLE

PACKAGE = Path(__file__).parents[2] / "probe"
# Red, the cursor home, a title, text turned round, an isolate, nothing at all, C1, a stray byte.
NASTY = "\x1b[31m\x1b[H\x1b]0;t\x07\u202eevil\u2066\u200b\x9b31m\udcff"
NAMES = ["=1+1.png", "@SUM(A1).png", "-5.png", "+5.png", f"{NASTY}.png", "two\nlines.png"]


@pytest.fixture
def nasty(reals, fakes):
    """Two sets of images with names that no terminal and no spreadsheet should meet."""
    for folder in (reals, fakes):
        for image, name in zip(sorted(folder.iterdir()), NAMES, strict=False):
            os.rename(image, os.fsencode(folder / name))
    broken = os.fsencode(reals / f"broken{NASTY}.png")
    Path(os.fsdecode(broken)).write_bytes(b"none")
    return reals, fakes


def is_harmless(text: str) -> bool:
    return all(found[0] == "\n" for found in UNREADABLE.finditer(text))


def test_there_is_one_way_out():
    """What prints, styles or writes text for people does so in one module each, which cleans it."""
    only = {
        "print": "cli/output.py",
        "typer.echo": "cli/output.py",
        "typer.secho": "cli/output.py",
        "Text": "reports/text.py",
        "to_csv": "reports/text.py",
        "json.dumps": "files.py",
    }
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        place = path.relative_to(PACKAGE).as_posix()
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                if re.search(r"\bconsole\b.*\.print$", name, re.IGNORECASE):
                    continue  # a console is given clean text
                if name == "json.dumps" and "ensure_ascii=False" not in ast.unparse(node):
                    continue  # ASCII alone is harmless
                home = only.get(name, only.get(name.rpartition(".")[2], place))
                if place != home:
                    wrong.append(f"{place}: {name}")
    assert not wrong


@pytest.mark.parametrize("view", ["table", "json", "csv", "markdown"])
def test_a_ranking_of_nasty_names(cli, bank, nasty, tmp_path, view):
    real, fake = nasty
    out = tmp_path / NASTY  # the folder's name stands in the report
    result = cli("rank", "--real", real, "--gen", fake, "--bank", bank, "--offline", "--format",
                 view, "--out", out)  # fmt: skip
    assert result.code == 0, result.err
    assert is_harmless(result.out) and is_harmless(result.err)
    assert "\\x1b[31m" in result.err  # the folder is named
    for name in ("leaderboard.json", "leaderboard.csv", "scores.csv", "report.html"):
        text = (out / name).read_text("utf-8")
        assert is_harmless(text), name
    if view == "json":
        assert any("broken" in note for note in json.loads(result.out)["notes"])


def test_scores_can_be_opened_in_a_spreadsheet(cli, bank, nasty, tmp_path):
    real, fake = nasty
    out = tmp_path / "run"
    assert cli("rank", "--real", real, "--gen", fake, "--bank", bank, "--offline", "--out",
               out).code == 0  # fmt: skip
    with (out / "scores.csv").open(encoding="utf-8", newline="") as f:
        rows = list(csv.DictReader(f))
    names = {row["image"] for row in rows}
    assert {"'=1+1.png", "'@SUM(A1).png", "'-5.png", "'+5.png", "two\\nlines.png"} <= names
    assert not any(name.startswith(tuple("=+-@\t\r")) for name in names)
    numbers = [float(row[key]) for row in rows for key in ("score", "logit")]
    assert min(numbers) < 0  # a minus sign stays one
    page = (out / "report.html").read_text("utf-8")
    assert ">=1+1.png" in page and "&#39;=1+1.png" not in page  # a page runs no formulas

    printed = cli("score", real, "--run", out, "--bank", bank, "--offline", "--format", "csv")
    assert printed.code == 3, printed.err  # one image is broken
    rows = list(csv.DictReader(io.StringIO(printed.out)))
    assert {"'=1+1.png", "'-5.png"} <= {row["image"] for row in rows}
    assert min(float(row["logit"]) for row in rows) < 0


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_the_doctor_of_nasty_names(cli, bank, nasty, form):
    real, fake = nasty
    result = cli("doctor", "--real", real, "--gen", fake, "--bank", bank, "--no-measure", *form)
    assert is_harmless(result.out) and is_harmless(result.err)
    assert "broken\\" in result.out


def test_what_a_server_says(cli, tmp_path, monkeypatch):
    class Rude(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.wfile.write(b"HTTP/1.1 500 \x1b[31mgone\x9b0m\r\nContent-Length: 0\r\n\r\n")

        def log_message(self, *args):
            pass

    monkeypatch.setattr("probe.bank.weights.download._unreachable", {}, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    bank = tmp_path / "bank.yaml"
    with http.server.HTTPServer(("127.0.0.1", 0), Rude) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        place = f"weights: {{url: 'http://127.0.0.1:{server.server_address[1]}/x.pth'}}"
        bank.write_text(ENTRY.format(name="net").replace("weights: {file: net.pt}", place))
        result = cli("bank", "fetch", "--bank", bank)
        server.shutdown()
    assert result.code == 3 and "\\x1b[31mgone\\x9b0m" in result.out, result.out
    assert is_harmless(result.out) and is_harmless(result.err)


def test_what_a_checkpoint_holds(cli, checkpoint, tmp_path):
    """Metadata and tensors of a snapshot whose names are not ours."""
    header_length = int.from_bytes(checkpoint.read_bytes()[:8], "little")
    header = json.loads(checkpoint.read_bytes()[8 : 8 + header_length])
    header["__metadata__"][f"n{NASTY[:-1]}"] = NASTY[:-1]
    text = json.dumps(header).encode()
    odd = tmp_path / "odd.safetensors"
    odd.write_bytes(
        len(text).to_bytes(8, "little") + text + checkpoint.read_bytes()[8 + header_length :]
    )
    for command in (("inspect", odd), ("inspect", odd, "--json")):
        result = cli(*command)
        assert is_harmless(result.out) and is_harmless(result.err)


def test_on_a_terminal(tmp_path, nasty):
    """A terminal is sent styles and movements of ours, and nothing of a file's name."""
    real, fake = nasty
    command = [sys.executable, "-m", "probe", "rank", "--real", str(real), "--gen", str(fake),
               "--bank", str(write_bank(tmp_path)), "--offline"]  # fmt: skip
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs, stdin=theirs)
    os.close(theirs)
    seen = b""
    with contextlib.suppress(OSError):  # the terminal's end
        while part := os.read(ours, 65536):
            seen += part
    os.close(ours)
    assert process.wait() == 0, seen[-2000:]
    assert b"\x1b[" in seen and b"broken\\x1b[31m\\x1b[H" in seen
    for evil in (b"\x1b[31m\x1b[H", b"\x1b]0;t", "\u202e".encode(), "\x9b".encode(), b"\x07"):
        assert evil not in seen


@pytest.mark.parametrize(
    "arguments",
    [
        ("inspect", "FILE"),
        ("rank", "--real", "FILE", "--gen", "FILE"),
        ("metrics", "--real", "FILE", "--gen", "FILE"),
        ("score", "FILE", "--run", "FILE"),
        ("generate", "--gen", "FILE", "--outdir", "FILE"),
        ("train", "--real", "FILE", "--outdir", "FILE"),
        ("doctor", "--real", "FILE"),
        ("report", "FILE"),
        ("bank", "list", "--bank", "FILE"),
        ("bank", "show", "FILE"),
        ("bank", "fetch", "FILE"),
        ("bank", "check", "--backbones", "FILE"),
        ("bank", "add", "timm:FILE", "--bank", "mine.yaml"),
        ("cache", "prune", "--older-than", "FILE"),
    ],
)
def test_what_a_command_complains_about_is_named_harmlessly(cli, tmp_path, arguments):
    named = str(tmp_path / f"gone{NASTY}")
    result = cli(*(part.replace("FILE", named) for part in arguments))
    assert result.code in (1, 2, 3) and "gone\\x1b[31m" in result.err, result.err
    assert is_harmless(result.out) and is_harmless(result.err)
