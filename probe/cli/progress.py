"""Progress on stderr: live bars on a terminal, a few lines in a log."""

from types import TracebackType
from typing import Self

from rich import progress as rich_progress
from rich.console import Console

from probe.cli.output import say
from probe.errors import printable
from probe.events import (
    BackboneFailed,
    Event,
    ExtractionStarted,
    FeaturesStored,
    MetricsStarted,
    Note,
    ProbeStarted,
)


class Bars:
    """Bars on stderr, shown while the object is entered; hidden in a log or if quiet.

    Args:
        columns: between each bar and its remaining time.
        quiet: show nothing.
        period: seconds over which the speed is averaged.
    """

    def __init__(
        self, *columns: rich_progress.ProgressColumn, quiet: bool, period: float = 30
    ) -> None:
        self.quiet = quiet
        self.console = Console(stderr=True, highlight=False)
        self.live = self.console.is_terminal and not quiet
        self.bars = rich_progress.Progress(
            rich_progress.TextColumn("{task.description}"),
            rich_progress.BarColumn(),
            *columns,
            rich_progress.TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.live,
            speed_estimate_period=period,
        )

    def __enter__(self) -> Self:
        """Show the bars."""
        if self.live:  # rich before 14.3 prints an empty line after hidden bars
            self.bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove the bars."""
        if self.live:
            self.bars.stop()


class Progress(Bars):
    """Shows a ranking's events: one bar per backbone, or one line per backbone and class."""

    def __init__(self, *, quiet: bool) -> None:
        super().__init__(
            rich_progress.MofNCompleteColumn(),
            rich_progress.TextColumn("{task.fields[speed]}"),
            quiet=quiet,
        )
        self.tasks: dict[str, rich_progress.TaskID] = {}
        self.kind, self.images = "", 0
        self.done: dict[str, int] = {}
        self.busy: dict[str, tuple[int, float]] = {}

    def __call__(self, event: Event) -> None:
        """Show an event of `probe.rank`, `probe.measure` or `probe.score`."""
        if self.quiet:
            return
        match event:
            case ExtractionStarted():
                self._start(event)
            case FeaturesStored():
                self._count(event)
            case BackboneFailed(name, reason):
                self.bars.remove_task(self.tasks.pop(name))
                self._say(f"  {name}: {reason}")
            case MetricsStarted(name):
                self.bars.update(self.tasks[name], speed="distances")
            case ProbeStarted(name, protocol):
                self.bars.update(self._task(name), speed=f"{protocol} probe")
            case Note(text):
                self.console.print(printable(text, lines=True), markup=False, soft_wrap=True)

    def _say(self, text: str) -> None:
        if not self.live:
            say(text, err=True)

    def _task(self, name: str, total: int | None = None) -> rich_progress.TaskID:
        """Return a backbone's bar, a new one if it has none; without a total it only moves."""
        if name not in self.tasks:
            self.tasks[name] = self.bars.add_task(name, total=total, speed="")
        return self.tasks[name]

    def _start(self, event: ExtractionStarted) -> None:
        self.kind, self.images = event.kind, event.images
        self.done, self.busy = {}, {}
        self._say(f"{self.images} {self.kind} images, {len(event.backbones)} backbones")
        for name in event.backbones:
            task = self._task(name, event.total)
            if event.kind == "real":  # again, in a later round
                self.bars.reset(task, total=event.total)

    def _count(self, event: FeaturesStored) -> None:
        name = event.backbone
        computed, seconds = self.busy.get(name, (0, 0.0))
        computed, seconds = computed + event.computed, seconds + event.seconds
        self.busy[name] = (computed, seconds)
        speed = f"{computed / seconds:.0f} images/s" if computed and seconds else "cached"
        self.bars.update(self.tasks[name], advance=event.done, speed=speed)
        self.done[name] = self.done.get(name, 0) + event.done
        if self.done[name] >= self.images:
            self._say(f"  {name}: {self.done[name]} {self.kind} images, {speed}")
