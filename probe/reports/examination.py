"""What the doctor found, as text."""

import io

from rich.console import Console
from rich.text import Text

from probe.checks.findings import Examination
from probe.reports.text import output_width

MARKS = {"ok": ("✓", "green"), "note": ("·", "cyan"), "warning": ("!", "yellow"),
         "problem": ("✗", "red")}  # fmt: skip
MOST = 100  # characters of a line


def as_text(found: Examination) -> str:
    """Return the findings by topic, each with its level and advice, and the commands to run."""
    terminal, width = output_width()
    buffer = io.StringIO()
    console = Console(file=buffer, width=min(width, MOST), force_terminal=terminal, highlight=False)
    topic = ""
    for finding in found.findings:
        if finding.topic != topic:
            topic = finding.topic
            console.print(Text(topic.capitalize(), style="bold"))
        mark, colour = MARKS[finding.level]
        word = f"{finding.level}: " if finding.level in ("warning", "problem") else ""
        line = Text(f"  {mark} ", style=colour).append(word, style=colour)
        line.append(finding.text, style="default")
        console.print(line, soft_wrap=not terminal)
        if finding.advice:
            console.print(Text(f"      {finding.advice}", style="dim"), soft_wrap=not terminal)
    if found.commands:
        console.print(Text("Next", style="bold"))
        for command in found.commands:
            console.print(Text(f"  $ {command}"), soft_wrap=True)
    return buffer.getvalue().rstrip("\n")
