"""How much of a job is done and how long the rest takes, from its events."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from probe.events import (
    BackboneFailed,
    BatchComputed,
    Event,
    ExtractionStarted,
    FeaturesStored,
    MetricsStarted,
    ProbeStarted,
)
from probe.figures import rate

# Numbers of features that are fitted in a second, and of a backbone whose width is not known yet.
FITTED, WIDTH = 1.4e6, 1000
# A backbone in a training costs this many of its forward passes for each image: one, and back,
# for the generator, and one each of a real and a generated image for its own head.
PASSES = 5
FIRST_FIT = 1.0  # seconds that a fit takes however few the images


@dataclass
class _Pass:
    """One pass of images through backbones; mappings are by backbone.

    Attributes:
        kind: of the images.
        what: they are, for people.
        images: how many.
        started: when.
        stored: images of which the features are stored.
        begun: images computed since then.
        computed: images computed in all.
        busy: seconds that these took.
        loading: seconds before the first batch of each, in which it was loaded.
    """

    kind: str
    what: str
    images: int
    started: float
    stored: dict[str, int] = field(default_factory=dict)
    begun: dict[str, int] = field(default_factory=dict)
    computed: dict[str, int] = field(default_factory=dict)
    busy: dict[str, float] = field(default_factory=dict)
    loading: float = 0.0

    def done(self, name: str) -> int:
        """Return how many images a backbone is through with."""
        return min(self.images, self.stored.get(name, 0) + self.begun.get(name, 0))

    def fresh(self, name: str) -> float:
        """Return the share of images whose features were not stored by an earlier run."""
        done = self.done(name)
        return self.computed.get(name, 0) / done if done else 1.0


class RankWork:
    """Follows a ranking, a measurement or a scoring of images.

    Time left is the sum over backbones of images times seconds per image. A backbone that has not
    run yet takes its speed of earlier runs, or else the mean of the others.

    Attributes:
        doing: what goes on now, in words.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._last = clock, clock()
        self._begun: float | None = None
        self._pass: _Pass | None = None
        self._names: tuple[str, ...] = ()
        self._costs: dict[str, float] = {}
        self._speeds: Mapping[str, float] = {}
        self._later = 0  # images of the kinds that follow
        self._fitting: tuple[float, float] | None = None  # when, share done
        self._farthest = 0.0
        self.doing = "starting"

    def see(self, event: Event) -> None:
        """Take note of an event."""
        last, self._last = self._last, self._clock()
        match event:
            case ExtractionStarted():
                self._start(event)
            case BatchComputed(name, images, seconds):
                if self._pass is not None and name not in self._pass.computed:
                    self._pass.loading += max(0.0, self._last - last - seconds)
                self._count(name, images, seconds)
            case FeaturesStored(name, done, computed):
                self._store(name, done, computed)
            case BackboneFailed(name):
                self._names = tuple(n for n in self._names if n != name)
            case ProbeStarted(name, protocol, share):
                if self._fitting is None:
                    self._fitting = (self._clock(), share)
                self._fitting = (self._fitting[0], share)
                self.doing = f"{protocol} probe of {name}" if protocol else f"probes of {name}"
            case MetricsStarted(name):
                self.doing = f"distances in {name}"

    def left(self) -> float | None:
        """Return the seconds that are left, None if nothing is known yet."""
        if self._fitting is not None:
            return self._fits_left()
        if self._pass is None or not self._names:
            return None
        costs = {name: self._cost(name) for name in self._names}
        known = [cost for cost in costs.values() if cost is not None]
        if not known:
            return None
        mean, total = sum(known) / len(known), 0.0
        for name in self._names:
            cost = known_or(costs[name], mean)
            images = self._pass.images - self._pass.done(name) + self._later
            total += images * cost * self._pass.fresh(name)
        return total + self._waiting() + self._fits()

    def share(self) -> float:
        """Return how much is done, from 0 to 1; it never falls."""
        left = self.left()
        if left is not None and self._begun is not None:
            spent = self._clock() - self._begun
            self._farthest = max(self._farthest, spent / max(1e-9, spent + left))
        return min(self._farthest, 0.99)  # what remains is not known to the second

    def speed(self, name: str) -> str:
        """Return a backbone's speed in this pass, for people."""
        computed, busy = self._pass_of(name)
        return f"{rate(computed / busy)} images/s" if computed and busy else "cached"

    def finished(self, name: str) -> tuple[int, str] | None:
        """Return how many images of which kind a backbone is through with, None if not all."""
        here = self._pass
        if here is None or here.stored.get(name, 0) < here.images:
            return None
        return here.stored[name], here.what

    def _start(self, event: ExtractionStarted) -> None:
        if event.kind == "real" or self._pass is None:
            self._later = event.total - event.images
        else:
            self._later = 0
        if self._begun is None:
            self._begun = self._clock()
        self._fitting = None
        self._names, self._speeds = event.backbones, event.speeds
        self._pass = _Pass(event.kind, event.images_of_kind, event.images, self._clock())
        self.doing = event.images_of_kind

    def _count(self, name: str, images: int, seconds: float) -> None:
        here = self._pass
        if here is None:
            return
        here.begun[name] = here.begun.get(name, 0) + images
        here.computed[name] = here.computed.get(name, 0) + images
        here.busy[name] = here.busy.get(name, 0.0) + seconds
        self._costs[name] = here.busy[name] / here.computed[name]
        self.doing = f"{here.what} in {name.removesuffix('@')}"  # several layers of one network

    def _store(self, name: str, done: int, computed: int) -> None:
        here = self._pass
        if here is None:
            return
        here.begun[name] = 0
        here.stored[name] = here.stored.get(name, 0) + done

    def _pass_of(self, name: str) -> tuple[int, float]:
        here = self._pass
        return (0, 0.0) if here is None else (here.computed.get(name, 0), here.busy.get(name, 0.0))

    def _cost(self, name: str) -> float | None:
        """Return a backbone's seconds per image, measured now or earlier."""
        if name in self._costs:
            return self._costs[name]
        return 1 / self._speeds[name] if self._speeds.get(name) else None

    def _waiting(self) -> float:
        """Return the seconds left in which images are decoded or drawn and no backbone runs."""
        here = self._pass
        assert here is not None
        # A unit of images is read once and goes through one backbone after the other.
        read = max(here.done(name) for name in self._names)
        if not read:
            return 0.0
        idle = self._clock() - here.started - sum(here.busy.values()) - here.loading
        return max(0.0, idle) / read * (here.images - read + self._later)

    def _fits(self) -> float:
        """Return the seconds that all fits take, roughly."""
        assert self._pass is not None
        both = 2 * self._pass.images if self._pass.kind in ("real", "fake") else 0
        return len(self._names) * (FIRST_FIT + both * WIDTH / FITTED)

    def _fits_left(self) -> float:
        assert self._fitting is not None
        started, share = self._fitting
        if not share:
            return self._fits() if self._pass is not None else 0.0
        return (self._clock() - started) / share * (1 - share)


def known_or(value: float | None, default: float) -> float:
    """Return a value, or the default for None."""
    return default if value is None else value


class TrainWork:
    """Follows a training run: steps, snapshots with their evaluation, and rankings.

    Attributes:
        images: real images shown.
        total: those of the whole run.
        doing: what goes on now, in words.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._last = clock, clock()
        self._pause = True  # whether the time since the last step went into something else
        self._steps = [0.0, 0.0]  # seconds and images of this stage's steps
        self._alone: float | None = None  # seconds per image without backbones
        self._snapshots: list[float] = []
        self._rankings: list[float] = []
        self._plan = Schedule(0.0, (), (), 0)
        self._ranking_since: float | None = None
        self.images = self.total = 0
        self.stage = 0
        self.doing = "training"

    def plan(self, schedule: "Schedule") -> None:
        """Take what is to come."""
        self._plan = schedule

    def step(self, images: int, total: int) -> None:
        """Take note of a step."""
        now = self._clock()
        if not self._pause:
            self._steps[0] += now - self._last
            self._steps[1] += images - self.images
        self._last, self._pause = now, False
        self.images, self.total, self.doing = images, total, "training"

    def ranking(self) -> None:
        """A ranking of the unused backbones begins or goes on."""
        self._pause, self.doing = True, "ranking backbones"
        if self._ranking_since is None:
            self._ranking_since = self._clock()

    def evaluating(self) -> None:
        """A snapshot is about to be evaluated."""
        self._pause, self.doing = True, "evaluating a snapshot"

    def evaluated(self, seconds: float) -> None:
        """A snapshot was evaluated."""
        self._snapshots.append(seconds)
        self.doing = "training"

    def begin_stage(self, stage: int) -> None:
        """Take note of a new stage, in which steps take longer."""
        if self._ranking_since is not None:
            self._rankings.append(self._clock() - self._ranking_since)
        if self._members(self.stage) == 0 and self._steps[1]:
            self._alone = self._steps[0] / self._steps[1]
        self._ranking_since, self._pause = None, True
        self.stage, self._steps, self.doing = stage, [0.0, 0.0], "training"

    def left(self) -> float | None:
        """Return the seconds left with evaluations and rankings, None if no step was timed."""
        seconds, images = self._steps
        if not images:
            return None
        pace, more = seconds / images, self._each(seconds / images)
        steps, begun = 0.0, self.images
        for stage, end in enumerate(self._plan.ends or (self.total,)):
            coming = max(0, min(end, self.total) - begun)
            dearer = max(0, self._members(stage) - self._members(self.stage))
            steps += coming * (pace + dearer * more)
            begun += coming
        return steps + self._snapshots_left() * _mean(self._snapshots) + self._rankings_left()

    def _members(self, stage: int) -> int:
        """Return how many backbones are in use in a stage."""
        return self._plan.members[stage] if stage < len(self._plan.members) else 0

    def _each(self, pace: float) -> float:
        """Return the seconds per image that one more backbone takes."""
        here = self._members(self.stage)
        if here and self._alone is not None:
            return max(0.0, pace - self._alone) / here
        judged = self._plan.judged  # the evaluator is a backbone too
        return PASSES * _mean(self._snapshots) / judged if judged else 0.0

    def _snapshots_left(self) -> int:
        every = self._plan.every
        if not every:
            return 0
        regular = int(self.total // every) - int(self.images // every)
        between = [e for e in self._plan.ends if self.images < e <= self.total and e % every]
        return regular + len(between)

    def _rankings_left(self) -> float:
        stages = sum(1 for end in self._plan.ends[:-1] if end > self.images)
        return stages * _mean(self._rankings)


@dataclass(frozen=True)
class Schedule:
    """What a training run has to do.

    Attributes:
        every: images from one snapshot to the next.
        ends: images at the end of each stage.
        members: backbones in use in each stage.
        judged: generated images of an evaluation.
    """

    every: float
    ends: Sequence[int]
    members: Sequence[int]
    judged: int


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0
