"""The parts of `gpu.py`: each yields the rows of its tables as they are found."""

import gc
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch
import yaml
from common import ROOT, copy_peak, matmul_peak, run_python, speedup, stopwatch, wait_for_gpu
from inputs import build_generator, save_generator, write_noise
from PIL import Image
from reference import load_network
from torch.utils.data import DataLoader, Dataset
from trainers import Ours
from trainers import Setting as Training

from probe.bank.base import Backbone
from probe.bank.file import load_bank
from probe.bank.load import load_backbone
from probe.bundled import BN_IMAGES
from probe.devices import autocast, choose_device, choose_precision, peak_gib, pin, send
from probe.features.extract import BackbonePool, backbone_costs, pooled_features
from probe.generators.base import to_uint8
from probe.generators.config import SampleOptions
from probe.generators.files.formats import load_generator
from probe.generators.sampler import GeneratorSource
from probe.images.open import open_images
from probe.options import PRECISIONS
from probe.processes import Processes
from probe.training.reals import open_reals
from probe.training.stream import RealStream

BANK = Path(__file__).resolve().parent / "bank.yaml"
EXTRACTED = ("resnet50", "swin-t", "efficientnet-lite0", "vit-b16")
# Entries of the product's bank that are ranked: the first with its weights, the others with random
# ones, since no hub can be reached from everywhere.
RANKED = (
    "mobilenetv2", "resnet50", "dino-vit-b16", "swin-t", "dinov2-vit-s14",
    "dinov2-vit-b14-reg", "convnextv2-t", "siglip-vit-b16", "efficientnet-lite0",
)  # fmt: skip
BEFORE = {"resnet50": 10_495, "swin-t": 5_176, "efficientnet-lite0": 16_716, "vit-b16": 7_568}
PLAIN_BATCH = 32  # of a plain loop that draws
EXTRACTION_BATCH = 256  # of a plain loop that extracts

Work = Callable[[], Any]


@dataclass(frozen=True)
class Setting:
    """What is measured: the usual sizes, or tiny ones.

    Attributes:
        folder: for files that parts make.
        quick: whether sizes are tiny.
    """

    folder: Path
    quick: bool

    @property
    def size(self) -> "Sizes":
        """The sizes."""
        return QUICK if self.quick else Sizes()

    def sizes(self) -> dict[str, Any]:
        """Return the sizes as plain values."""
        return asdict(self.size)

    def generator(self) -> Path:
        """Return a generator's file, written at the first call."""
        path = self.folder / "g.safetensors"
        if not path.exists():
            made = build_generator(self.size.side, self.size.channel_base)
            save_generator(self.folder / "part.safetensors", made)
            (self.folder / "part.safetensors").replace(path)
        return path

    def pictures(self, suffix: str, count: int, seed: int = 0) -> Path:
        """Return a folder of encoded images, written at the first call."""
        folder = self.folder / f"{suffix}-{count}-{seed}"
        if not folder.exists():
            write_noise(folder, count, self.size.side, suffix=suffix, seed=seed)
        return folder


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        side: of images in pixels.
        channel_base: of the generator and the discriminator.
        drawn: images per timed call.
        rounds: timed calls of each side.
        batch: of training.
        ranked: images of each class.
        extracted: images per timed call in half precision; half of them in float32.
        fed: encoded images of each kind.
        backbones: whose extraction is timed.
        trained: backbones to train against, one at a time; "" is none.
        backbones_ranked: see `RANKED`.
        r1_interval: steps from one with R1 to the next.
        pl_interval: steps from one with path lengths to the next.
        peak_seconds: for each ceiling.
        compiler: backend of torch.compile.
    """

    side: int = 256
    channel_base: int = 16384
    drawn: int = 128
    rounds: int = 3
    batch: int = 32
    ranked: int = 2000
    extracted: int = 1024
    fed: int = 4096
    backbones: tuple[str, ...] = EXTRACTED
    trained: tuple[str, ...] = ("", "mobilenetv2")
    backbones_ranked: tuple[str, ...] = RANKED
    r1_interval: int = 16
    pl_interval: int = 4
    peak_seconds: float = 0.3
    compiler: str = "inductor"


QUICK = Sizes(
    side=32, channel_base=256, drawn=2, rounds=1, batch=4, ranked=16, extracted=4, fed=32,
    backbones=("toy-0",), trained=("",), backbones_ranked=("toy-0", "toy-1"),
    r1_interval=4, pl_interval=2, peak_seconds=0.01, compiler="eager",
)  # fmt: skip


class Found(NamedTuple):
    """A row of one of `TABLES`."""

    table: str
    row: list[Any]


@dataclass(frozen=True)
class Check:
    """A goal: what was found, and its bound as `Record.check` takes it."""

    what: str
    value: float
    bounds: Mapping[str, Any] = field(default_factory=dict)


def reason(error: BaseException) -> str:
    """Return why something failed, for a cell of a table."""
    return f"{type(error).__name__}: {error}".strip().splitlines()[0][:100]


# ---------------------------------------------------------------------------------------------
# Sides
# ---------------------------------------------------------------------------------------------


class Side(NamedTuple):
    """One way to do some work.

    Attributes:
        build: returns what is timed.
        accel: whether `probe.accel` is on meanwhile.
    """

    build: Callable[[], Work]
    accel: bool = True

    def switched(self) -> AbstractContextManager[Any]:
        """Return a context in which `probe.accel` is on or off."""
        return nullcontext() if self.accel else patch.dict(os.environ, PROBE_ACCEL="0")


def take_turns(sides: Mapping[str, Side], rounds: int) -> dict[str, list[float] | str]:
    """Time sides in turns, each after a call that is not timed.

    Returns:
        Side → seconds of every round, or why it failed.
    """
    built: dict[str, Work] = {}
    found: dict[str, list[float] | str] = {}
    for name, side in sides.items():
        try:
            with side.switched():
                built[name] = side.build()
                built[name]()
            found[name] = []
        except Exception as error:
            found[name] = reason(error)
            built.pop(name, None)
    for _ in range(rounds):
        for name, work in built.items():
            with sides[name].switched():
                found[name].append(stopwatch(work))  # pyright: ignore[reportAttributeAccessIssue]
    return found


def rate(count: int, seconds: list[float] | str | None) -> float | str | None:
    """Return images per second, or what stands for it in a table."""
    return count / median(seconds) if isinstance(seconds, list) else seconds


def ratio(slow: list[float] | str | None, fast: list[float] | str | None) -> str | None:
    """Return by how much one side is faster, None if one of them failed."""
    both = isinstance(slow, list) and isinstance(fast, list)
    return str(speedup(slow, fast)) if both else None


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


# ---------------------------------------------------------------------------------------------
# card
# ---------------------------------------------------------------------------------------------


def card(setting: Setting) -> Iterator[Found]:
    """Measure the ceilings."""
    seconds = setting.size.peak_seconds
    for precision in ("fp32", "tf32", "bf16") if torch.cuda.is_available() else ("fp32", "bf16"):
        peak = matmul_peak(precision, seconds=seconds) / 1000
        yield Found("card", [f"matrix products in {precision}, TFLOP/s", peak])
    yield Found("card", ["copies, read and written, GB/s", copy_peak(seconds=seconds)])


# ---------------------------------------------------------------------------------------------
# draw
# ---------------------------------------------------------------------------------------------

DRAWS = {  # what is drawn → precision, noise, goal in images per second
    "float32, random noise": ("fp32", "random", 1000),
    "half precision, constant noise": ("bf16", "const", 2500),
    "half precision, random noise": ("bf16", "random", 2400),
}


def draw(setting: Setting) -> Iterator[Found | Check]:
    """Draw images by the product's source, and by a loop over its network."""
    size = setting.size
    for name, (precision, noise, goal) in DRAWS.items():
        plain = partial(draw_plainly, setting, precision, noise)
        ours = partial(draw_as_product, setting, precision, noise)
        sides = {"plain": Side(plain, accel=False), "off": Side(ours, accel=False),
                 "ours": Side(ours)}  # fmt: skip
        found = take_turns(sides, size.rounds)
        rates = [rate(size.drawn, found[side]) for side in sides]
        ratios = [ratio(found[side], found["ours"]) for side in ("plain", "off")]
        yield Found("draw", [name, *rates, *ratios])
        if isinstance(rates[-1], float):
            yield Check(f"Drawing, {name}, images/s", rates[-1], {"at_least": goal})
        _free()


def draw_as_product(setting: Setting, precision: str, noise: str) -> Work:
    """Return a call that draws as `probe rank` and `probe generate` do."""
    device, count = choose_device(), setting.size.drawn
    source = GeneratorSource(
        load_generator(setting.generator()), name="g", count=count,
        sample=SampleOptions(noise=noise), device=device,
    )  # fmt: skip

    def work() -> None:
        with autocast(device, precision):
            source.load(range(count), setting.size.side)

    return work


def draw_plainly(setting: Setting, precision: str, noise: str, compiler: str | None = None) -> Work:
    """Return a call of a plain loop over the network, compiled if there is a compiler."""
    device, count = choose_device(), setting.size.drawn
    network = load_generator(setting.generator()).generator.to(device)
    forward = partial(network, noise_mode=noise)
    if compiler:
        forward = torch.compile(forward, backend=compiler, dynamic=False)
    batch = min(PLAIN_BATCH, count)

    @torch.no_grad()
    def work() -> None:
        parts = []
        for _ in range(0, count, batch):
            with autocast(device, precision):
                images = forward(torch.randn(batch, network.z_dim, device=device), None)
            parts.append(to_uint8(images).cpu())

    return work


# ---------------------------------------------------------------------------------------------
# train
# ---------------------------------------------------------------------------------------------


class Cycle(NamedTuple):
    """Seconds of the steps of one cycle of regularisers, by kind; see `steps_by_kind`."""

    plain: list[float]
    path: list[float]
    r1: list[float]
    whole: float
    gib: float


def trainer(setting: Setting, backbone: str = "") -> Ours:
    """Return a trainer whose next step is one with R1 and path lengths."""
    size = setting.size
    options = {
        "channel_base": size.channel_base,
        "pl_weight": 2.0,
        "pl_interval": size.pl_interval,
        "r1_interval": size.r1_interval,
    }
    made = Ours(
        Training(
            "ours",
            size.side,
            size.batch,
            (backbone,) if backbone else (),
            options=tuple(options.items()),
        )
    )
    assert made.config.gamma
    return made


def steps_by_kind(made: Ours, *, warm: bool) -> Cycle:
    """Time every step from one with R1 to the next.

    A step with R1 has path lengths, too; the time of R1 is what it takes beyond those.

    Args:
        made: the trainer.
        warm: whether to take a whole cycle before; else one step of each kind.
    """
    interval, pl_interval = made.config.r1_interval, made.config.pl_interval
    made.skip_to_regulariser()
    for _ in range(interval if warm else 2):
        made.step()
    made.skip_to_regulariser()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    times = [stopwatch(made.step) for _ in range(interval)]
    plain = [t for i, t in enumerate(times) if i % pl_interval]
    path = [t for i, t in enumerate(times) if i and i % pl_interval == 0]
    usual = median(plain)
    extra = median(path) - usual
    whole = sum(times)
    if warm and torch.cuda.is_available():  # once more without a wait after every step
        made.skip_to_regulariser()
        whole = stopwatch(lambda: [made.step() for _ in range(interval)])
    return Cycle(plain, path, [times[0] - extra], whole, peak_gib(made.device))


def train(setting: Setting) -> Iterator[Found | Check]:
    """Take steps of the plain trainer, with and without `probe.accel`, and with a backbone."""
    size = setting.size
    kimg = size.batch * size.r1_interval / 1000
    for backbone in size.trained:
        name = backbone or "no backbones"
        cycles: dict[str, Cycle | None] = {}
        for side in ("ours", "off"):
            cycles[side] = None
            if side == "off" and backbone:
                continue
            with Side(nullcontext, accel=side == "ours").switched():
                try:
                    cycles[side] = steps_by_kind(trainer(setting, backbone), warm=side == "ours")
                except Exception as error:
                    yield Found("train", [f"{name}, {side}", reason(error), *[None] * 4])
            _free()
        ours, off = cycles["ours"], cycles["off"]
        if ours is None:
            continue
        times = ours.whole / kimg
        yield Found(
            "train",
            [name, off and off.whole / kimg, times, off and str(speedup([off.whole], [ours.whole])),
             off and off.gib, ours.gib],
        )  # fmt: skip
        if not backbone:
            yield Check("Training without backbones, s/kimg", times, {"at_most": 4.5})
            yield Check("Training without backbones, GiB", ours.gib, {"at_most": 10})
            for kind in ("path", "r1"):
                share = median(getattr(ours, kind)) / median(ours.plain)
                yield Check(f"Step with {KINDS[kind]}, plain steps", share, {"at_most": 1.5})
        for side, cycle in cycles.items():
            if cycle is not None:
                label = name if side == "ours" else f"{name}, PROBE_ACCEL=0"
                yield from step_rows(label, cycle)


KINDS = {"plain": "neither", "path": "path lengths", "r1": "R1"}


def step_rows(label: str, cycle: Cycle) -> Iterator[Found]:
    """Yield the time of a step of each kind."""
    plain = median(cycle.plain)
    for kind, text in KINDS.items():
        seconds = median(getattr(cycle, kind))
        yield Found("steps", [f"{label}: {text}", 1000 * seconds, seconds / plain])


# ---------------------------------------------------------------------------------------------
# rank
# ---------------------------------------------------------------------------------------------


def rank(setting: Setting) -> Iterator[Found | Check]:
    """Rank in a process of its own, first with an empty cache, then again."""
    generator, count = setting.generator(), setting.size.ranked
    reals = setting.pictures("png", count, seed=1)
    bank = write_bank(setting)
    for name, goal in (("cold", 25), ("warm", 5)):
        command = [ROOT / "benchmarks" / "timed_rank.py", time.monotonic(), reals, generator]
        done = run_python(
            [*map(str, command), str(bank), str(count)], cache=setting.folder / "cache"
        )
        found = json.loads(done.stdout)
        statuses = list(found["rows"].values())
        complete = f"{statuses.count('ok')}/{len(statuses)}"
        yield Found("rank", [name, *found["phases"].values(), done.seconds, complete])
        yield Check(f"Ranking, {name}, seconds", done.seconds, {"at_most": goal})


def write_bank(setting: Setting) -> Path:
    """Write the bank that is ranked, and return its path."""
    texts = [path.read_text("utf-8") for path in (BANK, ROOT / "modelbank.yaml")]
    entries = {entry["name"]: entry for text in texts for entry in yaml.safe_load(text)}
    first, *others = (entries[name] for name in setting.size.backbones_ranked)
    chosen = [first, *({**e, "weights": {"random": 0}, "role": "control"} for e in others)]
    path = setting.folder / "bank.yaml"
    path.write_text(yaml.safe_dump(chosen, sort_keys=False), "utf-8")
    return path


# ---------------------------------------------------------------------------------------------
# extract
# ---------------------------------------------------------------------------------------------


def precisions() -> list[str]:
    """Return the precisions to time: all that the product has, the device's own first."""
    first = choose_precision("auto", choose_device())
    others = [p for p in PRECISIONS if p not in ("auto", first)]
    if not torch.cuda.is_available():
        others = [p for p in others if p == "fp32"]
    return [first, *others]


def batch_of(setting: Setting, name: str, precision: str) -> torch.Tensor:
    """Return the images that are timed, uint8, pinned if there is a GPU."""
    spec = _specs()[name]
    count = setting.size.extracted // (2 if precision == "fp32" else 1)
    stream = torch.Generator().manual_seed(0)
    shape = (count, 3, spec.input, spec.input)
    return pin(torch.randint(0, 256, shape, dtype=torch.uint8, generator=stream), choose_device())


def _specs() -> dict[str, Any]:
    return {s.name: s for s in (*load_bank(None).specs, *load_bank(BANK).specs)}


def product_backbone(name: str) -> Backbone:
    """Return a backbone as the product runs it."""
    spec, bn_images = _specs()[name], open_images(BN_IMAGES)
    pool = BackbonePool(
        lambda _: load_backbone(spec, offline=True, bn_images=bn_images), choose_device()
    )
    return pool.get(name)


def extract_as_product(name: str, images: torch.Tensor, precision: str) -> Work:
    """Return a call that extracts as the product does."""
    backbone = product_backbone(name)
    return partial(pooled_features, backbone, images, device=choose_device(), precision=precision)


def extract_plainly(
    name: str,
    images: torch.Tensor,
    precision: str,
    compiler: str | None = None,
    tf32: bool = False,
) -> Work:
    """Return a call of a plain loop over the library's module.

    Args:
        name: of the backbone.
        images: uint8 (N, 3, R, R) on the CPU.
        precision: "bf16" is autocast; "tf32" is float32 with `tf32`.
        compiler: backend of torch.compile, with channels_last, or None for the default layout.
        tf32: whether float32 products and convolutions may be rounded to TF32.
    """
    device, spec = choose_device(), _specs()[name]
    layout = torch.channels_last if compiler else torch.contiguous_format
    network = load_network(spec).to(device, memory_format=layout).requires_grad_(False)
    forward: Callable[[torch.Tensor], torch.Tensor] = network.pool
    if compiler:
        forward = torch.compile(forward, backend=compiler, dynamic=False)
    mean, std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (spec.mean, spec.std))

    @torch.no_grad()
    def work() -> None:
        rows = []
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        for batch in images.split(EXTRACTION_BATCH):
            x = (batch.to(device, non_blocking=True).float() / 255 - mean) / std
            with autocast(device, precision):
                rows.append(forward(x.contiguous(memory_format=layout)).float())
        torch.cat(rows).cpu()
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False

    return work


def extract(setting: Setting) -> Iterator[Found | Check]:
    """Extract features by the product and by plain loops."""
    for precision in precisions():
        for name in setting.size.backbones:
            images = batch_of(setting, name, precision)
            plain = partial(extract_plainly, name, images, precision, tf32=precision == "tf32")
            ours = partial(extract_as_product, name, images, precision)
            sides = {"plain": Side(plain), "off": Side(ours, accel=False), "ours": Side(ours)}
            found = take_turns(sides, setting.size.rounds)
            rates = [rate(len(images), found[side]) for side in sides]
            ratios = [ratio(found[side], found["ours"]) for side in ("plain", "off")]
            flops = 2e-12 * backbone_costs(product_backbone(name), choose_device())["flops"]
            achieved = flops * rates[-1] if isinstance(rates[-1], float) else None
            yield Found("extract", [f"{name}, {precision}", *rates, *ratios, achieved])
            yield from _extraction_goals(name, precision, rates)
            _free()


def _extraction_goals(
    name: str, precision: str, rates: Sequence[float | str | None]
) -> Iterator[Check]:
    plain, _, ours = rates
    if not isinstance(ours, float):
        return
    if precision == "bf16" and name in BEFORE:
        least = 1.0 if name == "vit-b16" else 1.5
        yield Check(
            f"{name} in bf16 against the last record", ours / BEFORE[name], {"at_least": least}
        )
    elif precision != "bf16" and isinstance(plain, float):
        yield Check(f"{name} in {precision} against a plain loop", ours / plain, {"at_least": 1.0})


# ---------------------------------------------------------------------------------------------
# feed
# ---------------------------------------------------------------------------------------------


class Files(Dataset):
    """A folder of images, as a plain loop reads them."""

    def __init__(self, folder: Path) -> None:
        self.files = sorted(folder.iterdir())

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> torch.Tensor:
        pixels = np.array(Image.open(self.files[index]).convert("RGB"))
        return torch.from_numpy(pixels).permute(2, 0, 1)


def feed(setting: Setting) -> Iterator[Found | Check]:
    """Decode images and send them to the device, as ranking, training and a plain loop do."""
    count = setting.size.fed
    for suffix in ("png", "jpg"):
        folder = setting.pictures(suffix, count)
        sides = {
            "plain": Side(partial(feed_plainly, folder)),
            "ranking": Side(partial(feed_ranking, folder, setting.size.side)),
            "training": Side(partial(feed_training, folder, setting)),
        }
        found = take_turns(sides, 1)
        rates = [rate(count, found[side]) for side in sides]
        ratios = [ratio(found["plain"], found[side]) for side in ("ranking", "training")]
        size = sum(path.stat().st_size for path in folder.iterdir()) / count / 1024
        yield Found("feed", [suffix, size, *rates, *ratios])
        for side, speed in zip(sides, rates, strict=True):
            if side != "plain" and isinstance(speed, float):
                yield Check(f"Feeding {side}, {suffix}, images/s", speed, {"at_least": 4000})


def feed_plainly(folder: Path) -> Work:
    """Return a call that reads a folder by torch's own loader with a process per core."""
    device = choose_device()
    loader = DataLoader(
        Files(folder), 32, num_workers=os.cpu_count() or 1, pin_memory=device.type == "cuda",
        multiprocessing_context="fork",
    )  # fmt: skip

    def work() -> None:
        for images in loader:
            images.to(device, non_blocking=True)

    return work


def feed_ranking(folder: Path, side: int, unit: int = 512) -> Work:
    """Return a call that reads a folder as extraction does: keys, then pixels, by units."""
    device = choose_device()

    def work() -> None:
        source = open_images(folder)
        for start in range(0, len(source), unit):
            indices = range(start, min(start + unit, len(source)))
            source.keys(indices)
            send(pin(source.load(indices, side).images, device), device)

    return work


def feed_training(folder: Path, setting: Setting) -> Work:
    """Return a call that reads a folder as training does if it is too large for memory."""
    device, size = choose_device(), setting.size
    opened = open_reals(open_images(folder), resolution=size.side, holdout=0, cond=False, seed=0)
    reals = replace(opened, pixels=None)
    stream = RealStream(
        reals, batch=size.batch, mirror=False, seed=0, processes=Processes(), device=device
    )

    def work() -> None:
        for start in range(0, size.fed, size.batch):
            stream.at(start)

    return work


# ---------------------------------------------------------------------------------------------
# compiled
# ---------------------------------------------------------------------------------------------


def compiled(setting: Setting) -> Iterator[Found]:
    """Time the product against the same networks under torch.compile."""
    size = setting.size
    works = {}
    for name, (precision, noise, _) in DRAWS.items():
        works[f"draw, {name}"] = (
            size.drawn,
            partial(draw_as_product, setting, precision, noise),
            partial(draw_plainly, setting, precision, noise, size.compiler),
        )
    first = precisions()[0]
    for name in size.backbones:
        images = batch_of(setting, name, first)
        works[f"extract, {name}, {first}"] = (
            len(images),
            partial(extract_as_product, name, images, first),
            partial(extract_plainly, name, images, first, size.compiler),
        )
    works["train, steps without regularisers"] = (
        (size.pl_interval - 1) * size.batch,
        partial(plain_steps, setting),
        partial(plain_steps, setting, size.compiler),
    )
    for name, (count, ours, theirs) in works.items():
        yield compare_compiled(name, count, Side(ours), Side(theirs, accel=False), size.rounds)
        torch.compiler.reset()
        _free()


def compare_compiled(name: str, count: int, ours: Side, theirs: Side, rounds: int) -> Found:
    """Return the row of one piece of work."""
    took = 0.0

    def timed_build() -> Work:
        nonlocal took
        started = time.perf_counter()
        work = theirs.build()
        work()
        wait_for_gpu()
        took = time.perf_counter() - started
        return work

    found = take_turns({"ours": ours, "theirs": Side(timed_build, accel=False)}, rounds)
    rates = [rate(count, found[side]) for side in ("theirs", "ours")]
    return Found("compiled", [name, *rates, ratio(found["theirs"], found["ours"]), took])


def plain_steps(setting: Setting, compiler: str | None = None) -> Work:
    """Return a call that takes the steps between two with a regulariser.

    torch.compile cannot differentiate twice, so it can only be compared there.
    """
    made = trainer(setting)
    if compiler:
        made.state.generator.synthesis.compile(backend=compiler, dynamic=False)
        made.members[0].network.compile(backend=compiler, dynamic=False)

    def work() -> None:
        made.state.images = setting.size.batch  # the step after one with regularisers
        for _ in range(setting.size.pl_interval - 1):
            made.step()

    return work


# ---------------------------------------------------------------------------------------------
# What there is
# ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """A part of the benchmark.

    Attributes:
        work: yields its rows and goals.
        table: in which a failure is told.
        share: of all the time, which it may take at most.
    """

    work: Callable[[Setting], Iterator[Found | Check]]
    table: str
    share: float


@dataclass(frozen=True)
class Table:
    """A table: its title, which may name sizes as `str.format` does, and its columns."""

    text: str
    columns: list[str]

    def title(self, setting: Setting) -> str:
        """Return the title."""
        return self.text.format(**setting.sizes())


PARTS = {
    "card": Part(card, "card", 0.1),
    "draw": Part(draw, "draw", 0.2),
    "train": Part(train, "train", 0.35),
    "rank": Part(rank, "rank", 0.6),
    "extract": Part(extract, "extract", 0.25),
    "feed": Part(feed, "feed", 0.2),
    "compiled": Part(compiled, "compiled", 1.0),
}
OFF = "ours, PROBE_ACCEL=0"
TABLES = {
    "card": Table("What the machine can do", ["", "measured"]),
    "draw": Table(
        "Drawing, images per second: {side} px, channel base {channel_base}, {drawn} images",
        ["", "plain loop", OFF, "ours", "times the plain loop", "times PROBE_ACCEL=0"],
    ),
    "train": Table(
        "Training: {side} px, channel base {channel_base}, batch {batch}, ADA at p 0.3, R1 every "
        "{r1_interval} steps, path lengths every {pl_interval}",
        ["", f"{OFF}, s/kimg", "ours, s/kimg", "times faster", f"{OFF}, GiB", "ours, GiB"],
    ),
    "steps": Table("One step, by what it has beside the losses", ["", "ms", "plain steps"]),
    "rank": Table(
        "Ranking, seconds: {ranked} images of each class, {side} px",
        ["", "start", "reals", "fakes", "probes left", "whole process", "rows"],
    ),
    "extract": Table(
        "Extraction, images per second",
        ["", "plain loop", OFF, "ours", "times the plain loop", "times PROBE_ACCEL=0", "TFLOP/s"],
    ),
    "feed": Table(
        "Feeding, images per second: {fed} encoded images of {side} px",
        ["", "KiB", "DataLoader", "ranking", "training", "ranking, times faster",
         "training, times faster"],
    ),
    "compiled": Table(
        "Against torch.compile, images per second",
        ["", "compiled", "ours", "times faster", "seconds to compile"],
    ),
}  # fmt: skip
