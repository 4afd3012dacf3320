"""Train, or estimate what training would cost."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from probe.api.context import open_context, with_progress
from probe.api.inputs import open_given
from probe.bank.file import load_bank
from probe.errors import ProbeError
from probe.events import Event, Note, OnEvent, StateSaved, ignore
from probe.images.base import ImageSource
from probe.reports.report import write_report
from probe.reports.train_progress import TrainLog
from probe.run_files import REPORT_FILE
from probe.training.availability import Estimate, estimate
from probe.training.candidates import Candidates
from probe.training.config import TrainConfig
from probe.training.loop import train as train_loop
from probe.training.run import RunInputs
from probe.training.saving import write_progress
from probe.training.setup import set_up
from probe.training.state import TrainState


def train(
    real: Path | str | ImageSource,
    *,
    outdir: Path | str,
    config: TrainConfig | None = None,
    bank: Path | str | None = None,
    backbones: Sequence[str] | str | None = None,
    init: Path | str | None = None,
    resume: Path | str | None = None,
    device: str = "auto",
    precision: str = "auto",
    offline: bool = False,
    on_event: OnEvent = ignore,
    progress: bool = False,
) -> Path:
    """Train a generator with discriminators chosen by probes.

    A signal that asks to stop (SIGINT as by Ctrl-C, SIGTERM, SIGUSR1) is delayed until the present
    step is done and the state is saved; then it acts as it would have. A second one acts at once.

    Args:
        real: training images as in `rank`: a path, braces or a URL, or an `ImageSource`.
        outdir: folder for a new numbered run directory; an unfinished run in it with the same
            options and images is resumed instead.
        config: strategy, schedule and everything else; see `TrainConfig`.
        bank: the bank file; default ./modelbank.yaml or else the packaged one.
        backbones: names, patterns or @presets of the entries to choose from; default all.
        init: a StyleGAN2-ADA pickle or a snapshot to start from, without a warm-up.
        resume: a run directory to resume, or "latest".
        device: "auto", "cpu", "cuda" or "cuda:N".
        precision: "auto", "fp32" or "bf16".
        offline: never download weights.
        on_event: called with progress events; see `probe.events`.
        progress: show a bar with the time left, on a terminal, in a notebook or as lines in a log.

    Returns:
        The path of the best snapshot, or of the last one if nothing was evaluated.

    Raises:
        ProbeError: see the subclasses in `probe.errors`.
    """
    with (
        with_progress(on_event, progress, TrainLog) as tell,
        _training(
            real,
            outdir=outdir,
            config=config,
            bank=bank,
            backbones=backbones,
            init=init,
            resume=resume,
            device=device,
            precision=precision,
            offline=offline,
            on_event=_with_page(tell),
        ) as (run, state),
    ):
        snapshot = train_loop(run, state)
        if run.ctx.processes.is_first:
            _write_page(run.folder, tell)
            write_progress(run, state, finished=True)  # last: a kill before it leaves work to do
        return snapshot


def _with_page(tell: OnEvent) -> OnEvent:
    """Return what passes events on, and writes the run's page with every state but the last."""

    def see(event: Event) -> None:
        tell(event)
        if isinstance(event, StateSaved) and event.images < event.total:
            _write_page(Path(event.folder), tell)

    return see


def _write_page(folder: Path, tell: OnEvent) -> None:
    """Write the page of a run as it stands."""
    try:
        write_report(folder)
    except ProbeError as error:  # a record from earlier in the run is damaged
        tell(Note(f"There is no new {REPORT_FILE}. {error}"))


def plan_training(
    real: Path | str | ImageSource,
    *,
    config: TrainConfig | None = None,
    bank: Path | str | None = None,
    backbones: Sequence[str] | str | None = None,
    init: Path | str | None = None,
    device: str = "auto",
    precision: str = "auto",
    offline: bool = False,
    on_event: OnEvent = ignore,
) -> Estimate:
    """Check data, bank and weights, report the plan, and measure what training would cost.

    Writes nothing. Takes the same arguments as `train`.
    """
    with _training(
        real,
        outdir=None,
        config=config,
        bank=bank,
        backbones=backbones,
        init=init,
        resume=None,
        device=device,
        precision=precision,
        offline=offline,
        on_event=on_event,
    ) as (run, state):
        return estimate(run, state)


@contextmanager
def _training(
    real: Path | str | ImageSource,
    *,
    bank: Path | str | None,
    backbones: Sequence[str] | str | None,
    offline: bool,
    device: str,
    precision: str,
    config: TrainConfig | None,
    on_event: OnEvent,
    **places: Any,
) -> Iterator[tuple[RunInputs, TrainState]]:
    """Open the images and the bank of a run, and set it up; see `probe.training.setup.set_up`."""
    with open_context(
        device, precision=precision, offline=offline, on_event=on_event, shared=True
    ) as ctx:
        whole = load_bank(bank)
        candidates = Candidates(
            specs=[s for s in whole.select(backbones) if s.role == "candidate"],
            evaluator=whole.evaluator,
        )
        source = open_given(real, "real", ctx.on_event)
        with set_up(source, candidates, config or TrainConfig(), ctx, **places) as ready:
            yield ready
