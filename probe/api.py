"""The verbs: `rank`, `train` …. Paths become objects here, once; every room below takes objects."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

import probe
from probe.bank.load import load_backbone
from probe.bank.spec import load_bank
from probe.checks.commands import next_commands
from probe.checks.cost import SHOWN, choose_settings
from probe.checks.cost import examine as examine_cost
from probe.checks.data import compare as compare_images
from probe.checks.data import examine as examine_images
from probe.checks.findings import Examination
from probe.checks.run import examine as examine_run
from probe.errors import BackboneUnavailable, ImagesError, UsageError
from probe.features.store import FeatureStore
from probe.files import cache_root
from probe.generators.callables import CallableSource, SampleFunction
from probe.generators.config import SampleOptions
from probe.generators.inspection import Inspection, inspect_file
from probe.generators.lineage import trained_against
from probe.generators.open import open_by_seed, open_fakes, what_runs
from probe.images.archive import is_zip
from probe.images.base import ImageSource
from probe.images.grid import save_grid
from probe.images.open import open_files, open_images
from probe.images.tensors import TensorSource
from probe.images.write import ImageWriter
from probe.metrics.config import MeasureOptions
from probe.metrics.measure import measure as measure_sources
from probe.metrics.record import Measurement
from probe.probing.config import RankOptions
from probe.probing.fitted import THRESHOLD, load_probes
from probe.probing.fitted import choose as choose_probes
from probe.probing.ranking import Ranking
from probe.probing.ranking import rank as rank_sources
from probe.probing.scoring import Scores
from probe.probing.scoring import score as score_source
from probe.reports.evidence import SIDE, Draw, Read, gather, save_evidence
from probe.reports.files import save_ranking
from probe.reports.run import REPORT_FILE, write_report
from probe.runtime import choose_device, ignore, join_world, local_device
from probe.training.availability import Estimate, estimate
from probe.training.config import TrainConfig
from probe.training.evaluation import Candidates
from probe.training.loop import Run
from probe.training.loop import train as train_loop
from probe.training.setup import set_up
from probe.training.state import TrainState

BUNDLED = Path(__file__).parent / "demo"
DEMO_REALS = BUNDLED / "reals.zip"
DEMO_GENERATOR = BUNDLED / "generator.safetensors"
CALIBRATION = BUNDLED / "calibration.zip"
GENERATE_BATCH = 16
DEMO_BACKBONES = (
    "efficientnet-lite0",
    "efficientnet-lite1",
    "mobilenetv2",
    "random-efficientnet-lite0#0",
    "random-resnet18#[01]",
)

Report = Callable[[dict[str, Any]], None]
Images = Path | str | ImageSource | torch.Tensor | np.ndarray


def _say_what_runs(gen: str, sample: SampleOptions, report: Report) -> None:
    if text := what_runs(gen, sample):
        report({"event": "note", "text": text})


def _open_images(images: Images, name: str) -> ImageSource:
    """Return images, whatever they are given as."""
    if isinstance(images, str | Path):
        return open_images(images)
    if isinstance(images, torch.Tensor | np.ndarray):
        return TensorSource(images, name=name)
    return images


def _open_fakes(
    gen: Images | SampleFunction,
    reals: ImageSource,
    count: int,
    seed: int,
    sample: SampleOptions,
    device: torch.device,
    report: Report,
) -> ImageSource:
    """Return generated images, whatever they come from; a generator is asked for `count`."""
    if isinstance(gen, str | Path):
        _say_what_runs(str(gen), sample, report)
        return open_fakes(
            str(gen), real=reals, count=count, seed=seed, sample=sample, device=device
        )
    if hasattr(gen, "load") or not callable(gen):
        return _open_images(gen, "gen")
    name = getattr(gen, "__name__", type(gen).__name__)
    return CallableSource(gen, name=name, count=count, seed=seed)


def rank(
    real: Images,
    gen: Images | SampleFunction,
    *,
    bank: Path | str | None = None,
    backbones: Sequence[str] | None = None,
    options: RankOptions | None = None,
    sample: SampleOptions | None = None,
    out: Path | str | None = None,
    device: str = "auto",
    offline: bool = False,
    report: Report = ignore,
) -> Ranking | None:
    """Rank the bank's backbones by how well they tell real images from generated ones.

    Args:
        real: a folder or zip of real images, an `ImageSource`, or uint8 (N, 3, H, W).
        gen: a generator checkpoint, a folder or zip of generated images, `module:function`, an
            `ImageSource`, uint8 (N, 3, H, W), or a function `(n, seed) → uint8 (n, 3, H, W)` such
            as a diffusion pipeline's; it should draw the same for the same seed.
        bank: the bank file; ./modelbank.yaml or the packaged one unless given.
        backbones: names or patterns of the entries to rank; all unless given.
        options: protocol, numbers, seed, precision; see `RankOptions`.
        sample: truncation, noise and class of a checkpoint; see `SampleOptions`.
        out: a folder for leaderboard.json, leaderboard.csv, scores.csv, the probes and
            report.html.
        device: "auto", "cpu" or "cuda".
        offline: never download weights.
        report: is given progress records.

    Returns:
        Leaderboards, per-image results and the images that were skipped. Under torchrun all
        processes share the extraction, and those but the first return None.

    Raises:
        ProbeError: see the subclasses in `probe.errors`.
    """
    options = options or RankOptions()
    sample = sample or SampleOptions()
    place = local_device(choose_device(device))
    whole = load_bank(None if bank is None else Path(bank))
    specs = whole.select(backbones)
    store = FeatureStore(cache_root())
    reals = _open_images(real, "real")
    count = min(options.num, len(reals))
    fakes = _open_fakes(gen, reals, count, options.seed, sample, place, report)
    with join_world(place) as world:
        ranking = rank_sources(
            reals,
            fakes,
            specs,
            options=options,
            store=store,
            device=place,
            offline=offline,
            calibration=open_images(CALIBRATION),
            report=report if world.is_first else ignore,
            config={
                "probe": probe.__version__,
                "sample": asdict(sample),
                "bank": None if bank is None else str(bank),
                "backbones": None if backbones is None else list(backbones),
            },
            world=world,
        )
    if out is not None and ranking is not None:
        report({"event": "note", "text": f"Writing the report to {Path(out) / REPORT_FILE}."})
        save_ranking(ranking, Path(out))
        save_evidence(
            gather(ranking, _drawer(ranking, reals, fakes), _reader(ranking, store)), Path(out)
        )
        write_report(Path(out))
    return ranking


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
        device: "auto", "cpu" or "cuda".
        report: is given each finding as soon as it is there.

    Returns:
        Findings, and the commands to run next.
    """
    whole = load_bank(None if bank is None else Path(bank))
    specs = whole.select(backbones)
    reals = _open_images(real, "real")
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
        fakes = _open_fakes(gen, reals, count, 0, SampleOptions(), place, report)
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


def report(run: Path | str, *, out: Path | str | None = None) -> Path:
    """Write the page of a ranking or a training run: one HTML file that opens offline.

    Args:
        run: the folder that `rank` was given as `out`, or a training run's directory.
        out: where to write; report.html in the run's folder unless given.

    Returns:
        The page's path.

    Raises:
        ProbeError: the folder holds no run, or its files are damaged.
    """
    return write_report(Path(run), None if out is None else Path(out))


def _drawer(ranking: Ranking, reals: ImageSource, fakes: ImageSource) -> Draw:
    """Return what draws small pictures of a ranking's images by their position."""
    n_real = ranking.leaderboard.n_real
    sides = min(SIDE, ranking.leaderboard.resolution)

    def draw(positions: Sequence[int]) -> dict[int, np.ndarray]:
        drawn = {}
        for kind, source in (("real", reals), ("fake", fakes)):
            first = 0 if kind == "real" else n_real
            mine = [p for p in positions if (p >= n_real) == (kind == "fake")]
            at = {ranking.indices[kind][p - first]: p for p in mine}
            batch = source.load(sorted(at), sides)
            pixels = batch.images.permute(0, 2, 3, 1).numpy()
            drawn |= {at[i]: image for i, image in zip(batch.indices, pixels, strict=True)}
        return drawn

    return draw


def _reader(ranking: Ranking, store: FeatureStore) -> Read:
    """Return what reads a ranking's features by backbone and position."""

    def read(name: str, positions: Sequence[int]) -> np.ndarray:
        return store.space(ranking.spaces[name]).read([ranking.keys[p] for p in positions])

    return read


def measure(
    real: Images,
    gen: Images | SampleFunction,
    *,
    bank: Path | str | None = None,
    backbones: Sequence[str] | None = None,
    options: MeasureOptions | None = None,
    sample: SampleOptions | None = None,
    device: str = "auto",
    offline: bool = False,
    report: Report = ignore,
) -> Measurement:
    """Measure how far generated images are from real ones, in any backbones of the bank.

    Args:
        real: as of `rank`.
        gen: as of `rank`.
        bank: the bank file; ./modelbank.yaml or the packaged one unless given.
        backbones: names or patterns of entries; the bank's evaluator unless given.
        options: numbers, seed, precision, canonical FID; see `MeasureOptions`.
        sample: truncation, noise and class of a checkpoint; see `SampleOptions`.
        device: "auto", "cpu" or "cuda".
        offline: never download weights.
        report: is given progress records.

    Returns:
        Fréchet and kernel distance, precision, recall, density and coverage per backbone.

    Raises:
        UsageError: no backbones are named and the bank has no evaluator.
        ProbeError: see the subclasses in `probe.errors`.
    """
    options = options or MeasureOptions()
    sample = sample or SampleOptions()
    place = choose_device(device)
    found = load_bank(None if bank is None else Path(bank))
    if backbones is None and found.evaluator is None and not options.fid:
        raise UsageError(
            f"{found.path} has no entry of role evaluator; say with --backbones where to measure."
        )
    judge = () if found.evaluator is None else (found.evaluator,)
    reals = _open_images(real, "real")
    fakes = _open_fakes(
        gen, reals, options.num_gen or min(options.num, len(reals)), options.seed, sample, place,
        report,
    )  # fmt: skip
    return measure_sources(
        reals,
        fakes,
        judge if backbones is None else found.select(backbones),
        options=options,
        store=FeatureStore(cache_root()),
        device=place,
        offline=offline,
        calibration=open_images(CALIBRATION),
        report=report,
        trained_against=trained_against(Path(gen)) if isinstance(gen, str | Path) else None,
        config={"probe": probe.__version__, "sample": asdict(sample)},
    )


def score(
    images: Images | Sequence[Path | str],
    run: Path | str,
    *,
    bank: Path | str | None = None,
    backbones: Sequence[str] | None = None,
    threshold: float = THRESHOLD,
    device: str = "auto",
    offline: bool = False,
    report: Report = ignore,
) -> Scores:
    """Say how likely each image was generated, by the probes that a ranking left.

    Valid for that ranking's generator and its kind of reals alone.

    Args:
        images: a folder or zip, one or several image files, an `ImageSource`, or uint8
            (N, 3, H, W).
        run: the folder that `rank` was given as `out`.
        bank: the bank file; ./modelbank.yaml or the packaged one unless given. Backbones that are
            not the ranking's any more are refused.
        backbones: names or patterns; all with a probe but the controls unless given.
        threshold: probability above which an image is called generated.
        device: "auto", "cpu" or "cuda".
        offline: never download weights.
        report: is given progress records.

    Raises:
        UsageError: a threshold outside (0, 1), or a folder among several files.
        ProbeError: see the subclasses in `probe.errors`.
    """
    if not 0 < threshold < 1:
        raise UsageError(f"--threshold: must lie between 0 and 1, not {threshold:g}.")
    probes = load_probes(Path(run))
    return score_source(
        _open_given(images),
        probes,
        choose_probes(probes.probes, backbones),
        load_bank(None if bank is None else Path(bank)),
        threshold=threshold,
        store=FeatureStore(cache_root()),
        device=choose_device(device),
        offline=offline,
        calibration=open_images(CALIBRATION),
        report=report,
    )


def _open_given(images: Images | Sequence[Path | str]) -> ImageSource:
    """Open a folder, a zip, image files, or what is open already."""
    if isinstance(images, str | Path):
        images = [images]
    if not isinstance(images, list | tuple):
        return _open_images(images, "images")
    paths = [Path(path) for path in images]
    if missing := [path for path in paths if not path.exists()]:
        raise ImagesError(f"{missing[0]}: no such file or folder. Check the path.")
    whole = [path for path in paths if path.is_dir() or (path.is_file() and is_zip(path))]
    if len(paths) == 1 and whole:
        return open_images(paths[0])
    if whole or not paths:
        what = f"{whole[0]} is no image file" if whole else "no images are named"
        raise UsageError(f"{what}: give one folder or zip, or image files.")
    return open_files(paths)


def generate(
    gen: Path | str,
    seeds: Sequence[int],
    *,
    outdir: Path | str | None = None,
    grid: Path | str | None = None,
    sample: SampleOptions | None = None,
    device: str = "auto",
    report: Report = ignore,
) -> int:
    """Write images of a generator: a file per seed, a contact sheet, or both.

    Args:
        gen: a checkpoint, a training run's directory, or `module:function`.
        seeds: of the images; each image is a function of its own seed.
        outdir: a folder for seed0000.png and so on, or a .zip; with dataset.json of the classes
            where the generator is conditional.
        grid: a PNG of all images side by side.
        sample: truncation, noise and class; without a class each seed draws its own.
        device: "auto", "cpu" or "cuda".
        report: is given progress records.

    Returns:
        How many images were made.

    Raises:
        UsageError: neither `outdir` nor `grid`, or a class that does not exist.
        CheckpointError: not a generator that can be read.
    """
    if outdir is None and grid is None:
        raise UsageError("Nothing to write: give --outdir DIR, --grid FILE.png, or both.")
    sample = sample or SampleOptions()
    _say_what_runs(str(gen), sample, report)
    draw = open_by_seed(str(gen), sample=sample, device=choose_device(device))
    written, tiles = 0, []
    with ImageWriter(None if outdir is None else Path(outdir)) as writer:
        for start in range(0, len(seeds), GENERATE_BATCH):
            part = seeds[start : start + GENERATE_BATCH]
            images, classes = draw(part)
            labels = [None] * len(images) if classes is None else classes
            for seed, image, label in zip(part, images, labels, strict=True):
                writer.add(f"seed{seed:04d}.png", image, label)
            if grid is not None:
                tiles.append(images)
            written += len(images)
            report({"event": "images", "done": written, "total": len(seeds)})
    if grid is not None:
        sheet = torch.cat(tiles)
        save_grid(Path(grid), sheet, columns=math.ceil(math.sqrt(len(sheet))))
    return written


def inspect(path: Path | str) -> Inspection:
    """Say what a checkpoint holds, and what its pickle would have run; nothing of it is run.

    Raises:
        CheckpointError: there is no such file.
    """
    return inspect_file(Path(path))


def demo(
    *, out: Path | str | None = None, num: int = 128, report: Report = ignore
) -> Ranking | None:
    """Rank the packaged backbones on the bundled images and generator; never downloads.

    Backbones whose weights are not installed are left to the leaderboard's unavailable rows.
    """
    return rank(
        DEMO_REALS,
        DEMO_GENERATOR,
        backbones=DEMO_BACKBONES,
        options=RankOptions(num=num),
        out=out,
        offline=True,
        report=report,
    )


def check_bank(
    bank: Path | None, backbones: Sequence[str] | None
) -> Iterator[tuple[str, str | None, int | None]]:
    """Load every entry of a bank, offline.

    Yields:
        Name, what is wrong or None, and the width of the pooled feature or None.
    """
    for spec in load_bank(bank).select(backbones):
        try:
            yield spec.name, None, load_backbone(spec, offline=True).dim
        except BackboneUnavailable as error:
            yield spec.name, str(error), None


@contextmanager
def _training(
    real: Path | str | ImageSource,
    *,
    bank: Path | str | None,
    backbones: Sequence[str] | None,
    offline: bool,
    device: str,
    config: TrainConfig | None,
    **settings: Any,
) -> Iterator[tuple[Run, TrainState]]:
    """Open the images and the bank of a run, and set it up; see `probe.training.setup.set_up`."""
    whole = load_bank(None if bank is None else Path(bank))
    candidates = Candidates(
        specs=[s for s in whole.select(backbones) if s.role == "discriminator"],
        evaluator=whole.evaluator,
        store=FeatureStore(cache_root()),
        calibration=open_images(CALIBRATION),
        offline=offline,
    )
    source = open_images(Path(real)) if isinstance(real, str | Path) else real
    place = local_device(choose_device(device))
    with set_up(source, candidates, config or TrainConfig(), device=place, **settings) as ready:
        yield ready


def train(
    real: Path | str | ImageSource,
    *,
    outdir: Path | str,
    config: TrainConfig | None = None,
    bank: Path | str | None = None,
    backbones: Sequence[str] | None = None,
    init: Path | str | None = None,
    resume: Path | str | None = None,
    device: str = "auto",
    precision: str = "auto",
    offline: bool = False,
    report: Report = ignore,
) -> Path:
    """Train a generator whose discriminators are chosen by probes.

    Args:
        real: a folder or zip of training images, or an `ImageSource`.
        outdir: a numbered run directory is made here, or an unfinished one of the very same
            options and images is continued.
        config: strategy, schedule and everything else; see `TrainConfig`.
        bank: the bank file; ./modelbank.yaml or the packaged one unless given.
        backbones: names or patterns of the entries that may be chosen; all unless given.
        init: a StyleGAN2-ADA pickle or a snapshot to go on from, without a warm-up.
        resume: a run directory to continue, or "latest".
        device: "auto", "cpu" or "cuda".
        precision: "auto", "fp32" or "bf16".
        offline: never download weights.
        report: is given progress records.

    Returns:
        The best snapshot's path, or the last one's where nothing was evaluated.

    Raises:
        ProbeError: see the subclasses in `probe.errors`.
    """
    with _training(
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
        report=report,
    ) as (run, state):
        snapshot = train_loop(run, state)
        if run.world.is_first:
            write_report(run.folder)
        return snapshot


def plan_training(
    real: Path | str | ImageSource,
    *,
    config: TrainConfig | None = None,
    bank: Path | str | None = None,
    backbones: Sequence[str] | None = None,
    init: Path | str | None = None,
    device: str = "auto",
    precision: str = "auto",
    offline: bool = False,
    report: Report = ignore,
) -> Estimate:
    """Check data, bank and weights, report the plan, and measure what training would cost.

    Writes nothing. The arguments are those of `train`.
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
        report=report,
    ) as (run, state):
        return estimate(run, state)
