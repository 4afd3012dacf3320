"""Look before a long run: images, weights, cost, and what is in a run."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from probe.api.inputs import Images, Report, open_fakes_given, open_given
from probe.bank.spec import load_bank
from probe.bundled import CALIBRATION
from probe.checks.commands import next_commands
from probe.checks.cost import SHOWN, choose_settings
from probe.checks.cost import examine as examine_cost
from probe.checks.data import compare as compare_images
from probe.checks.data import examine as examine_images
from probe.checks.findings import Examination
from probe.checks.run import examine as examine_run
from probe.features.store import FeatureStore
from probe.files import cache_root
from probe.generators.callables import SampleFunction
from probe.generators.config import SampleOptions
from probe.images.open import open_images
from probe.runtime import choose_device, ignore, local_device
from probe.training.config import TrainConfig
from probe.training.evaluation import Candidates


def doctor(
    real: Images,
    *,
    gen: Images | SampleFunction | None = None,
    run: Path | str | None = None,
    bank: Path | str | None = None,
    backbones: Sequence[str] | None = None,
    strategy: str = "progressive",
    resolution: int | None = None,
    measure: bool = True,
    device: str = "auto",
    report: Report = ignore,
) -> Examination:
    """Look at images, weights and a run: what is wrong, what would it cost, what to set.

    Downloads nothing, and writes nothing.

    Args:
        real: as of `rank`.
        gen: as of `rank`: is any of it among the reals, does its encoding give it away?
        run: a ranking's folder or a training run's directory.
        bank: the bank file; ./modelbank.yaml or the packaged one unless given.
        backbones: names or patterns of the entries; all unless given.
        strategy: of the training that is estimated.
        resolution: side in pixels; the images' own unless given.
        measure: run the backbones and a few steps of training for what they cost; takes minutes
            where images are large.
        device: "auto", "cpu", "cuda" or "cuda:N".
        report: is given each finding as soon as it is there.

    Returns:
        Findings, and the commands to run next.
    """
    TrainConfig(strategy=strategy, resolution=resolution)  # refuses what it does not know
    whole = load_bank(None if bank is None else Path(bank))
    specs = whole.select(backbones)
    reals = open_given(real, "real")
    place = local_device(choose_device(device))
    side = resolution or 2 ** max(3, reals.resolution.bit_length() - 1)
    candidates = Candidates(
        specs=[s for s in specs if s.role == "discriminator"],
        evaluator=whole.evaluator,
        store=FeatureStore(cache_root()),
        calibration=open_images(CALIBRATION),
        offline=True,
    )
    config = choose_settings(candidates, strategy=strategy, resolution=side)
    fakes = None
    parts = [examine_images(reals, resolution=side)]
    if gen is not None:
        count = min(SHOWN, len(reals))
        fakes = open_fakes_given(gen, reals, count, 0, SampleOptions(), place, report)
        parts.append(compare_images(reals, fakes))
    if run is not None:
        parts.append(examine_run(Path(run), Path(real) if isinstance(real, str | Path) else None))
    parts.append(
        examine_cost(reals, fakes, specs, candidates, config, measured=measure, device=place)
    )
    found = []
    for finding in chain(*parts):
        found.append(finding)
        report({"event": "finding", "finding": finding})
    commands: tuple[str, ...] = ()
    possible = not any(f.level == "problem" and f.topic != "run" for f in found)
    if isinstance(real, str | Path) and possible:
        named = str(gen) if isinstance(gen, str | Path) else "G.pkl"
        commands = next_commands(str(real), named, config, None if bank is None else str(bank))
    return Examination(findings=tuple(found), commands=commands)
