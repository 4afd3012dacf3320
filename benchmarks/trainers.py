"""The two ways to train that `training.py` compares: the product's step, and the reference's."""

import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
from reference import grouped_modulated_conv2d, load_network
from torch.nn import functional as F

from probe.accel.memory import keep_freed_memory
from probe.api.context import open_context
from probe.bank.base import Backbone, normalise, resize_unclamped
from probe.bank.file import load_bank
from probe.bank.load import load_backbone, wrap
from probe.bank.spec import BackboneSpec
from probe.bundled import DEMO_REALS
from probe.devices import choose_device, choose_precision
from probe.discriminators import AUGMENTATIONS
from probe.discriminators.losses import r1_penalty
from probe.discriminators.member import Member, vision_member
from probe.discriminators.step import Minibatch, Step
from probe.discriminators.vision import VisionNetwork
from probe.generators.networks import stylegan2
from probe.images.open import open_images
from probe.processes import Processes
from probe.training.clock import Clock
from probe.training.config import TrainConfig
from probe.training.own import head_options
from probe.training.presets import make_plan
from probe.training.reals import open_reals
from probe.training.state import TrainState, make_networks
from probe.training.step import Samples, Session, r1_step, train_step
from probe.training.stream import RealStream

REFERENCE, FACTORED = "reference", "reference, our convolutions"
P = 0.3  # fixed, so that every step augments alike
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
        self.config = plan.config
        networks = make_networks(self.config, setting.resolution)
        self.state = TrainState(self.config, networks, self.device, digest="")
        precision = choose_precision(setting.precision, self.device)
        with open_context(precision=precision, offline=True) as ctx:
            self.session = Session(config=self.config, ctx=ctx, clock=self.clock)
        specs = load_bank(None).select(setting.backbones) if setting.backbones else []
        for spec in specs:
            chosen = {"input": setting.input, "resize": setting.resize}
            given = {key: value for key, value in chosen.items() if value is not None}
            backbone = self.backbone(replace(spec, **given))
            self.state.members.append(
                vision_member(head_options(self.config), backbone, device=self.device)
            )
        self.members = self.state.members
        self.stream = RealStream(
            reals, batch=setting.batch, mirror=True, seed=self.config.seed, processes=Processes(),
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
        if not setting.channels_last:
            self.to_layout(torch.contiguous_format)

    def backbone(self, spec: BackboneSpec) -> Backbone:
        """Return what `probe train` puts a head on."""
        found = load_backbone(spec, offline=True)
        return found.to(self.device, memory_format=torch.channels_last)

    def r1(self, reals: torch.Tensor, *, augmented: bool) -> None:
        """Take one step of R1, at the images or, as it is not done, at the augmented ones."""
        member, step = self.members[0], self.session.step(self.state.images)
        if augmented:
            with torch.no_grad():
                reals = member.augment(reals, "r1", step)
            member = copy.copy(member)
            member.augmentation = AUGMENTATIONS["none"]
        r1_step(member, Minibatch(reals), self.config.gamma * self.config.r1_interval, step)

    def step(self, *, warmup: bool = False) -> Stats:
        """Take one step of `probe train`; in the warm-up there are no backbones."""
        self.state.members = self.members[:1] if warmup else self.members
        with self.clock.span("data"):
            reals = self.stream.at(self.state.images)
            if not self.setting.channels_last:
                reals = Minibatch(reals.images.contiguous())
        found = train_step(self.state, reals, self.session)
        return {name: float(value) for name, value in found.items()}


class Reference(Trainer):
    """The same steps as the reference takes them.

    Float32 and the default layout throughout. The generator convolves every sample with a weight of
    its own, or (`FACTORED`) as ours does; its step is one graph through all discriminators. Theirs
    go through reals and fakes one after the other. Each backbone resizes and normalises for itself,
    with its BatchNorm as trained. In the warm-up the backbones run as ever and their losses are
    multiplied by 0. In steps with R1 they run on the reals once more, times 0, and the heads'
    optimizers step. Gradients that are not finite are replaced. Adam is PyTorch's as it comes.
    Freed memory goes back to the system.

    What is ours: the networks, the images, the augmentations and the random numbers (a generator of
    noise per sample).
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
        return Samples(self.session, purpose, self.state.images, self.setting.batch)

    def _augment(self, member: Member, images: torch.Tensor, purpose: str) -> torch.Tensor:
        return member.augment(images, purpose, Step(seen=self.state.images))

    def _generator_step(self, weight: float) -> dict[str, torch.Tensor]:
        for member in self.members:
            member.network.requires_grad_(False)
        generator, drawn = self.state.generator.train(), self._samples("generator")
        fakes = generator.synthesis(drawn.styles(generator), noise_keys=drawn.noise)
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
            generator, drawn = self.state.generator, self._samples("discriminator")
            fakes = generator.synthesis(drawn.styles(generator), noise_keys=drawn.noise)
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
        images = reals.detach().requires_grad_()
        penalty = r1_penalty([images], own.network(self._augment(own, images, "r1"), None))
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
        x = resize_plainly(images / 2 + 0.5, fed.size, fed.resize)
        maps, pooled = backbone.levels(normalise(x, fed))
    return member.network.head(maps, pooled)


def resize_plainly(images: torch.Tensor, size: int, mode: str) -> torch.Tensor:
    """Return images (N, 3, R, R) at the backbone's side: by area as the reference, or our way."""
    if mode == "area":
        return F.interpolate(images, size=(size, size), mode="area")
    return resize_unclamped(images, size, mode)


def finite_step(optimizer: torch.optim.Optimizer) -> None:
    """Replace gradients that are not finite and let the optimizer step."""
    for group in optimizer.param_groups:
        for p in group["params"]:
            if p.grad is not None:
                torch.nan_to_num(p.grad, nan=0, posinf=FINITE, neginf=-FINITE, out=p.grad)
    optimizer.step()
