"""The verbs: `rank`, `train`. Paths become objects here, once; every room below takes objects."""

import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import probe
from probe.bank.load import load_backbone
from probe.bank.spec import load_bank
from probe.errors import BackboneUnavailable, ImagesError, UsageError
from probe.features.store import FeatureStore
from probe.files import cache_root, digest_bytes, digest_json
from probe.generators.config import SampleOptions
from probe.generators.formats import load_generator
from probe.generators.sampler import GeneratorSource
from probe.images.archive import DAMAGED
from probe.images.base import ImageSource
from probe.images.decode import describe_broken
from probe.images.open import open_images
from probe.probing.config import LEAST_IMAGES, RankOptions
from probe.probing.ranking import Ranking
from probe.probing.ranking import rank as rank_sources
from probe.reports.files import save_ranking
from probe.runtime import choose_device, choose_precision
from probe.training.config import TrainConfig
from probe.training.loop import train as train_loop
from probe.training.loop import write_options
from probe.training.state import STATE_FILE

BUNDLED = Path(__file__).parent / "demo"
DEMO_REALS = BUNDLED / "reals.zip"
DEMO_GENERATOR = BUNDLED / "generator.safetensors"
CALIBRATION = BUNDLED / "calibration.zip"
DEMO_BACKBONES = (
    "efficientnet-lite0",
    "efficientnet-lite1",
    "mobilenetv2",
    "random-efficientnet-lite0#0",
    "random-resnet18#[01]",
)

Report = Callable[[dict[str, Any]], None]


def ignore(record: dict[str, Any]) -> None:
    """Report to nobody."""


def open_fakes(
    path: Path, *, real: ImageSource, count: int, seed: int, sample: SampleOptions, device: str
) -> ImageSource:
    """Open `--gen`: a folder or zip of images, or a generator checkpoint.

    Args:
        path: what the user gave.
        real: the real images; their labels are drawn for a conditional generator.
        count: how many samples a generator is to stand for.
        seed: of the samples.
        sample: truncation, noise, class.
        device: where the generator computes.

    Raises:
        CheckpointError: not a generator that can be read.
        ImagesError: a folder or zip without images.
        UsageError: sampling flags together with a folder of images.
    """
    if path.is_dir() or _is_image_zip(path):
        if sample != SampleOptions():
            raise UsageError(
                f"--gen: {path} holds finished images; --trunc, --noise and --class belong to a "
                "checkpoint. Leave them out."
            )
        return open_images(path)
    checkpoint = load_generator(path)
    return GeneratorSource(
        checkpoint,
        name=str(path),
        count=count,
        seed=seed,
        psi=sample.trunc,
        noise=sample.noise,
        labels=real.labels,
        class_index=sample.class_index,
        device=choose_device(device),
    )


def _is_image_zip(path: Path) -> bool:
    """Return whether a file is a zip of images, not a torch file (which is a zip as well)."""
    if not path.is_file():
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return not any(name.endswith("data.pkl") for name in archive.namelist())
    except (*DAMAGED, OSError):
        # What calls itself a zip is opened as one, to be told what is wrong with it.
        return path.suffix.lower() == ".zip"


def rank(
    real: Path | str | ImageSource,
    gen: Path | str | ImageSource,
    *,
    bank: Path | str | None = None,
    backbones: Sequence[str] | None = None,
    options: RankOptions | None = None,
    sample: SampleOptions | None = None,
    out: Path | str | None = None,
    device: str = "auto",
    offline: bool = False,
    report: Report = ignore,
) -> Ranking:
    """Rank the bank's backbones by how well they tell real images from generated ones.

    Args:
        real: a folder or zip of real images, or an `ImageSource`.
        gen: a generator checkpoint, a folder or zip of generated images, or an `ImageSource`.
        bank: the bank file; ./modelbank.yaml or the packaged one unless given.
        backbones: names or patterns of the entries to rank; all unless given.
        options: protocol, numbers, seed, precision; see `RankOptions`.
        sample: truncation, noise and class of a checkpoint; see `SampleOptions`.
        out: a folder for leaderboard.json, leaderboard.csv and scores.csv.
        device: "auto", "cpu" or "cuda".
        offline: never download weights.
        report: is given progress records.

    Returns:
        Leaderboards, per-image results and the images that were skipped.

    Raises:
        ProbeError: see the subclasses in `probe.errors`.
    """
    options = options or RankOptions()
    sample = sample or SampleOptions()
    specs = load_bank(None if bank is None else Path(bank)).select(backbones)
    reals = open_images(real) if isinstance(real, str | Path) else real
    fakes = gen
    if isinstance(gen, str | Path):
        count = min(options.num, len(reals))
        fakes = open_fakes(
            Path(gen), real=reals, count=count, seed=options.seed, sample=sample, device=device
        )
    ranking = rank_sources(
        reals,
        fakes,
        specs,
        options=options,
        store=FeatureStore(cache_root()),
        device=choose_device(device),
        offline=offline,
        calibration=open_images(CALIBRATION),
        report=report,
        config={"probe": probe.__version__, "sample": asdict(sample)},
    )
    if out is not None:
        save_ranking(ranking, Path(out))
    return ranking


def demo(*, out: Path | str | None = None, num: int = 128, report: Report = ignore) -> Ranking:
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


def train(
    real: Path | str,
    *,
    outdir: Path | str,
    config: TrainConfig | None = None,
    resume: Path | str | None = None,
    device: str = "auto",
    precision: str = "auto",
    report: Report = ignore,
) -> Path:
    """Train a generator on a folder or zip of images, without vision-aided discriminators.

    Args:
        real: the training images.
        outdir: a new numbered run directory is made here.
        config: see `TrainConfig`.
        resume: a run directory to continue instead, with the same images and options.
        device: "auto", "cpu" or "cuda".
        precision: "auto", "fp32" or "bf16".
        report: is given one record per tick.

    Returns:
        The last snapshot's path.

    Raises:
        ProbeError: see the subclasses in `probe.errors`.
    """
    config = config or TrainConfig()
    place = choose_device(device)
    precision = choose_precision(precision, place)
    source = open_images(Path(real))
    resolution = config.resolution or source.resolution
    if resolution < 8 or resolution & (resolution - 1):
        raise UsageError(
            f"--resolution: the images of {real} are {resolution} px; a generator needs a power "
            "of two. Choose one, for example --resolution "
            f"{2 ** (resolution.bit_length() - 1) if resolution >= 8 else 8}."
        )
    usable, broken = _usable_images(source, resolution)
    keys = source.keys(usable)
    options = asdict(config)
    images_digest = digest_bytes("\n".join(keys).encode())
    digest = digest_json({**options, "kimg": None, "images": images_digest})
    record = {
        "probe": probe.__version__,
        "real": {**source.identity(), "usable": len(usable)},
        "resolution": resolution,
        "gamma": config.resolved_gamma(resolution),
        "ema_kimg": config.resolved_ema_kimg(),
        "precision": precision,
        "device": str(place),
        "options": options,
        "digest": digest,
    }
    folder = _run_folder(Path(outdir), Path(real).stem, resume)
    write_options(folder, record)
    report({"folder": str(folder), "images": len(usable), **record})
    if broken:
        report({"note": describe_broken(broken)})
    return train_loop(
        source,
        usable,
        config,
        folder,
        resolution=resolution,
        device=place,
        precision=precision,
        digest=digest,
        metadata={"options": options, "images_digest": images_digest},
        report=report,
    )


def _usable_images(source: ImageSource, resolution: int) -> tuple[list[int], list[Any]]:
    """Decode everything once: (indices that decode, what is broken)."""
    usable, broken = [], []
    for start in range(0, len(source), 256):
        batch = source.load(range(start, min(start + 256, len(source))), resolution)
        usable += batch.indices
        broken += batch.broken.values()
    if len(usable) < LEAST_IMAGES:
        skipped = f" {describe_broken(broken)}" if broken else ""
        raise ImagesError(
            f"{source.name}: {len(usable)} usable images are too few to train on; at least "
            f"{LEAST_IMAGES} are needed.{skipped}"
        )
    return usable, broken


def _run_folder(outdir: Path, name: str, resume: Path | str | None) -> Path:
    """Return the run directory: the one to resume, or outdir/00003-name."""
    if resume is not None:
        folder = Path(resume)
        if not (folder / STATE_FILE).exists():
            raise UsageError(
                f"--resume: {folder} holds no {STATE_FILE}. Name a run directory, for example "
                f"{outdir}/00000-{name}."
            )
        return folder
    taken = [int(p.name[:5]) for p in outdir.glob("[0-9]" * 5 + "-*") if p.is_dir()]
    folder = outdir / f"{max(taken, default=-1) + 1:05d}-{name}"
    folder.mkdir(parents=True)
    return folder
