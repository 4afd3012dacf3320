"""The time left, from events with a clock of the test's own."""

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from probe.events import (
    BatchComputed,
    ExtractionStarted,
    FeaturesStored,
    InputRead,
    Note,
    ProbeStarted,
)
from probe.figures import duration, rate
from probe.reports import progress
from probe.reports.progress import Progress
from probe.reports.remaining import RankWork, Schedule, TrainWork
from probe.reports.train_progress import TrainLog, kimg_text


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def start(kind: str, **speeds: float) -> ExtractionStarted:
    return ExtractionStarted(kind, 100, 200, ("a", "b"), speeds)


def test_time_left_is_known_after_the_first_batch_and_comes_true():
    """Two backbones of 1 s and 3 s per image, 100 images of each kind: 800 s and the fits."""
    clock, costs = Clock(), {"a": 1.0, "b": 3.0}
    work = RankWork(clock)
    work.see(start("real"))
    assert work.left() is None
    seen, errors = [], []
    for kind in ("real", "fake"):
        if kind == "fake":
            work.see(start("fake"))
        for _ in range(2):  # units
            for name, cost in costs.items():
                for _ in range(5):
                    clock.now += 10 * cost
                    work.see(BatchComputed(name, 10, 10 * cost))
                    seen.append(work.share())
                    if "b" in work._costs:
                        errors.append(abs(clock.now + work.left() - 800))
                work.see(FeaturesStored(name, 50, 50, 50 * cost))
    assert len(seen) == 40 and seen == sorted(seen) and 0 < seen[0] < 0.1 and seen[-1] > 0.97
    assert max(errors) < 5  # the fits of 200 images
    work.see(ProbeStarted("a", "fair", 0.0))
    clock.now += 2
    work.see(ProbeStarted("b", "fair", 0.5))
    assert work.left() == pytest.approx(2) and work.doing == "fair probe of b"


def test_speeds_of_earlier_runs_tell_the_time_before_anything_ran():
    work = RankWork(Clock())
    work.see(start("real", a=1.0, b=1 / 3))
    assert work.left() == pytest.approx(800, rel=0.01)


def test_loading_a_backbone_is_not_taken_for_the_pace_of_what_follows():
    """Each backbone loads in 60 s and takes 1 s an image; an image is read in 0.1 s."""
    clock = Clock()
    work = RankWork(clock)
    work.see(start("real"))
    for unit in range(2):
        clock.now += 5  # 50 images are read
        for name in ("a", "b"):
            clock.now += 0 if unit else 60
            for _ in range(5):
                clock.now += 10
                work.see(BatchComputed(name, 10, 10.0))
            work.see(FeaturesStored(name, 50, 50, 50.0))
    assert work.left() == pytest.approx(2 * 100 + 10, rel=0.1)  # the fakes, and the fits


def test_what_is_stored_costs_nothing():
    clock = Clock()
    work = RankWork(clock)
    work.see(start("real", a=1.0, b=1.0))
    for name in ("a", "b"):
        work.see(FeaturesStored(name, 50, 0, 0.0))
    assert work.left() < 3 and work.speed("a") == "cached"


def test_training_counts_evaluations_and_stages():
    """1 s an image, 1000 images, a snapshot every 100 that takes 30 s; a stage ends at 250."""
    clock = Clock()
    work = TrainWork(clock)
    work.plan(Schedule(100, (250, 1000), (0, 0), 0))
    assert work.left() is None
    work.step(10, 1000)
    clock.now += 90
    work.step(100, 1000)
    assert work.left() == pytest.approx(900)
    work.evaluating()
    assert work.doing == "evaluating a snapshot"
    clock.now += 30
    work.evaluated(30)
    work.step(110, 1000)  # the time of the evaluation is not that of a step
    assert work.left() == pytest.approx(890 + 30 * 10)  # at 200, 250, 300, …, 1000
    work.ranking()
    clock.now += 50
    work.begin_stage(1)
    assert work.left() is None and work.doing == "training"


def test_training_counts_what_backbones_will_cost():
    """1 s an image, 2 s with a backbone and 3 s with two; stages end at 200, 400 and 600."""
    clock = Clock()
    work = TrainWork(clock)
    work.plan(Schedule(100, (200, 400, 600), (0, 1, 2), 50))

    def train(to: int, pace: float) -> None:
        work.evaluating()  # the time before the next step is not that of one
        work.step(to - 50, 600)
        clock.now += 50 * pace
        work.step(to, 600)

    train(100, 1)
    work.evaluated(10)  # of 50 images: 0.2 s each, so that a step with a backbone takes 1 s more
    assert work.left() == pytest.approx(100 * 1 + 200 * 2 + 200 * 3 + 10 * 5)
    train(200, 1)
    work.begin_stage(1)
    train(300, 2.5)  # the truth is known now
    assert work.left() == pytest.approx(100 * 2.5 + 200 * 4 + 10 * 3)
    train(400, 2.5)
    work.begin_stage(2)
    train(500, 4)
    assert work.left() == pytest.approx(100 * 4 + 10)


def test_figures_for_people():
    assert [rate(v) for v in (120.4, 12.3, 3.21, 0.42, 0.004)] == [
        "120", "12", "3.2", "0.42", "0.004"]  # fmt: skip
    assert [duration(v) for v in (40, 700, 12_600, 400_000)] == [
        "40 s", "12 min", "3.5 h", "4.6 days"]  # fmt: skip
    assert kimg_text(24, 40) == "0.024" and kimg_text(24_000, 50_000) == "24.00"
    assert kimg_text(1_024_000, 6_500_000) == "1024.0"


def events():
    yield start("real", a=1.0, b=1.0)
    for name in ("a", "b"):
        yield BatchComputed(name, 100, 100.0)
        yield FeaturesStored(name, 100, 100, 100.0)
    yield Note("a note")


def test_a_log_has_plain_lines_now_and_then(capsys, monkeypatch):
    now = SimpleNamespace(monotonic=Clock())
    monkeypatch.setattr(progress, "time", now)
    with Progress(quiet=False) as shown:
        for event in events():
            now.monotonic.now += 40
            shown(event)
    text = capsys.readouterr().err
    assert "\x1b" not in text and "\r" not in text
    lines = text.splitlines()
    assert "100 real images, 2 backbones" in lines and "a note" in lines
    assert "  a: 100 real images, 1 images/s" in lines
    assert any("real images in a · " in line and " left" in line for line in lines)
    assert len(lines) < 10


@pytest.mark.parametrize("display", [Progress, TrainLog])
def test_reading_the_inputs_shows_after_two_seconds(monkeypatch, display):
    clock = Clock()
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=clock))
    shown, moves = display(quiet=False), []
    monkeypatch.setattr(shown, "move", lambda *arguments: moves.append(arguments))
    for done, now in ((0, 0.0), (1, 1.0), (5, 5.0), (10, 10.0)):
        clock.now = now
        shown(InputRead("indexing a.tar", done, 10))
    assert moves == [(0.5, "indexing a.tar", 5.0), (1.0, "indexing a.tar", 0.0)]
    moves.clear()
    shown(InputRead("indexing b.tar", 0, 10))
    shown(InputRead("indexing b.tar", 10, 10))
    assert moves == []


def test_a_terminal_shows_one_bar(monkeypatch):
    screen = io.StringIO()
    with Progress(quiet=False) as shown:
        shown.console = Console(file=screen, force_terminal=True, width=80)
        shown.live = True
        shown._bars.disable = False
        shown._bars.live.console = shown.console
        for event in events():
            shown(event)
        (task,) = shown._bars.tasks
        assert task.description == "real images in b" and " left" in task.fields["left"]


def test_a_notebook_gets_one_display_that_is_updated(monkeypatch):
    views = []

    class Handle:
        def update(self, view, raw):
            views.append(view["text/plain"])

    def display(view, raw, display_id):
        views.append(view["text/plain"])
        assert "<progress" in view["text/html"]
        return Handle()

    monkeypatch.setattr(progress, "import_module", lambda name: SimpleNamespace(display=display))
    monkeypatch.setattr(progress, "REDRAW", 0.0)
    with Progress(quiet=False) as shown:
        shown.console.is_jupyter = True
        for event in list(events())[:-1]:
            shown(event)
    assert len(views) == 6 and "real images in a" in views[2] and views[-1] == ""
