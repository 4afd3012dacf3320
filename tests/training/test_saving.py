"""Saving between snapshots, and stopping on a signal: the run goes on exactly."""

import json
import os
import signal
import threading

import pytest
import torch
from runs import differences, saved

from probe.errors import ProbeError, UsageError
from probe.events import Note
from probe.stops import delayed_stops
from probe.training.config import TrainConfig

LONG = {"kimg": 0.032, "tick": 0.016, "device": "cpu", "save_every": "1h"}


class Halt(BaseException):
    """What the program's own handler raises."""


@pytest.fixture(autouse=True)
def own_handler():
    def halt(signum, frame):
        raise Halt(signum)

    before = {s: signal.signal(s, halt) for s in (signal.SIGTERM, signal.SIGUSR1)}
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


def signalled(monkeypatch, images: int, signum: int) -> None:
    """Send a signal in the middle of the step that begins at a number of images."""
    import probe.training.loop as loop

    step = loop.train_step

    def interrupted(state, *arguments, **keywords):
        if state.images == images:
            os.kill(os.getpid(), signum)
        return step(state, *arguments, **keywords)

    monkeypatch.setattr(loop, "train_step", interrupted)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGUSR1])
@pytest.mark.parametrize("images", [0, 4, 12, 20])
def test_a_signal_ends_the_step_and_the_run_goes_on_bit_by_bit(fit, monkeypatch, signum, images):
    """Before the first snapshot and after it, in the middle of a tick and in its last step."""
    whole, _ = fit("whole", **LONG)
    told = []
    with monkeypatch.context() as patch:
        signalled(patch, images, signum)
        patch.setattr("probe.training.saving.Note", lambda text: told.append(text) or Note(text))
        with pytest.raises(Halt) as halted:
            fit("parts", **LONG)
    assert halted.value.args == (signum,)
    kimg, name = (images + 4) / 1000, signal.Signals(signum).name
    assert told == [f"Stopped by {name} at kimg {kimg:g}, where the run will go on."]
    folder, _ = fit("parts", **LONG)
    assert folder.name == "00000-small"
    assert differences(saved(whole), saved(folder)) == []
    assert len(lines(folder / "stats.jsonl")) == 2
    for one, other in zip(lines(whole / "stats.jsonl"), lines(folder / "stats.jsonl"), strict=True):
        assert {k: v for k, v in one.items() if k.startswith("Loss")} == {
            k: v for k, v in other.items() if k.startswith("Loss")
        }


def test_a_state_is_saved_every_so_often(fit, monkeypatch):
    import probe.training.saving as saving

    written, write = [], saving.write_state

    def noting(folder, record):
        written.append(record["images"])
        write(folder, record)

    monkeypatch.setattr(saving, "write_state", noting)
    fit("often", **LONG | {"save_every": "0.000001s"})
    assert written == [4, 8, 12, 16, 16, 20, 24, 28, 32, 32]
    written.clear()
    fit("seldom", **LONG)
    assert written == [16, 32]


def test_a_state_that_became_nan_between_snapshots_is_not_saved(fit, monkeypatch):
    import probe.training.loop as loop

    step = loop.train_step

    def broken(state, *arguments, **keywords):
        found = step(state, *arguments, **keywords)
        if state.images == 8:
            next(state.generator.parameters()).data.fill_(float("nan"))
        return found

    monkeypatch.setattr(loop, "train_step", broken)
    with pytest.raises(ProbeError, match=r"NaN or infinite.*last good state is in .*00000-small"):
        fit(**LONG | {"save_every": "0.000001s"})


def test_a_signal_during_an_evaluation_acts_at_once(fit, monkeypatch):
    """The state before it is saved if more than a moment of training would be lost."""
    import probe.training.loop as loop

    whole, _ = fit("whole", **LONG)
    with monkeypatch.context() as patch:
        patch.setattr("probe.training.saving.SLIGHT", 0.0)
        patch.setattr(loop, "save_grid", lambda *a, **k: os.kill(os.getpid(), signal.SIGTERM))
        patch.setattr(loop, "_begin", lambda *a: None)
        with pytest.raises(Halt):
            fit("parts", **LONG)
    folder = whole.parents[1] / "parts" / "00000-small"
    assert saved(folder)["images"] == 16 and saved(folder)["snapped"] == 0
    fit("parts", **LONG)
    assert differences(saved(whole), saved(folder)) == []


def test_other_intervals_are_the_same_run(fit):
    first, _ = fit(**LONG | {"kimg": 0.016})
    again, _ = fit(**LONG | {"save_every": "2min"}, resume=first)
    assert again == first and saved(first)["images"] == 32


@pytest.mark.parametrize("text", ["10", "0s", "soon", "-1min", "1 day", "", "1e3s"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(UsageError, match="--save-every: .* 30s, 10min or 1h"):
        TrainConfig(save_every=text)


def test_durations():
    seconds = [TrainConfig(save_every=text).save_seconds for text in ("30s", "10 min", "1.5h")]
    assert seconds == [30, 600, 5400]


def test_a_second_signal_acts_at_once_unless_it_is_an_echo(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("probe.stops.time.monotonic", lambda: now[0])
    with delayed_stops() as stop:
        signal.raise_signal(signal.SIGTERM)
        now[0] = 1.0
        signal.raise_signal(signal.SIGTERM)
        assert stop.signum == signal.SIGTERM
        now[0] = 3.0
        with pytest.raises(Halt):
            signal.raise_signal(signal.SIGTERM)
        stop.signum = None


def test_a_delayed_signal_acts_when_the_body_is_done():
    done = []
    with pytest.raises(Halt), delayed_stops():
        signal.raise_signal(signal.SIGTERM)
        done.append(True)
    assert done
    with pytest.raises(Halt), delayed_stops() as stop:
        signal.raise_signal(signal.SIGTERM)
        with stop.at_once():
            done.append("never")
    assert done == [True]


def test_ignored_signals_stay_ignored_and_other_threads_are_left_alone():
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    with delayed_stops() as stop:
        signal.raise_signal(signal.SIGUSR1)
        assert stop.signum is None
    found = []

    def run():
        with delayed_stops() as stop:
            found.append(stop.signum)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [None]


def test_statistics_of_a_tick_are_kept_in_the_state():
    from contexts import new_state

    from probe.processes import Processes
    from probe.training.presets import make_plan

    options = {"z_dim": 8, "w_dim": 8, "channel_base": 128, "channel_max": 8}
    config = make_plan(TrainConfig(**options), resolution=16, images=100).config
    state = new_state(config)
    state.statistics = {"Loss/G/loss": [torch.tensor(0.25), torch.tensor(0.5)]}
    again = new_state(config)
    again.restore(state.record(), lambda name: None, Processes())
    assert [v.item() for v in again.statistics["Loss/G/loss"]] == [0.25, 0.5]
