"""Check and set up everything a run needs before its first step."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import probe
from probe.accel.memory import explain_lack
from probe.context import Context
from probe.devices import choose_precision, fast_layout
from probe.errors import ProbeError, UsageError
from probe.events import Note, RunPlanned
from probe.files import digest_json, write_json
from probe.images.base import ImageSource
from probe.images.places import short_name
from probe.processes import Processes
from probe.run_files import OPTIONS_FILE
from probe.training.availability import require_backbones
from probe.training.candidates import Candidates
from probe.training.config import TrainConfig
from probe.training.inherit import Inherited, inherit
from probe.training.presets import Plan, make_plan
from probe.training.reals import Reals, open_reals
from probe.training.run import RunInputs
from probe.training.runs import choose_folder, has_examined
from probe.training.state import TrainState, make_networks
from probe.training.state_file import has_state
from probe.training.tracking import check_tracker


@contextmanager
def set_up(
    source: ImageSource,
    candidates: Candidates,
    config: TrainConfig,
    ctx: Context,
    *,
    outdir: Path | str | None = None,
    init: Path | str | None = None,
    resume: Path | str | None = None,
) -> Iterator[tuple[RunInputs, TrainState]]:
    """Check everything a run needs, and set it up.

    Args:
        source: the training images.
        candidates: the bank.
        config: the options as given.
        ctx: its precision may be "auto".
        outdir: folder in which the run directory is created or found; None writes nothing.
        init: a checkpoint to start from, or None.
        resume: a run directory to continue, "latest", or None.

    Yields:
        The run and its state; the run directory stays locked while they are in use.

    Raises:
        ProbeError: the images, weights, options or directory do not allow the run.
    """
    if ctx.precision == "tf32":
        raise UsageError("--precision: training runs in fp32 or bf16, not in tf32.")
    check_tracker(config.log)
    ctx = ctx.in_precision(choose_precision(ctx.precision, ctx.device))
    reals = open_reals(
        source,
        resolution=config.resolution,
        holdout=config.holdout,
        cond=config.cond,
        seed=config.seed,
        whole=outdir is not None and has_examined(source, Path(outdir), resume),
    )
    _require_same_images(source, reals, ctx.processes)
    inherited = None
    if init is not None:
        inherited = inherit(Path(init), resolution=reals.resolution, c_dim=reals.c_dim)
        config = inherited.adapt(config)
    plan = make_plan(
        config,
        resolution=reals.resolution,
        images=len(reals.training),
        processes=ctx.processes.size,
        inherited=inherited is not None,
    )
    notes = require_backbones(plan.config, candidates, offline=ctx.offline)
    if notes and any("no distances" in note for note in notes):
        candidates = replace(candidates, evaluator=None)
    identity = _identity(reals, plan, candidates, inherited)
    record = {
        "probe": probe.__version__,
        "real": {
            **source.identity(),
            "training": len(reals.training),
            "holdout": len(reals.holdout),
            "known_by": "contents" if reals.marks is None else "marks",
        },
        "resolution": reals.resolution,
        "classes": reals.c_dim,
        "stage_ends_kimg": [end / 1000 for end in plan.stage_ends],
        "precision": ctx.precision,
        "device": str(ctx.device),
        "processes": ctx.processes.size,
        "init": None if init is None else str(init),
        "options": asdict(plan.config),
        "length": [config.kimg, config.stage_kimg],
        "digest": digest_json(identity),
    }
    metadata = {"options": asdict(plan.config), "images_digest": identity["images"]}
    with _run_directory(source, outdir, record, resume, ctx.processes) as folder:
        ctx.on_event(RunPlanned(str(folder), plan, tuple(notes), record))
        for text in (*source.notes, *reals.remarks()):
            ctx.on_event(Note(text))
        run = RunInputs(
            reals=reals,
            plan=plan,
            candidates=candidates,
            folder=folder,
            options=record,
            metadata=metadata if init is None else {**metadata, "init": str(init)},
            ctx=ctx,
        )
        with explain_lack(_too_large(run)):
            layout = fast_layout(ctx.device, ctx.precision)
            networks = make_networks(plan.config, reals.resolution, reals.c_dim, inherited)
            yield run, TrainState(plan.config, networks, ctx.device, record["digest"], layout)


def _require_same_images(source: ImageSource, reals: Reals, processes: Processes) -> None:
    """Check that all processes train on the same images.

    Raises:
        UsageError: they do not.
    """
    digests = processes.collect(reals.digest)
    others = [rank for rank, digest in enumerate(digests) if digest != digests[0]]
    if others:
        what = "contents" if reals.marks is None else "names, sizes or dates"
        raise UsageError(
            f"{source.name}: process {others[0]} finds files of other {what} there than process 0. "
            "All processes need the same images; copies of them need the same dates (cp -p, "
            "rsync -t)."
        )


def _too_large(run: RunInputs) -> str:
    """Return the error message for running out of memory."""
    text = (
        f"Out of memory on {run.ctx.device} with --batch {run.plan.config.batch} at --resolution "
        f"{run.reals.resolution}. Choose a smaller --batch or a smaller --resolution."
    )
    return text if run.folder == Path() else f"{text} Completed work is saved in {run.folder}."


def _identity(
    reals: Reals, plan: Plan, candidates: Candidates, inherited: Inherited | None
) -> dict[str, Any]:
    """Return everything that affects the results; runs with equal identities are the same run."""
    return {
        **plan.config.record(),
        "images": reals.digest,
        **({"labels": digest_json(list(reals.training.labels or ()))} if reals.c_dim else {}),
        "init": None if inherited is None else inherited.digest,
        "bank": [spec.name for spec in candidates.specs],
    }


@contextmanager
def _run_directory(
    source: ImageSource,
    outdir: Path | str | None,
    record: dict[str, Any],
    resume: Path | str | None,
    processes: Processes,
) -> Iterator[Path]:
    """Choose and lock the run directory, and share its path with every process.

    A new directory gets its options file. If the directory has a state, its options file is kept
    until the state is known to belong to this run.
    """
    held, folder, refused = None, Path(), None
    if outdir is not None and processes.is_first:
        name = short_name(source.name)
        try:
            folder, held = choose_folder(Path(outdir), name, record, resume)
            if not has_state(folder):
                write_json(folder / OPTIONS_FILE, record)
        except ProbeError as error:
            refused = error
    try:
        folder, refused = processes.broadcast((folder, refused))
        if refused is not None:
            raise refused
        missing = [rank for rank, seen in enumerate(processes.collect(folder.is_dir())) if not seen]
        if missing:
            raise UsageError(
                f"--outdir: process {missing[0]} does not find {folder}, which process 0 has made. "
                "Name a folder on storage that all nodes share."
            )
        yield folder
    finally:
        if held is not None:
            held.release()
