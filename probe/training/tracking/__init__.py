"""Where people watch training runs besides the run directory: TensorBoard, W&B, Trackio.

`TRACKERS` has a line for each word of --log. Curves are named as in stats.jsonl and in the files
of metrics.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from probe.errors import UsageError
from probe.registry import Place, load

Rows = Sequence[Sequence[Any]]


class Tracker(Protocol):
    """Takes what a run records. `images` counts real images shown, the horizontal axis."""

    def scalars(self, images: int, values: Mapping[str, float]) -> None:
        """Take numbers by name."""
        ...

    def picture(self, images: int, name: str, path: Path) -> None:
        """Take an image file."""
        ...

    def table(self, images: int, name: str, headings: Sequence[str], rows: Rows) -> None:
        """Take a table of plain values."""
        ...

    def close(self) -> None:
        """Write what is left."""
        ...


@dataclass(frozen=True)
class Tracked:
    """The run that a tracker is opened for.

    Attributes:
        folder: the run directory.
        record: the content of its training_options.json.
        images: seen in the state that is resumed; None for a new run.
    """

    folder: Path
    record: Mapping[str, Any]
    images: int | None


@dataclass(frozen=True)
class Kind:
    """A word that --log takes.

    Attributes:
        opens: opens a tracker; returns None for none.
        package: that it needs, as it is called at the registry and in Python; "" for none.
    """

    opens: Place[Callable[[Tracked], Tracker | None]]
    package: str = ""


TRACKERS: dict[str, Kind] = {
    "auto": Kind("probe.training.tracking:open_installed"),
    "tensorboard": Kind("probe.training.tracking.tensorboard:TensorBoard", "tensorboard"),
    "wandb": Kind("probe.training.tracking.hosted:open_wandb", "wandb"),
    "trackio": Kind("probe.training.tracking.hosted:open_trackio", "trackio"),
    "none": Kind(lambda run: None),
}


def open_installed(run: Tracked) -> Tracker | None:
    """Open TensorBoard if it is installed."""
    kind = TRACKERS["tensorboard"]
    return load(kind.opens)(run) if find_spec(kind.package) else None


def check_tracker(name: str) -> None:
    """Check that what --log names is installed.

    Raises:
        UsageError: it is not; says how to install it.
    """
    package = TRACKERS[name].package
    if package and find_spec(package) is None:
        raise UsageError(
            f"--log {name}: {package} is not installed. Install it: pip install {package}"
        )


def open_tracker(name: str, run: Tracked) -> Tracker | None:
    """Return the tracker that --log names, None for none.

    Args:
        name: a key of `TRACKERS`.
        run: what it tracks.

    Raises:
        ProbeError: it cannot be opened.
    """
    return load(TRACKERS[name].opens)(run)
