"""Saving the state of a run: with each snapshot, every so often, and when a signal asks to stop."""

import signal
import time

import torch

from probe.errors import ProbeError
from probe.events import Note, StateSaved
from probe.files import write_json
from probe.run_files import PROGRESS_FILE
from probe.stops import StopRequest
from probe.training.records import summarise
from probe.training.run import RunInputs
from probe.training.state import TrainState
from probe.training.state_file import has_state, write_state

AGREE = 8  # steps on a GPU from one agreement to the next: it waits for the GPU
SLIGHT = 60.0  # seconds of training that are not worth a state of their own


class Saver:
    """Decides when the state is saved, alike in all processes, and saves it.

    Args:
        run: the run.
        stop: notes a signal that asks to stop.
        images: of the state that is on disk; 0 if there is none.
    """

    def __init__(self, run: RunInputs, stop: StopRequest, images: int) -> None:
        self.run, self.stop, self._images = run, stop, images
        self._every = run.plan.config.save_seconds
        self._last = time.monotonic()

    def save(self, state: TrainState) -> None:
        """Write the state from which the run can resume at exactly this point."""
        processes = self.run.ctx.processes
        if processes.size > 1:
            for member in state.members:
                member.adaptive.gather(processes.sum, keep=processes.is_first)
        if processes.is_first:
            write_state(self.run.folder, state.record())
            write_progress(self.run, state)
            total = self.run.plan.stage_ends[-1] - state.shift
            self.run.ctx.on_event(StateSaved(str(self.run.folder), state.images, total))
        processes.wait()
        self._last, self._images = time.monotonic(), state.images

    def between(self, state: TrainState, *, pausing: bool = False) -> None:
        """Between two steps, save the state if it is time; if a signal came, let it act then.

        Args:
            state: to save.
            pausing: what follows is long and cannot be resumed halfway.

        Raises:
            BaseException: a signal asked to stop, and the state is saved.
            ProbeError: the state is broken; the last good one is kept.
        """
        config, processes = self.run.plan.config, self.run.ctx.processes
        is_shared = processes.size > 1
        if is_shared and not pausing and processes.device.type == "cuda":
            if state.images // config.batch % AGREE:
                return
        every = min(self._every, SLIGHT) if pausing else self._every
        wanted = [self.stop.signum is not None, time.monotonic() - self._last >= every]
        if is_shared:
            wanted[1] = wanted[1] and processes.is_first
            flags = torch.tensor(wanted, dtype=torch.float32, device=processes.device)
            wanted = [count > 0 for count in processes.sum(flags).tolist()]
        stopping, due = wanted
        if (stopping or due) and state.images > self._images:
            stop_if_broken(self.run, state)
            self.save(state)
        if stopping:
            name = signal.Signals(self.stop.signum or signal.SIGTERM).name
            text = f"Stopped by {name} at kimg {state.images / 1000:g}, where the run will go on."
            self.run.ctx.on_event(Note(text))
            self.stop.act()


def write_progress(run: RunInputs, state: TrainState, *, finished: bool = False) -> None:
    """Write progress.json, which says how far the run is.

    Args:
        run: the run.
        state: its images, stage and members are recorded.
        finished: nothing is left to write, so repeating the command starts a new run.
    """
    total = run.plan.stage_ends[-1] - state.shift
    record = {
        "kimg": state.images / 1000,
        "total_kimg": total / 1000,
        "stage": state.stage,
        "discriminators": state.names,
        "finished": finished,
    }
    write_json(run.folder / PROGRESS_FILE, record)


def stop_if_broken(run: RunInputs, state: TrainState) -> None:
    """Raise before anything overwrites the last good state.

    Raises:
        ProbeError: a statistic of the tick or a weight is NaN or infinite.
    """
    # The std overflows before the mean does; damage from the last step shows only in the weights.
    record = summarise(state.statistics)
    broken = [name for name, v in record.items() if v["mean"] - v["mean"] != 0]
    if not state.is_finite():
        broken.append("A weight")
    if broken:
        kept = "no state was written yet"
        if has_state(run.folder):
            kept = f"the last good state is in {run.folder}"
        raise ProbeError(
            f"{broken[0]} became NaN or infinite before kimg {state.images / 1000:.1f}; {kept}. "
            "Lower --lr or change --gamma, or use --precision fp32."
        )
