"""Resume from the state in a run directory, if it belongs to the same run."""

from pathlib import Path

from probe.accel.memory import is_out_of_memory
from probe.errors import CheckpointError, ProbeError, printable
from probe.events import Note
from probe.files import copy_file, write_json
from probe.generators.files.snapshot import read_safetensors
from probe.run_files import BEST, OPTIONS_FILE
from probe.training.run import RunInputs
from probe.training.state import TrainState
from probe.training.state_file import StoredState, read_state, set_damaged_aside


def resume(run: RunInputs, state: TrainState) -> bool:
    """Restore the state in the run directory; return whether there is one.

    Nothing in the directory changes until the run is known to be the same.

    Args:
        run: the run to resume.
        state: fresh; restored in place.

    Raises:
        ProbeError: the state is damaged, or belongs to another run.
    """
    judge = run.candidates.evaluator if run.plan.config.eval_num else None
    state.judge = "" if judge is None else run.digest(judge)
    found = read_state(run.folder)
    if found is None:
        return False
    judged = found.record.get("judge", "")  # earlier releases did not record it
    _require_same(run, state, found, other_judge=bool(judged and state.judge not in ("", judged)))
    try:
        state.restore(
            {**found.record, "judge": state.judge or judged}, run.member, run.ctx.processes
        )
    except (KeyError, ValueError, RuntimeError) as error:  # torch's errors for a mismatch
        if is_out_of_memory(error):
            raise
        what = printable(str(error).partition("\n")[0], 100)
        raise ProbeError(
            f"{found.path}: does not fit this release ({what}). Go on with the one that wrote it, "
            f"or begin a new run with its generator: --init {run.folder}."
        ) from error
    run.ctx.processes.wait()  # until every process has read the file
    if run.ctx.processes.is_first:
        if found.damaged is not None:
            kept = set_damaged_aside(run.folder)
            text = f"{found.damaged}; it is kept as {kept.name}. Going on from the state before it,"
            run.ctx.on_event(Note(f"{text} at kimg {state.images / 1000:g}."))
        write_json(run.folder / OPTIONS_FILE, run.options)
        _restore_best(run, state)
    state.best = run.ctx.processes.broadcast(state.best)
    return True


def _require_same(
    run: RunInputs, state: TrainState, found: StoredState, *, other_judge: bool
) -> None:
    """Refuse a state that other images, options or backbones led to.

    Raises:
        ProbeError: they differ; says how.
    """
    if found.record.get("digest") != state.digest:
        dates = ""
        if run.reals.marks is not None:
            dates = " Files that were copied need the dates that they had (cp -p, rsync -t)."
        raise ProbeError(
            f"{found.path}: belongs to a run with other images or options. Repeat that run's "
            f"options ({OPTIONS_FILE} beside it) or start a new run.{dates}"
        )
    used = found.record.get("weights", {})  # earlier releases did not record them
    now = {name: run.digest(run.candidates.spec(name)) for name in used}
    others = [name for name, digest in used.items() if digest != now[name]]
    if other_judge:
        others.append("the evaluator")
    if others:
        raise ProbeError(
            f"{found.path}: the run has used other weights, or another bank entry, of "
            f"{', '.join(others)}. Put those back, or begin a new run with its generator: "
            f"--init {run.folder}."
        )


def _restore_best(run: RunInputs, state: TrainState) -> None:
    """Make the best snapshot's file match the state being resumed.

    A kill after the snapshot and before the state leaves a later file. If the rerun is not
    bit-identical (a GPU, bf16), nothing would replace it.
    """
    path = run.folder / BEST
    if state.best is None:
        path.unlink(missing_ok=True)  # a copy of a numbered snapshot
        return
    kimg = state.best[0]
    if _kimg(path) == kimg:
        return
    numbered = run.snapshot_at(round(kimg * 1000))
    if _kimg(numbered) == kimg:
        copy_file(numbered, path)
        return
    state.best = None
    text = f"The best snapshot, at kimg {kimg:g}, is gone or damaged; the next one takes its place."
    run.ctx.on_event(Note(text))


def _kimg(path: Path) -> float | None:
    """Return the kimg recorded in a snapshot, or None if it cannot be read."""
    try:
        return read_safetensors(path).kimg
    except CheckpointError:
        return None
