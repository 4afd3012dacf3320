"""Progress on stderr: live bars on a terminal, a few lines in a log."""

from types import TracebackType
from typing import Any

from rich import progress as rich_progress
from rich.console import Console

from probe.cli.output import say
from probe.errors import printable


class Progress:
    """Shows a ranking's records: one bar per backbone, or one line per backbone and class."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self.console = Console(stderr=True)
        self.live = self.console.is_terminal and not quiet
        self.bars = rich_progress.Progress(
            rich_progress.TextColumn("{task.description}"),
            rich_progress.BarColumn(),
            rich_progress.MofNCompleteColumn(),
            rich_progress.TextColumn("{task.fields[speed]}"),
            rich_progress.TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.live,
        )
        self.tasks: dict[str, rich_progress.TaskID] = {}
        self.kind, self.images = "", 0
        self.done: dict[str, int] = {}
        self.busy: dict[str, tuple[int, float]] = {}

    def __enter__(self) -> "Progress":
        """Start the bars."""
        if self.live:  # rich before 14.3 ends hidden bars with an empty line
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

    def __call__(self, record: dict[str, Any]) -> None:
        """Take one record of `probe.probing.ranking.rank`."""
        if not self.quiet:
            getattr(self, f"_{record['event']}")(record)

    def _say(self, text: str) -> None:
        if not self.live:
            say(text, err=True)

    def _start(self, record: dict[str, Any]) -> None:
        self.kind, self.images = record["class"], record["images"]
        self.done, self.busy = {}, {}
        self._say(f"{self.images} {self.kind} images, {len(record['backbones'])} backbones")
        for name in record["backbones"]:
            if name not in self.tasks:
                total = record["total"]
                self.tasks[name] = self.bars.add_task(name, total=total, speed="")

    def _features(self, record: dict[str, Any]) -> None:
        name = record["backbone"]
        computed, seconds = self.busy.get(name, (0, 0.0))
        computed, seconds = computed + record["computed"], seconds + record["seconds"]
        self.busy[name] = (computed, seconds)
        speed = f"{computed / seconds:.0f} images/s" if computed and seconds else "cached"
        self.bars.update(self.tasks[name], advance=record["done"], speed=speed)
        self.done[name] = self.done.get(name, 0) + record["done"]
        if self.done[name] >= self.images:
            self._say(f"  {name}: {self.done[name]} {self.kind} images, {speed}")

    def _note(self, record: dict[str, Any]) -> None:
        self.console.print(
            printable(record["text"], lines=True), markup=False, highlight=False, soft_wrap=True
        )

    def _failed(self, record: dict[str, Any]) -> None:
        name = record["backbone"]
        self.bars.remove_task(self.tasks.pop(name))
        self._say(f"  {name}: {record['reason']}")

    def _measure(self, record: dict[str, Any]) -> None:
        self.bars.update(self.tasks[record["backbone"]], speed="distances")

    def _probe(self, record: dict[str, Any]) -> None:
        name = record["backbone"]
        self.bars.update(self.tasks[name], speed=f"{record['protocol']} probe")
