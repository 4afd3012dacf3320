"""Progress: one live bar on a terminal and in a notebook, a line now and then in a log."""

import html
import time
from abc import ABC, abstractmethod
from importlib import import_module
from types import TracebackType
from typing import Any, Self

from rich import progress as rich_progress
from rich.console import Console
from rich.table import Column

from probe.errors import printable
from probe.events import (
    BackboneFailed,
    Event,
    ExtractionStarted,
    FeaturesStored,
    InputRead,
    Note,
)
from probe.figures import duration
from probe.reports.remaining import RankWork

PATIENCE = 2.0  # seconds for which reading the inputs may take without a word
LOG_EVERY = 30.0  # seconds from one line of a log to the next
REDRAW = 0.25  # seconds, in a notebook
BAR, LEFT = 12, 20  # characters: of the bar, and of "100%, 12.3 days left"


class Bar(ABC):
    """One bar for a whole job, shown while the object is entered.

    On a terminal it is redrawn in place; in a notebook it is a display of its own; elsewhere its
    text is a line now and then, without control characters. All of it goes to stderr.

    Args:
        quiet: show nothing.
    """

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self.console = Console(stderr=True, highlight=False)
        self.live = self.console.is_terminal and not self.console.is_jupyter and not quiet
        self._shown: Any = None  # a notebook's display
        self._last = time.monotonic()
        self._text = ""
        self._reading = ("", 0.0)  # what, and since when
        self._bars = rich_progress.Progress(
            rich_progress.TextColumn(
                "{task.description}", markup=False, table_column=Column(ratio=1, no_wrap=True)
            ),
            rich_progress.BarColumn(bar_width=BAR, table_column=Column(width=BAR)),
            rich_progress.TextColumn(
                "{task.fields[left]}", markup=False, table_column=Column(width=LEFT, no_wrap=True)
            ),
            expand=True,
            console=self.console,
            transient=True,
            disable=not self.live,
        )
        self._task: rich_progress.TaskID | None = None

    def __enter__(self) -> Self:
        """Show the bar."""
        if self.live:
            self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove the bar."""
        if self.live:
            self._bars.stop()
        if self._shown is not None:
            self._shown.update({"text/plain": ""}, raw=True)

    @abstractmethod
    def __call__(self, event: Event) -> None:
        """Show an event."""

    def move(self, share: float, text: str, left: float | None) -> None:
        """Show how far the job is.

        Args:
            share: done, from 0 to 1.
            text: what goes on, in a few words.
            left: seconds left; None if not known yet.
        """
        if self.quiet:
            return
        text = printable(text)
        ahead = f"{share:.0%}" + (f", {duration(left)} left" if left is not None else "")
        if self.console.is_jupyter:
            self._redraw(share, f"{text} · {ahead}")
        elif self.live:
            if self._task is None:
                self._task = self._bars.add_task(text, total=1.0, left=ahead)
            self._bars.update(self._task, completed=share, description=text, left=ahead)
        elif time.monotonic() - self._last >= LOG_EVERY:
            self.say(f"{text} · {ahead}")

    def read(self, event: InputRead) -> None:
        """Show how much of the inputs was read; nothing at all if that takes a moment."""
        now = time.monotonic()
        if event.what != self._reading[0]:
            self._reading = (event.what, now)
        spent = now - self._reading[1]
        if spent >= PATIENCE and event.done:
            share = event.done / event.total
            self.move(share, event.what, spent * (1 - share) / share)

    def say(self, text: str) -> None:
        """Print a line above the bar, or to the log."""
        if not self.quiet:
            self._last = time.monotonic()
            self.console.print(printable(text, lines=True), markup=False, soft_wrap=True)

    def _redraw(self, share: float, text: str) -> None:
        now = time.monotonic()
        if self._shown is not None and now - self._last < REDRAW:
            return
        self._last = now
        page = f"<progress value='{share:.4f}' max='1'></progress> {html.escape(text)}"
        view = {"text/html": page, "text/plain": text}
        if self._shown is None:
            show = import_module("IPython.display").display  # a notebook has it
            self._shown = show(view, raw=True, display_id=True)
        else:
            self._shown.update(view, raw=True)


class Progress(Bar):
    """Shows the events of `probe.rank`, `probe.measure` and `probe.score`."""

    def __init__(self, *, quiet: bool) -> None:
        super().__init__(quiet=quiet)
        self.work = RankWork()

    def __call__(self, event: Event) -> None:
        """Show an event."""
        if isinstance(event, InputRead):
            self.read(event)
            return
        self.work.see(event)
        match event:
            case Note(text):
                self.say(text)
            case ExtractionStarted():
                self._log(extraction_size(event))
            case FeaturesStored(name):
                if (through := self.work.finished(name)) is not None:
                    images, kind = through
                    self._log(f"  {name}: {images} {kind}, {self.work.speed(name)}")
            case BackboneFailed(name, reason):
                self._log(f"  {name}: {reason}")
        self.move(self.work.share(), self.work.doing, self.work.left())

    def _log(self, text: str) -> None:
        """Write a line that a bar makes unnecessary."""
        if not self.live and not self.console.is_jupyter:
            self.say(text)


def extraction_size(event: ExtractionStarted) -> str:
    """Return how many images of which kind go through how many backbones."""
    count = len(event.backbones)
    return f"{event.images} {event.images_of_kind}, {count} backbone{'s' * (count != 1)}"
