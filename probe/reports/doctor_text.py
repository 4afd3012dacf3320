"""The findings of `probe doctor` as text."""

import io
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from probe.checks.findings import Finding
from probe.reports.text import cell, line, output_width

MARKS = {"ok": ("✓", "green"), "note": ("·", "cyan"), "warning": ("!", "yellow"),
         "problem": ("✗", "red")}  # fmt: skip
MOST = 100  # characters per line


class ExaminationText:
    """Renders findings one by one, with a heading at the start of each topic."""

    def __init__(self) -> None:
        self.terminal, width = output_width()
        self.width, self.topic = min(width, MOST), ""

    def finding(self, found: Finding) -> str:
        """Return a finding with its level and advice."""
        lines = []
        if found.topic != self.topic:
            self.topic = found.topic
            lines.append(line(found.topic.capitalize(), "bold"))
        mark, colour = MARKS[found.level]
        word = f"{found.level}: " if found.level in ("warning", "problem") else ""
        lines.append(line(f"  {mark} {word}", colour) + line(found.text, "default"))
        if found.advice:
            lines.append(line(f"      {found.advice}", "dim"))
        return self._render(lines, soft_wrap=not self.terminal)

    def commands(self, commands: Sequence[str]) -> str:
        """Return the commands to run next; they are never wrapped."""
        lines = [line("Next", "bold"), *(cell(f"  $ {command}") for command in commands)]
        return self._render(lines, soft_wrap=True)

    def _render(self, lines: Sequence[Text], *, soft_wrap: bool) -> str:
        buffer = io.StringIO()
        console = Console(
            file=buffer, width=self.width, force_terminal=self.terminal, highlight=False
        )
        for text in lines:
            console.print(text, soft_wrap=soft_wrap)
        return buffer.getvalue().rstrip("\n")
