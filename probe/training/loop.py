"""The training loop, top to bottom.

The GAN's own discriminator warms up alone. Each later stage begins by ranking the backbones on the
best snapshot so far; the ones the strategy picks join the ensemble (Kumari et al. 2022, section 3).
One process and one set of optimizers run from the first image to the last. The generator's
optimizer resets its moments when a backbone joins.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from probe.devices import autocast, peak_gib
from probe.events import Note, SnapshotSaved, SnapshotStarted, StageStarted, StepDone, TickDone
from probe.files import copy_file
from probe.generators.base import to_uint8
from probe.generators.files.formats import load_generator
from probe.generators.files.snapshot import save_snapshot
from probe.images.decode import describe_broken
from probe.images.grid import save_grid
from probe.run_files import BEST, FIRST_GRID, REALS_GRID, grid_file
from probe.stops import delayed_stops
from probe.streams import torch_stream
from probe.training.clock import Clock
from probe.training.evaluation import Evaluator, accuracies
from probe.training.own import head_options
from probe.training.reals import one_hot
from probe.training.records import RunRecords, summarise
from probe.training.resume import resume
from probe.training.run import RunInputs
from probe.training.saving import Saver, stop_if_broken, write_progress
from probe.training.selection import chooser_of, samples_of, select
from probe.training.session import open_session, open_stream
from probe.training.state import TrainState
from probe.training.step import Session, train_step
from probe.training.stream import RealStream
from probe.training.tracking import Tracked, open_tracker

GRID_IMAGES, GRID_COLUMNS = 96, 12


def train(run: RunInputs, state: TrainState) -> Path:
    """Train until the schedule ends; the caller then marks the run as finished.

    Args:
        run: everything that does not change.
        state: fresh; restored from the run directory if that holds a state.

    Returns:
        The path of the best snapshot, or of the last one if nothing was evaluated.

    Raises:
        ProbeError: the state in the directory belongs to another run or is damaged, or a loss or
            weight became NaN or infinite; the last good state is kept.
    """
    config = run.plan.config
    fresh = not resume(run, state)
    tools = _open_tools(run, None if fresh else state)
    if fresh:
        _begin(run, state, tools)
    with delayed_stops() as stop:
        saver = Saver(run, stop, state.images)
        while True:
            ends = [end - state.shift for end in run.plan.stage_ends]
            if _is_snapshot_due(run, state, ends[state.stage]):
                saver.between(state, pausing=True)
                with stop.at_once():
                    _take_snapshot(run, state, tools)
                state.snapped = state.images
                if config.patience and state.stale[0] >= config.patience:
                    _end_stage_early(run, state, ends[state.stage])
                saver.save(state)
            elif state.images < ends[state.stage]:
                _train_tick(run, state, tools, ends, saver)
            elif state.stage + 1 < len(ends):
                with stop.at_once():
                    _begin_stage(run, state, tools.records)
                saver.save(state)
            else:
                break

    if tools.records is not None:
        tools.records.close()
        write_progress(run, state)  # a kill may have come between the last state and this
    best = run.folder / BEST
    return best if best.exists() else run.snapshot_at(state.images)


@dataclass(frozen=True)
class _Tools:
    """The objects the loop works with.

    Attributes:
        clock: times the parts of a step.
        stream: the real images of each step.
        session: everything constant across steps.
        records: the run directory's logs; None except on the first process.
        evaluator: measures snapshots; None if evaluation is off.
        told: indices of the images that were named because they turned out unusable.
    """

    clock: Clock
    stream: RealStream
    session: Session
    records: RunRecords | None
    evaluator: Evaluator | None
    told: set[int] = field(default_factory=set)

    def tell_skipped(self, run: RunInputs) -> None:
        """Name the images that turned out unusable since the last call."""
        if run.reals.marks is None:
            return
        found = dict(run.reals.skipped)  # at once: workers add to it
        mine = {i: broken for i, broken in found.items() if i not in self.told}
        new = {i: broken for each in run.ctx.processes.collect(mine) for i, broken in each.items()}
        self.told.update(new)
        if new:
            run.ctx.on_event(Note(describe_broken([new[i] for i in sorted(new)])))


def _open_tools(run: RunInputs, resumed: TrainState | None) -> _Tools:
    """Open the tools for a run that resumes from a state, or starts fresh if None."""
    clock, records = Clock(run.ctx.device), None
    done = (None, None) if resumed is None else (resumed.images, resumed.snapped)
    if run.ctx.processes.is_first:
        tracked = Tracked(run.folder, run.options, done[0])
        records = RunRecords(run.folder, *done, open_tracker(run.plan.config.log, tracked))
    return _Tools(clock, open_stream(run), open_session(run, clock), records, _open_evaluator(run))


def _begin(run: RunInputs, state: TrainState, tools: _Tools) -> None:
    """Write the files that a run has before its first step."""
    if run.ctx.processes.is_first:
        _write_reals(run)
        _write_grid(run, state, FIRST_GRID)
    if "init" in run.metadata or run.plan.stage_ends[0] == 0:
        _take_snapshot(run, state, tools)  # the inherited generator may be the best


def _is_snapshot_due(run: RunInputs, state: TrainState, end: int) -> bool:
    """Return whether enough ticks, or the stage, have ended since the last snapshot."""
    images = state.images
    if images == state.snapped:
        return False
    every = _tick_images(run) * run.plan.config.snap
    return images >= end or state.tick // run.plan.config.snap > state.snapped // every


def _tick_images(run: RunInputs) -> int:
    return max(1, round(run.plan.config.tick * 1000))


def _train_tick(
    run: RunInputs, state: TrainState, tools: _Tools, ends: Sequence[int], saver: Saver
) -> None:
    """Train to the end of the tick or stage, then write and report the statistics.

    Raises:
        BaseException: a signal asked to stop, and the state is saved.
        ProbeError: a statistic or weight is NaN or infinite.
    """
    size = _tick_images(run)
    started, first = time.monotonic(), state.images
    while state.images < min((state.tick + 1) * size, ends[state.stage]):
        saver.between(state)
        with tools.clock.span("data"):
            reals = tools.stream.at(state.images)
        for name, value in train_step(state, reals, tools.session).items():
            state.statistics.setdefault(name, []).append(value)
        run.ctx.on_event(StepDone(state.images, total=ends[-1]))
    state.tick = state.images // size  # one batch can span several ticks
    stop_if_broken(run, state)
    tools.tell_skipped(run)
    _end_tick(run, state, tools, (first, time.monotonic() - started))
    state.statistics = {}


def _open_evaluator(run: RunInputs) -> Evaluator | None:
    """Return the evaluator, or None if the bank has none or evaluation is off."""
    config, judge = run.plan.config, run.candidates.evaluator
    if not config.eval_num or judge is None:
        return None
    return Evaluator(judge, run.reals, run.ctx, count=config.eval_num, seed=config.seed)


def _begin_stage(run: RunInputs, state: TrainState, records: RunRecords | None) -> None:
    """Rank the unused backbones on the best snapshot and add the chosen ones."""
    snapshot = run.folder / BEST
    if state.best is None:
        snapshot = run.snapshot_at(state.images)
    run.ctx.processes.wait()  # until the first process has written it
    checkpoint = load_generator(snapshot)
    selection = select(run, state.stage + 1, snapshot, checkpoint, state.names)
    choices, decisive = selection.added, selection.joint or selection.leaderboard
    if records is not None and decisive is not None:
        records.leaderboard(state.images, state.stage + 1, decisive)
    options = head_options(run.plan.config)
    for choice in choices:
        smooth = options.is_smoothed(choice.accuracy)
        state.members.append(run.member(choice.name, smooth=smooth))
        spec = run.candidates.spec(choice.name)
        state.weights[choice.name] = run.digest(spec)
    if choices:
        # The generator's gradient grows by a factor of twenty or more when a backbone joins. With
        # the old moments, Adam would take steps ten times too long until they decay, and the
        # generator would lose variety. The original code restarts Adam here as well.
        state.generator_optimizer.state.clear()
    state.stage += 1
    state.stale = (0, float("inf"))
    run.ctx.on_event(
        StageStarted(
            stage=state.stage,
            kimg=state.images / 1000,
            snapshot=snapshot.name,
            added=tuple(c.name for c in choices),
            smoothed=tuple(m.name for m in state.members if m.target != 1),
        )
    )


def _end_stage_early(run: RunInputs, state: TrainState, end: int) -> None:
    """Shorten the schedule because the distance has stopped improving."""
    state.shift += max(0, end - state.images)
    state.stale = (0, float("inf"))
    text = f"Stage {state.stage} ends early: {run.plan.config.patience} snapshots were no better."
    run.ctx.on_event(Note(text))


def _end_tick(
    run: RunInputs,
    state: TrainState,
    tools: _Tools,
    progress: tuple[int, float],
) -> None:
    """Write and report the statistics of one tick.

    Args:
        run: the run.
        state: holds them.
        tools: its records take them.
        progress: images at the first step of this process in the tick, and the seconds since.
    """
    config, record = run.plan.config, summarise(state.statistics)
    first, seconds = progress
    shown = state.images - first
    values = {
        "Progress/kimg": state.images / 1000,
        "Progress/stage": state.stage,
        "Timing/sec_per_kimg": seconds / shown * 1000,
        "Timing/images_per_sec": shown / seconds,
    }
    for member in state.members:
        if member.augmentation.adaptive:
            suffix = "" if member.name == "D" else f"/{member.name}"
            values[f"Progress/augment{suffix}"] = member.adaptive.p
            if member.adaptive.leaking and state.tick % config.snap == 0:
                run.ctx.on_event(
                    Note(
                        f"p of {member.name} is {member.adaptive.p:.2f}: above 0.8, "
                        "augmentations begin to leak into the images. More data, a lower --target "
                        "or --target-heads, or --aug diffaugment would help."
                    )
                )
    for name, spent in tools.clock.take().items():
        values[f"Timing/{name}"] = spent / shown * 1000
    if run.ctx.device.type == "cuda":
        values["Resources/peak_gpu_mem_gb"] = peak_gib(run.ctx.device)
    record |= {name: {"num": 1, "mean": float(v), "std": 0.0} for name, v in values.items()}
    if tools.records is not None:
        tools.records.stats(state.images, record)
    means = {name: value["mean"] for name, value in record.items()}
    total = run.plan.stage_ends[-1] - state.shift
    run.ctx.on_event(TickDone(tuple(state.names), state.best, total=total, statistics=means))


def _take_snapshot(run: RunInputs, state: TrainState, tools: _Tools) -> None:
    """Write a grid and the average generator, measure it, and keep it if it is the best so far."""
    config, path = run.plan.config, run.snapshot_path(state.images)
    started = time.monotonic()
    run.ctx.on_event(SnapshotStarted(state.images / 1000))
    if run.ctx.processes.is_first:
        grid = grid_file(run.number(state.images))
        _write_grid(run, state, grid)
        if tools.records is not None:
            tools.records.samples(state.images, run.folder / grid)
        kimg = {"kimg": state.images / 1000, "discriminators": state.names}
        save_snapshot(path, state.average, metadata={**run.metadata, **kimg})
    found = _measure(run, state, tools, path)
    if run.ctx.processes.is_first:
        right = accuracies(state.members, state.average, run.reals, run.ctx, seed=config.seed)
        if tools.records is not None:
            tools.records.metric("accuracy", state.images, right, path.name, 0.0)
            found |= right
    if config.track_probes:
        run.ctx.processes.wait()
        chooser = chooser_of(run, run.ctx.quiet())
        board = chooser.rank([], run.reals.training, samples_of(run, load_generator(path)))
        if board is not None and tools.records is not None:
            scores = {r.name: r.score for r in board.rows if r.score is not None and r.rank}
            tools.records.probes(state.images, path.name, scores)
    seconds = time.monotonic() - started
    run.ctx.on_event(SnapshotSaved(str(path), state.images / 1000, seconds, results=found))


def _measure(run: RunInputs, state: TrainState, tools: _Tools, path: Path) -> dict[str, float]:
    """Return a snapshot's distances, {} without an evaluator; keep it if it is the best so far."""
    if tools.evaluator is None:
        return {}
    found: dict[str, float] = {}
    distances = tools.evaluator.measure(state.average)
    if distances is not None and tools.records is not None:
        found = asdict(distances)
        seconds = found.pop("seconds")
        name, metric = tools.evaluator.name, tools.records.metric
        kernel = f"kernel-{name}"
        ends = {f"{kernel}-low": found["kernel_low"], f"{kernel}-high": found["kernel_high"]}
        for kind in ("frechet", "kernel", "precision", "recall"):
            results = {f"{kind}-{name}": found[kind], **(ends if kind == "kernel" else {})}
            metric(f"{kind}-{name}", state.images, results, path.name, seconds)
    found = run.ctx.processes.broadcast(found)
    _judge(run, state, found["frechet"], path)
    return found


def _judge(run: RunInputs, state: TrainState, distance: float, path: Path) -> None:
    """Keep a snapshot as the best one if its distance is the lowest so far."""
    count, least = state.stale
    state.stale = (0, distance) if distance < least else (count + 1, least)
    if state.best is None or distance < state.best[1]:
        state.best = (state.images / 1000, distance)
        if run.ctx.processes.is_first:
            copy_file(path, run.folder / BEST)


def _write_reals(run: RunInputs) -> None:
    training = run.reals.training
    pixels, _ = run.reals.load(training, [i % len(training) for i in range(GRID_IMAGES)])
    save_grid(run.folder / REALS_GRID, pixels, columns=GRID_COLUMNS)


@torch.inference_mode()
def _write_grid(run: RunInputs, state: TrainState, name: str) -> None:
    """Write a grid of the average generator's images for fixed latents."""
    config = run.plan.config
    rng = torch_stream(config.seed, "grid")
    z = torch.randn(GRID_IMAGES, config.z_dim, generator=rng)
    c = None
    if run.reals.c_dim and run.reals.training.labels is not None:
        labels = run.reals.training.labels
        drawn = torch.randint(len(labels), (GRID_IMAGES,), generator=rng).tolist()
        c = one_hot(run.reals, [labels[i] for i in drawn])
    images = []
    for start in range(0, GRID_IMAGES, 16):
        part = slice(start, start + 16)
        with autocast(run.ctx.device, run.ctx.precision):
            images.append(
                state.average(
                    z[part].to(run.ctx.device),
                    None if c is None else c[part].to(run.ctx.device),
                    noise_mode="const",
                )
            )
    save_grid(run.folder / name, to_uint8(torch.cat(images)).cpu(), columns=GRID_COLUMNS)
