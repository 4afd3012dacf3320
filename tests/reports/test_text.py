"""Remarks below tables."""

from types import SimpleNamespace

from probe.reports.text import missing_rows


def row(name, status="unavailable", reason="no weights", remedy="probe bank fetch {}"):
    return SimpleNamespace(
        name=name, status=status, reason=reason, remedy=remedy and remedy.format(name)
    )


def test_backbones_that_miss_the_same_share_a_line():
    rows = [
        row("a"), row("good", status="ok"), row("b"), row("c", reason="another file"),
        row("d", status="failed", reason="out of memory", remedy=None),
    ]  # fmt: skip
    assert missing_rows(rows) == [
        "unavailable: a, b: no weights; probe bank fetch NAME",
        "unavailable: c: another file; probe bank fetch c",
        "failed: d: out of memory",
    ]
