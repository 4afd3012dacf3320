"""Events that a command sends to its caller while it runs. Imports no torch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probe.checks.findings import Finding
    from probe.training.presets import Plan


@dataclass(frozen=True)
class Event:
    """Base of all events."""


@dataclass(frozen=True)
class Note(Event):
    """A sentence for the user."""

    text: str


@dataclass(frozen=True)
class InputRead(Event):
    """Part of what has to be read before the work begins was read, maybe in another thread.

    Attributes:
        what: goes on, in a few words: "indexing photos.tar".
        done: bytes read; 0 at first.
        total: bytes to read.
    """

    what: str
    done: int
    total: int


@dataclass(frozen=True)
class ExtractionStarted(Event):
    """Feature extraction for one set of images is about to start.

    Attributes:
        kind: "real", "fake" or "given".
        images: number of images of this kind.
        total: number of images of all kinds.
        backbones: names.
        speeds: backbone → images per second in earlier runs, if there were any.
    """

    kind: str
    images: int
    total: int
    backbones: tuple[str, ...]
    speeds: Mapping[str, float] = field(default_factory=dict)

    @property
    def images_of_kind(self) -> str:
        """What they are, for people: "real images"."""
        return {"fake": "generated images", "given": "images"}.get(self.kind, f"{self.kind} images")


@dataclass(frozen=True)
class BatchComputed(Event):
    """A backbone has seen some images, by all processes together; their features come later.

    Attributes:
        backbone: its name.
        images: how many.
        seconds: time they took.
    """

    backbone: str
    images: int
    seconds: float


@dataclass(frozen=True)
class FeaturesStored(Event):
    """One backbone's features of one unit of images are stored.

    Attributes:
        backbone: its name.
        done: usable images in the unit.
        computed: images that were not in the cache.
        seconds: time spent computing.
    """

    backbone: str
    done: int
    computed: int
    seconds: float


@dataclass(frozen=True)
class BackboneFailed(Event):
    """A backbone failed; the others continue."""

    backbone: str
    reason: str


@dataclass(frozen=True)
class ProbeStarted(Event):
    """A backbone's probe is about to be fitted.

    Attributes:
        backbone: its name.
        protocol: by which it is fitted.
        share: how much of all fitting is done, from 0 to 1.
    """

    backbone: str
    protocol: str
    share: float = 0.0


@dataclass(frozen=True)
class MetricsStarted(Event):
    """A backbone's metrics are about to be computed."""

    backbone: str


@dataclass(frozen=True)
class ImagesDrawn(Event):
    """A generator has drawn some of the images."""

    done: int
    total: int


@dataclass(frozen=True)
class FindingMade(Event):
    """`doctor` has a finding."""

    finding: "Finding"


@dataclass(frozen=True)
class RunPlanned(Event):
    """A training run is set up.

    Attributes:
        folder: the run directory; "." if nothing is written.
        plan: the resolved options and the schedule.
        notes: sentences about the bank.
        record: the content of training_options.json.
    """

    folder: str
    plan: "Plan"
    notes: tuple[str, ...]
    record: Mapping[str, Any]


@dataclass(frozen=True)
class StepDone(Event):
    """A training step is done; both numbers count images."""

    images: int
    total: int


@dataclass(frozen=True)
class TickDone(Event):
    """A tick is done.

    Attributes:
        members: names of the backbones in use.
        best: kimg and distance of the best snapshot, or None.
        total: images of the whole run.
        statistics: name → mean over the tick, as in stats.jsonl.
    """

    members: tuple[str, ...]
    best: tuple[float, float] | None
    total: int
    statistics: Mapping[str, float]


@dataclass(frozen=True)
class SnapshotStarted(Event):
    """A snapshot is about to be written and evaluated."""

    kimg: float


@dataclass(frozen=True)
class SnapshotSaved(Event):
    """A snapshot was written and evaluated.

    Attributes:
        path: of the snapshot.
        kimg: thousands of images seen.
        seconds: time spent writing and evaluating.
        results: the measured values: Fréchet and kernel distances under the names in
            `probe.training.evaluation.SnapshotDistances`, and the discriminators' accuracies.
    """

    path: str
    kimg: float
    seconds: float
    results: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class StateSaved(Event):
    """A state was written from which the run can resume.

    Attributes:
        folder: the run directory.
        images: seen so far.
        total: of the whole run.
    """

    folder: str
    images: int
    total: int


@dataclass(frozen=True)
class StageStarted(Event):
    """Backbones were chosen and a stage starts.

    Attributes:
        stage: its number, from 1.
        kimg: thousands of images seen.
        snapshot: name of the ranked file.
        added: the backbones that join.
        smoothed: the backbones whose targets of reals are smoothed.
    """

    stage: int
    kimg: float
    snapshot: str
    added: tuple[str, ...]
    smoothed: tuple[str, ...]


OnEvent = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Do nothing with an event."""
