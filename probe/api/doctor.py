"""Check images, weights, cost and runs before a long job."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from probe.api.context import open_context
from probe.api.inputs import Images, open_fakes_given, open_given
from probe.bank.file import load_bank
from probe.checks.commands import next_commands
from probe.checks.cost import SHOWN, choose_settings, examine_cost
from probe.checks.data import compare_images, examine_images
from probe.checks.findings import Examination
from probe.checks.run import examine_run
from probe.events import FindingMade, OnEvent, ignore
from probe.generators.callables import SampleFunction
from probe.generators.config import Drawing, SampleOptions
from probe.images.open import is_elsewhere
from probe.training.candidates import Candidates
from probe.training.config import TrainConfig


def doctor(
    real: Images,
    *,
    gen: Images | SampleFunction | None = None,
    run: Path | str | None = None,
    bank: Path | str | None = None,
    backbones: Sequence[str] | str | None = None,
    strategy: str = "progressive",
    resolution: int | None = None,
    measure: bool = True,
    device: str = "auto",
    on_event: OnEvent = ignore,
) -> Examination:
    """Check images, weights and runs: problems, cost and suggested settings.

    Downloads nothing, and writes at most an index of tars to the cache.

    Args:
        real: as in `rank`.
        gen: as in `rank`; checked for overlap with the reals and for differences in encoding.
        run: a ranking's folder or a training run's directory.
        bank: the bank file; default ./modelbank.yaml or else the packaged one.
        backbones: names, patterns or @presets of the entries; default all.
        strategy: strategy of the training to estimate.
        resolution: side in pixels; default that of the images.
        measure: run the backbones and a few training steps to measure the cost; takes minutes if
            images are large.
        device: "auto", "cpu", "cuda" or "cuda:N".
        on_event: called with each finding as it is made, and as an index is built.

    Returns:
        Findings, and the commands to run next.
    """
    TrainConfig(strategy=strategy, resolution=resolution)  # raises on invalid values
    whole = load_bank(bank)
    specs = whole.select(backbones)
    reals = open_given(real, "real", on_event)
    side = resolution or 2 ** max(3, reals.resolution.bit_length() - 1)
    candidates = Candidates(
        specs=[s for s in specs if s.role == "candidate"],
        evaluator=whole.evaluator,
    )
    config = choose_settings(candidates, strategy=strategy, resolution=side)
    parts, found = [examine_images(reals, resolution=side)], []
    with open_context(device, offline=True, on_event=on_event) as ctx:
        fakes = None
        if gen is not None:
            drawing = Drawing(min(SHOWN, len(reals)), 0, SampleOptions(), ctx.device)
            fakes = open_fakes_given(gen, reals, drawing, on_event)
            parts.append(compare_images(reals, fakes))
        if run is not None:
            is_here = isinstance(real, str | Path) and not is_elsewhere(str(real))
            named = Path(str(real)) if is_here else None
            parts.append(examine_run(Path(run), named))
        parts.append(examine_cost(reals, fakes, specs, candidates, config, ctx, measured=measure))
        for finding in chain(*parts):
            found.append(finding)
            on_event(FindingMade(finding))
    commands: tuple[str, ...] = ()
    possible = not any(f.level == "problem" and f.topic != "run" for f in found)
    if isinstance(real, str | Path) and possible:
        named = str(gen) if isinstance(gen, str | Path) else "G.pkl"
        commands = next_commands(str(real), named, config, None if bank is None else str(bank))
    return Examination(findings=tuple(found), commands=commands)
