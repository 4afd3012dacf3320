"""Distances between real and generated images."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import probe
from probe.api.context import open_context, with_progress
from probe.api.inputs import Images, open_fakes_given, open_reals_given
from probe.bank.file import load_bank
from probe.errors import UsageError
from probe.events import OnEvent, ignore
from probe.generators.callables import SampleFunction
from probe.generators.config import Drawing, SampleOptions
from probe.generators.files.lineage import trained_against
from probe.metrics.config import MeasureOptions
from probe.metrics.measure import measure as measure_sources
from probe.metrics.record import Measurement


def measure(
    real: Images,
    gen: Images | SampleFunction,
    *,
    bank: Path | str | None = None,
    backbones: Sequence[str] | str | None = None,
    options: MeasureOptions | None = None,
    sample: SampleOptions | None = None,
    device: str = "auto",
    offline: bool = False,
    on_event: OnEvent = ignore,
    progress: bool = False,
) -> Measurement:
    """Measure how far generated images are from real ones, in any backbones of the bank.

    Args:
        real: as in `rank`.
        gen: as in `rank`.
        bank: the bank file; default ./modelbank.yaml or else the packaged one.
        backbones: names, patterns or @presets of entries; default the bank's evaluator.
        options: numbers, seed, precision, canonical FID; see `MeasureOptions`.
        sample: truncation, noise and class of a checkpoint; see `SampleOptions`.
        device: "auto", "cpu", "cuda" or "cuda:N".
        offline: never download weights.
        on_event: called with progress events; see `probe.events`.
        progress: show a bar with the time left, on a terminal, in a notebook or as lines in a log.

    Returns:
        Fréchet and kernel distance, precision, recall, density and coverage per backbone.

    Raises:
        UsageError: no backbones are named and the bank has no evaluator.
        ProbeError: see the subclasses in `probe.errors`.
    """
    options = options or MeasureOptions()
    sample = sample or SampleOptions()
    found = load_bank(bank)
    if backbones is None and found.evaluator is None and not options.fid:
        raise UsageError(
            f"{found.path} has no entry with role: evaluator. Choose backbones with --backbones."
        )
    judge = () if found.evaluator is None else (found.evaluator,)
    with (
        with_progress(on_event, progress) as on_event,
        open_context(
            device, precision=options.precision, offline=offline, on_event=on_event
        ) as ctx,
    ):
        reals = open_reals_given(real, ctx)
        count = options.num_gen or min(options.num, len(reals))
        drawing = Drawing(count, options.seed, sample, ctx.device, options.precision)
        return measure_sources(
            reals,
            open_fakes_given(gen, reals, drawing, on_event),
            judge if backbones is None else found.select(backbones),
            options,
            ctx,
            trained_against=trained_against(Path(gen)) if isinstance(gen, str | Path) else None,
            config={"probe": probe.__version__, "sample": asdict(sample)},
        )
