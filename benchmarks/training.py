"""Training with two backbones: seconds per thousand images, against the reference's way of it.

    python benchmarks/training.py [--quick] [--rounds 3] [--curve-steps 128] [--out FILE.json]

Every side is a process of its own, and the processes take turns, so that each has its own memory
allocator (`probe.memory`) and none of its threads runs while another side is timed.

Ours is `probe.training.step.train_step`, in the precision that the machine has. The reference takes
the same steps of the same networks with the same random numbers (see `Reference`). Then both train
at a small size from the same seeds, to see that their losses are the same but for chance. Last,
where the time of a step goes, and what the plain trainer would gain or lose by other choices.
"""

import argparse
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import combinations
from multiprocessing import get_context
from statistics import median
from typing import Any

import numpy as np
import torch
from common import Record, arguments, speedup, stopwatch
from reference import grouped_modulated_conv2d, load_network
from torch.profiler import ProfilerActivity, profile

from probe.api import DEMO_REALS
from probe.bank.base import Backbone, normalise, resize
from probe.bank.load import load_backbone, wrap
from probe.bank.spec import BackboneSpec, load_bank
from probe.generators import stylegan2
from probe.images.open import open_images
from probe.memory import keep_freed_memory
from probe.runtime import World, choose_device, choose_precision
from probe.training.clock import Clock
from probe.training.config import TrainConfig
from probe.training.ensemble import Member, VisionNetwork, vision_member
from probe.training.losses import r1_penalty
from probe.training.presets import make_plan
from probe.training.reals import RealStream, open_reals
from probe.training.state import TrainState
from probe.training.step import Samples, train_step

BACKBONES = ("efficientnet-lite0", "mobilenetv2")
TARGET = 2.5
REFERENCE, FACTORED = "reference", "reference, our convolutions"
P = 0.3  # fixed, so that every step augments alike
OPERATORS = 12  # shown of the profiler's list
FINITE = 1e5  # what the reference puts in place of an infinite gradient

Stats = dict[str, float]


@dataclass(frozen=True)
class Setting:
    """What one process trains, and how.

    Attributes:
        side: "ours", `REFERENCE` or `FACTORED`.
        resolution: of the images.
        batch: images per step.
        backbones: names in the bank; none for the plain trainer.
        input: side that backbones are fed instead of their own.
        resize: how images reach it; None is the entry's own way.
        precision: of ours; "auto" is what `probe train` would take.
        channels_last: whether ours has its networks in that layout, as `probe train` does.
        keep_memory: whether ours keeps freed memory, as `probe train` does.
        options: of `TrainConfig`.
        threads: of torch; None is its own choice.
    """

    side: str
    resolution: int
    batch: int
    backbones: tuple[str, ...] = ()
    input: int | None = None
    resize: str | None = None
    precision: str = "auto"
    channels_last: bool = True
    keep_memory: bool = True
    options: tuple[tuple[str, Any], ...] = ()
    threads: int | None = None


# ---------------------------------------------------------------------------------------------
# The two ways to train
# ---------------------------------------------------------------------------------------------


class Trainer:
    """What both sides have: networks that begin alike, the images, the counters."""

    def __init__(self, setting: Setting) -> None:
        self.setting, self.device = setting, choose_device()
        self.clock = Clock(self.device)
        reals = open_reals(
            open_images(DEMO_REALS), resolution=setting.resolution, holdout=0, cond=False, seed=0
        )
        options = {"batch": setting.batch, "aug_p": P, **dict(setting.options)}
        plan = make_plan(
            TrainConfig(**options), resolution=setting.resolution, images=len(reals.training)
        )
        self.config, self.world = plan.config, World()
        self.state = TrainState(self.config, setting.resolution, self.device, digest="")
        specs = load_bank(None).select(setting.backbones) if setting.backbones else []
        for spec in specs:
            chosen = {"input": setting.input, "resize": setting.resize}
            given = {key: value for key, value in chosen.items() if value is not None}
            backbone = self.backbone(replace(spec, **given))
            self.state.members.append(
                vision_member(self.config, backbone, c_dim=0, smooth=False, device=self.device)
            )
        self.members = self.state.members
        self.stream = RealStream(
            reals, batch=setting.batch, mirror=True, seed=self.config.seed, world=self.world,
            device=self.device,
        )  # fmt: skip

    def backbone(self, spec: BackboneSpec) -> Backbone:
        """Return a frozen backbone."""
        raise NotImplementedError

    def step(self, *, warmup: bool = False) -> Stats:
        """Take one step; in the warm-up the backbones have no say."""
        raise NotImplementedError

    def to_layout(self, memory_format: torch.memory_format) -> None:
        """Lay out the weights of everything that is trained."""
        networks = (self.state.generator, self.state.average, *(m.network for m in self.members))
        for network in networks:
            network.to(memory_format=memory_format)

    def skip_to_regulariser(self) -> None:
        """Let the next step be one with R1."""
        cycle = self.setting.batch * self.config.r1_interval
        self.state.images = -(-self.state.images // cycle) * cycle


class Ours(Trainer):
    """The product's own step."""

    def __init__(self, setting: Setting) -> None:
        if setting.keep_memory:
            keep_freed_memory()  # as the command does
        super().__init__(setting)
        self.precision = choose_precision(setting.precision, self.device)
        if not setting.channels_last:
            self.to_layout(torch.contiguous_format)

    def backbone(self, spec: BackboneSpec) -> Backbone:
        """Return what `probe train` puts a head on."""
        found = load_backbone(spec, offline=True)
        return found.to(self.device, memory_format=torch.channels_last)

    def step(self, *, warmup: bool = False) -> Stats:
        """Take one step of `probe train`; in the warm-up there are no backbones."""
        self.state.members = self.members[:1] if warmup else self.members
        with self.clock.span("data"):
            reals, _ = self.stream.at(self.state.images)
            if not self.setting.channels_last:
                reals = reals.contiguous()
        found = train_step(
            self.state, reals, None, self.config,
            labels=None, world=self.world, precision=self.precision, clock=self.clock,
        )  # fmt: skip
        return {name: float(value) for name, value in found.items()}


class Reference(Trainer):
    """The same steps as the reference takes them.

    Float32 and the default layout throughout. The generator convolves every sample with a weight of
    its own, or (`FACTORED`) as ours does; its step is one graph through all discriminators. Theirs
    go through reals and fakes one after the other. Each backbone resizes and normalises for itself,
    with its BatchNorm as trained. In the warm-up the backbones run as ever and their losses are
    multiplied by 0. In steps with R1 they run on the reals once more, times 0, and the heads'
    optimizers step. Gradients that are not finite are replaced. Adam is PyTorch's as it comes. Freed
    memory goes back to the system.

    What is ours: the networks, the images, the augmentations, the random numbers (a generator of
    noise per sample), and R1 with respect to the augmented images.
    """

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        assert not self.config.pl_weight, "the reference has no path lengths here"
        self.to_layout(torch.contiguous_format)
        if setting.side == REFERENCE:  # in a process of its own: for good
            stylegan2.modulated_conv2d = grouped_modulated_conv2d
        for optimizer in (self.state.generator_optimizer, *(m.optimizer for m in self.members)):
            for group in optimizer.param_groups:
                group["fused"] = None  # PyTorch's own choice

    def backbone(self, spec: BackboneSpec) -> Backbone:
        """Return a network as its library builds it."""
        return wrap(spec, load_network(spec)).to(self.device)

    def step(self, *, warmup: bool = False) -> Stats:
        """Take one step."""
        with self.clock.span("data"):
            reals = self.stream.at(self.state.images)[0].contiguous()
        weight = 0.0 if warmup else 1.0
        number = self.state.images // self.setting.batch
        stats = self._generator_step(weight) | self._discriminator_step(reals, weight)
        if number % self.config.r1_interval == 0:
            self._r1_step(reals)
        self.state.images += self.setting.batch
        self._average()
        return {name: float(value.detach()) for name, value in stats.items()}

    def _samples(self, purpose: str) -> Samples:
        return Samples(
            self.config, purpose, self.state.images, self.setting.batch,
            world=self.world, device=self.device, labels=None, c_dim=0,
        )  # fmt: skip

    def _augment(self, member: Member, images: torch.Tensor, purpose: str) -> torch.Tensor:
        return member.augment(images, self.world, purpose, self.state.images)

    def _generator_step(self, weight: float) -> dict[str, torch.Tensor]:
        for member in self.members:
            member.network.requires_grad_(False)
        generator, drawn = self.state.generator.train(), self._samples("generator")
        fakes = generator.synthesis(drawn.styles(generator), noise_rng=drawn.noise)
        losses = {}
        for member in self.members:
            levels = logits(member, self._augment(member, fakes, "generator"))
            losses[f"Loss/G/{member.label}"] = member.loss.generator(
                levels, member.generator_target
            )
        own, *others = losses.values()
        self.state.generator_optimizer.zero_grad(set_to_none=True)
        (own + sum(weight * loss for loss in others)).backward()
        finite_step(self.state.generator_optimizer)
        for member in self.members:
            member.network.requires_grad_(True)
        return losses

    def _discriminator_step(self, reals: torch.Tensor, weight: float) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            generator, drawn = self.state.generator.eval(), self._samples("discriminator")
            fakes = generator.synthesis(drawn.styles(generator), noise_rng=drawn.noise)
        for member in self.members:
            member.optimizer.zero_grad(set_to_none=True)
        losses: dict[str, torch.Tensor] = {}
        for images, purpose in ((fakes, "fake"), (reals, "real")):
            parts = []
            for i, member in enumerate(self.members):
                levels = self._levels(member, images, purpose)
                terms = [
                    member.loss.fake(x) if purpose == "fake" else member.loss.real(x, member.target)
                    for x in levels
                ]
                loss = torch.stack([term.mean() for term in terms]).sum()
                parts.append(loss * (weight if i else 1.0))
                name = f"Loss/D/{member.label}"
                losses[name] = losses.get(name, torch.zeros([])) + loss.detach()
            torch.stack(parts).sum().backward()
        for member in self.members:
            finite_step(member.optimizer)
        return losses

    def _r1_step(self, reals: torch.Tensor) -> None:
        own, *others = self.members
        for member in self.members:
            member.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            images = self._augment(own, reals, "r1")
        images = images.detach().requires_grad_()
        penalty = r1_penalty(images, own.network(images, None)[-1])
        total = penalty * (self.config.gamma / 2 * self.config.r1_interval)
        for member in others:
            levels = self._levels(member, reals, "r1")
            total = total + 0 * torch.stack([x.mean() for x in levels]).sum()
        total.backward()
        for member in self.members:
            finite_step(member.optimizer)

    def _levels(self, member: Member, images: torch.Tensor, purpose: str) -> list[torch.Tensor]:
        """Return a discriminator's logits in its own step; backbones need no gradient there."""
        with torch.no_grad():
            images = self._augment(member, images, purpose)
        return logits(member, images, frozen=True)

    @torch.no_grad()
    def _average(self) -> None:
        half_life = self.config.ema_kimg * 1000
        if self.config.ema_rampup:
            half_life = min(half_life, self.state.images * self.config.ema_rampup)
        beta = 0.5 ** (self.setting.batch / max(half_life, 1e-8))
        average, generator = self.state.average, self.state.generator
        for mine, other in zip(average.parameters(), generator.parameters(), strict=True):
            mine.copy_(other.lerp(mine, beta))
        for mine, other in zip(average.buffers(), generator.buffers(), strict=True):
            mine.copy_(other)


def logits(member: Member, images: torch.Tensor, *, frozen: bool = False) -> list[torch.Tensor]:
    """Return the logits of one discriminator; `frozen` keeps the backbone out of the graph."""
    if not isinstance(member.network, VisionNetwork):
        return member.network(images, None)
    backbone = member.network.backbone
    fed = backbone.input
    with torch.set_grad_enabled(not frozen):
        x = resize(images / 2 + 0.5, fed.size, fed.resize, clamp=False)
        maps, pooled = backbone.levels(normalise(x, fed))
    return member.network.head(maps, pooled)


def finite_step(optimizer: torch.optim.Optimizer) -> None:
    """Replace gradients that are not finite and let the optimizer step."""
    for group in optimizer.param_groups:
        for p in group["params"]:
            if p.grad is not None:
                torch.nan_to_num(p.grad, nan=0, posinf=FINITE, neginf=-FINITE, out=p.grad)
    optimizer.step()


# ---------------------------------------------------------------------------------------------
# Processes that take turns
# ---------------------------------------------------------------------------------------------

CURRENT: list[Trainer] = []  # of this process


def begin(setting: Setting) -> None:
    """Build the trainer of this process."""
    if setting.threads:
        torch.set_num_threads(setting.threads)
    CURRENT[:] = [Ours(setting) if setting.side == "ours" else Reference(setting)]


def time_steps(plain: int, warmup: bool) -> tuple[float, list[float]]:
    """Return the seconds of one step with R1, and of each of the steps that follow."""
    (trainer,) = CURRENT
    trainer.skip_to_regulariser()
    with_r1, *others = [stopwatch(lambda: trainer.step(warmup=warmup)) for _ in range(1 + plain)]
    return with_r1, others


def span_times(cycles: int) -> tuple[dict[str, float], float]:
    """Return the seconds per thousand images of each part of the step, and of the whole."""
    (trainer,) = CURRENT
    trainer.skip_to_regulariser()
    trainer.clock.take()
    first = trainer.state.images

    def run() -> None:
        for _ in range(cycles * trainer.config.r1_interval):
            trainer.step()

    seconds = stopwatch(run)
    kimg = (trainer.state.images - first) / 1000
    return {name: s / kimg for name, s in trainer.clock.take().items()}, seconds / kimg


def operators(plain: int) -> list[tuple[str, float, int]]:
    """Return the operators that took longest in steps: name, milliseconds and calls per step."""
    (trainer,) = CURRENT
    trainer.skip_to_regulariser()
    trainer.step()
    with profile(activities=[ProfilerActivity.CPU]) as found:
        for _ in range(plain):
            trainer.step()
    rows = sorted(found.key_averages(), key=lambda row: -row.self_cpu_time_total)
    return [
        (row.key, row.self_cpu_time_total / 1000 / plain, round(row.count / plain)) for row in rows
    ]


def curve(setting: Setting, steps: int) -> list[Stats]:
    """Train from the beginning and return what every step lost."""
    begin(setting)
    (trainer,) = CURRENT
    return [trainer.step() for _ in range(steps)]


def process(setting: Setting) -> ProcessPoolExecutor:
    """Return a process in which a trainer stands ready."""
    return ProcessPoolExecutor(
        1, mp_context=get_context("spawn"), initializer=begin, initargs=(setting,)
    )


def measure(
    settings: Mapping[str, Setting], *, rounds: int, plain: int, warmup: bool = False
) -> dict[str, list[float]]:
    """Return name → seconds per thousand images in every round, the processes taking turns.

    A round is one step with R1 and a few without; each counts as often as in training.
    """
    found: dict[str, list[float]] = {name: [] for name in settings}
    with ExitStack() as stack:
        pools = {name: stack.enter_context(process(s)) for name, s in settings.items()}
        for i in range(rounds + 1):
            for name, pool in pools.items():
                with_r1, others = pool.submit(time_steps, plain, warmup).result()
                interval = TrainConfig().r1_interval
                step = (with_r1 + (interval - 1) * median(others)) / interval
                if i:  # the first round compiles kernels and fills caches
                    found[name].append(step / settings[name].batch * 1000)
    return found


# ---------------------------------------------------------------------------------------------
# What is reported
# ---------------------------------------------------------------------------------------------


def compare_speed(record: Record, args: argparse.Namespace) -> None:
    """Time both sides after the warm-up and in it."""
    ours = Setting("ours", args.resolution, args.batch, tuple(args.backbones.split(",")))
    plain = replace(ours, side=REFERENCE, resize="area")
    sides = {"ours": ours, REFERENCE: plain, FACTORED: replace(plain, side=FACTORED)}
    after = measure(sides, rounds=args.rounds, plain=args.steps)
    before = measure(
        {"ours": ours, REFERENCE: plain}, rounds=args.rounds, plain=args.steps, warmup=True
    )
    rows: list[list[Any]] = []
    for when, times in (("after warm-up", after), ("in warm-up", before)):
        rows += [
            [f"{when}: {name}", median(s), str(speedup(s, times["ours"]))]
            for name, s in times.items()
        ]
    title = f"{args.resolution} px, batch {args.batch}, {args.backbones}"
    record.table(title, ["", "s/kimg", "times slower than ours"], rows)
    ratio = speedup(after[REFERENCE], after["ours"]).value
    record.check("After warm-up, against the reference", ratio, at_least=TARGET, unit="x")
    record.values["s/kimg"] = {"after warm-up": after, "in warm-up": before}


Curves = dict[tuple[str, int], list[Stats]]


def train_curves(args: argparse.Namespace) -> Curves:
    """Train both sides from the same seeds, in processes side by side: nothing is timed."""
    names = tuple(args.backbones.split(","))
    shape = (args.curve_resolution, args.curve_batch, names, args.curve_input)
    base = Setting("ours", *shape, threads=1)
    keys = [(side, seed) for seed in range(args.seeds) for side in ("ours", REFERENCE)]
    cores = torch.get_num_threads()
    # max_tasks_per_child: a fresh process for each run, since only ours keeps freed memory.
    with ProcessPoolExecutor(cores, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        futures = {
            (side, seed): pool.submit(
                curve,
                replace(base, side=side, options=(("seed", seed),)),
                args.curve_steps,
            )
            for side, seed in keys
        }
        return {key: future.result() for key, future in futures.items()}


def window_means(curves: Curves, name: str, windows: int) -> dict[tuple[str, int], np.ndarray]:
    """Return the mean of one loss in each of equal windows, for every run."""
    return {
        key: np.array([part.mean() for part in np.array_split([s[name] for s in run], windows)])
        for key, run in curves.items()
    }


def relative(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return |a - b| over the mean of their sizes."""
    return np.abs(a - b) / ((np.abs(a) + np.abs(b)) / 2)


def compare_curves(record: Record, args: argparse.Namespace) -> None:
    """Say how far the losses of the sides are apart, and how far those of two seeds are."""
    curves = train_curves(args)
    names = [name for name in curves[REFERENCE, 0][0] if name.startswith("Loss/")]
    seeds = range(args.seeds)
    rows, between_sides, between_seeds = [], [], []
    for name in names:
        means = window_means(curves, name, args.windows)
        sides = [relative(means["ours", s], means[REFERENCE, s]) for s in seeds]
        others = [
            relative(means[side, a], means[side, b])
            for side in ("ours", REFERENCE)
            for a, b in combinations(seeds, 2)
        ]
        between_sides += sides
        between_seeds += others
        last = [float(np.mean([means[side, s][-1] for s in seeds])) for side in ("ours", REFERENCE)]
        found = [100 * f(np.concatenate(x)) for x in (sides, others) for f in (np.mean, np.max)]
        rows.append([name, *last, *map(float, found)])
    record.table(
        f"Losses at {args.curve_resolution} px, batch {args.curve_batch}, backbones fed "
        f"{args.curve_input} px: {args.seeds} seeds, {args.curve_steps} steps, means of "
        f"{args.windows} windows; relative differences in %",
        ["loss", "ours, last window", "reference", "between sides: mean", "largest",
         "between seeds: mean", "largest"],
        rows,
    )  # fmt: skip
    share = float(np.mean(np.concatenate(between_sides)) / np.mean(np.concatenate(between_seeds)))
    record.check("Difference of sides over difference of seeds, losses", share, at_most=1.0)
    record.values["curves"] = {
        f"{side}, seed {seed}": {
            name: means[side, seed].tolist()
            for name in names
            for means in [window_means(curves, name, args.windows)]
        }
        for side, seed in curves
    }


def show_spans(record: Record, title: str, setting: Setting, args: argparse.Namespace) -> None:
    """Add tables of where the time of a step goes."""
    with process(setting) as pool:
        pool.submit(time_steps, 1, False).result()
        spans, whole = pool.submit(span_times, args.cycles).result()
        found = pool.submit(operators, args.steps).result()
    parts = sorted(spans.items(), key=lambda item: -item[1])
    parts += [("the rest", whole - sum(spans.values())), ("whole", whole)]
    record.table(
        f"{title}: parts of a step",
        ["part", "s/kimg", "share, %"],
        [[name, s, 100 * s / whole] for name, s in parts],
    )
    total = sum(ms for _, ms, _ in found)
    record.table(
        f"{title}: operators, profiled, steps without R1",
        ["operator", "ms per step", "share, %", "calls"],
        [[name, ms, 100 * ms / total, calls] for name, ms, calls in found[:OPERATORS]],
    )


def variants(base: Setting) -> dict[str, Setting]:
    """Return the plain trainer as it is and with one choice made otherwise."""
    precision = choose_precision("auto", choose_device())
    other = "fp32" if precision == "bf16" else "bf16"
    return {
        "as it is": base,
        "default layout": replace(base, channels_last=False),
        f"in {other}": replace(base, precision=other),
        "freed memory given back": replace(base, keep_memory=False),
        "no R1": replace(base, options=(("gamma", 0.0),)),
        "no augmentation": replace(base, options=(("aug", "none"), ("aug_p", None))),
    }


def compare_variants(record: Record, args: argparse.Namespace) -> None:
    """Profile the plain trainer and time it against itself with other choices."""
    for side in args.plain_resolutions:
        base = Setting("ours", side, args.plain_batch)
        show_spans(record, f"Plain trainer, {side} px, batch {base.batch}", base, args)
        times = measure(variants(base), rounds=args.rounds, plain=args.steps)
        ours = times["as it is"]
        record.table(
            f"Plain trainer, {side} px, batch {base.batch}: other choices",
            ["", "s/kimg", "times slower"],
            [[name, median(s), str(speedup(s, ours))] for name, s in times.items()],
        )
        record.values[f"plain {side} px"] = times


def parse() -> argparse.Namespace:
    parser = arguments(__doc__, "training")
    parser.add_argument("--rounds", type=int, help="timed rounds of each side (3; quick 1)")
    parser.add_argument("--steps", type=int, help="per round, beside one with R1 (3; quick 1)")
    parser.add_argument("--resolution", type=int, help="of the images (64; quick 16)")
    parser.add_argument("--batch", type=int, help="images per step (16; quick 4)")
    parser.add_argument("--backbones", default=",".join(BACKBONES), help="names, comma-separated")
    parser.add_argument("--curve-steps", type=int, help="of each loss curve (128; quick 8)")
    parser.add_argument("--curve-resolution", type=int, help="of its images (32; quick 16)")
    parser.add_argument("--curve-batch", type=int, help="images per step (16; quick 4)")
    parser.add_argument("--curve-input", type=int, help="fed to its backbones (64; quick 32)")
    parser.add_argument("--windows", type=int, default=4, help="in which its means are taken")
    parser.add_argument("--seeds", type=int, default=2, help="of loss curves, at least 2")
    parser.add_argument("--plain-batch", type=int, help="of the plain trainer (16; quick 4)")
    parser.add_argument("--cycles", type=int, default=1, help="of 16 steps, for the parts")
    parser.add_argument(
        "--only",
        default="speed,curves,parts,plain",
        help="what to measure, comma-separated (speed, curves, parts, plain)",
    )
    args = parser.parse_args()
    usual = {
        "rounds": 3,
        "steps": 3,
        "resolution": 64,
        "batch": 16,
        "curve_steps": 128,
        "curve_resolution": 32,
        "curve_batch": 16,
        "curve_input": 64,
        "plain_batch": 16,
    }
    tiny = {
        "rounds": 1,
        "steps": 1,
        "resolution": 16,
        "batch": 4,
        "curve_steps": 8,
        "curve_resolution": 16,
        "curve_batch": 4,
        "curve_input": 32,
        "plain_batch": 4,
    }
    for name, value in (tiny if args.quick else usual).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    args.plain_resolutions = [16] if args.quick else [32, 64]
    return args


def main() -> None:
    args = parse()
    record = Record("training", "Training with two backbones")
    record.settings = {
        name: value for name, value in vars(args).items() if name not in ("out", "quick", "only")
    }
    wanted: Sequence[str] = args.only.split(",")
    if "speed" in wanted:
        compare_speed(record, args)
    if "curves" in wanted:
        compare_curves(record, args)
    if "parts" in wanted:
        names = tuple(args.backbones.split(","))
        setting = Setting("ours", args.resolution, args.batch, names)
        title = f"Ours with backbones, {args.resolution} px, batch {args.batch}"
        show_spans(record, title, setting, args)
    if "plain" in wanted:
        compare_variants(record, args)
    record.finish(args.out, quick=args.quick)


if __name__ == "__main__":
    main()
