"""One training step: the generator, every discriminator, and any regularisers that are due.

Every random number in a step is a function of (seed, purpose, sample index or images seen), so a
run resumes exactly and does not depend on how many processes share a batch.
"""

from dataclasses import dataclass, field

import torch
from torch import nn

from probe.accel.replay import Replays
from probe.context import Context
from probe.devices import autocast, send
from probe.discriminators.critic import P_INTERVAL
from probe.discriminators.gradient import generator_gradient
from probe.discriminators.losses import path_length_penalty, path_lengths, r1_penalty
from probe.discriminators.member import Member, discriminator_step, take_step
from probe.discriminators.step import Minibatch, Step
from probe.generators.networks.stylegan2 import Generator
from probe.generators.noise import normal_noise
from probe.streams import torch_stream
from probe.training.clock import Clock
from probe.training.config import ResolvedConfig
from probe.training.state import TrainState

PL_DECAY = 0.01
PL_BATCH_SHRINK = 2
PATH_NOISE = 0  # no layer of a generator has this number


@dataclass(frozen=True, kw_only=True)
class Session:
    """Everything constant across the steps of a run.

    Attributes:
        config: the resolved options.
        ctx: its precision is "fp32" or "bf16".
        clock: times the parts of a step.
        labels: classes of all training images, int64, or None.
        replays: runs passes of networks.
    """

    config: ResolvedConfig
    ctx: Context
    clock: Clock
    labels: torch.Tensor | None = None
    replays: Replays = field(default_factory=Replays)

    def step(self, seen: int) -> Step:
        """Return the settings that all parts of one step share."""
        return Step(seen, self.ctx.precision, self.ctx.processes, self.clock.span, self.replays)


class Samples:
    """The random inputs for the fakes of one step.

    Args:
        session: see `Session`; this process generates its share.
        purpose: part of the random stream's name; keeps the batches of one step different.
        seen: images seen so far.
        count: number of fakes across all processes.
        c_dim: number of classes.
    """

    def __init__(
        self, session: Session, purpose: str, seen: int, count: int, c_dim: int = 0
    ) -> None:
        config, labels = session.config, session.labels
        self.processes, self.device = session.ctx.processes, session.ctx.device
        rng = torch_stream(config.seed, "latents", purpose, seen)

        def mine(drawn: torch.Tensor) -> torch.Tensor:
            return send(drawn[self.processes.rank :: self.processes.size], self.device)

        self.z = mine(torch.randn(count, config.z_dim, generator=rng))
        self.other_z = mine(torch.randn(count, config.z_dim, generator=rng))
        mixes = torch.rand(count, generator=rng) < config.style_mixing
        self.mixes, self.mixes_any = mine(mixes), bool(mixes.any())
        self.cuts = mine(torch.rand(count, generator=rng))
        self.c = None
        if labels is not None:
            drawn = labels[torch.randint(len(labels), (count,), generator=rng)]
            self.c = torch.nn.functional.one_hot(mine(drawn), c_dim).float()
        # One key of noise per sample, so the result does not depend on the split.
        self.noise = mine(torch.randint(2**63 - 1, (count,), generator=rng))

    def __len__(self) -> int:
        """Return how many fakes this process generates."""
        return len(self.z)

    def styles(self, generator: Generator) -> torch.Tensor:
        """Return the latents of every layer (n, L, w_dim), some mixed from two z (style mixing).

        From a random layer on, the second latent takes over (Karras et al. 2019, section 3.1).
        Only the first one updates the running mean of w in training mode, using the samples of all
        processes.
        """
        ws = generator.mapping(self.z, self.c)
        if generator.mapping.training:
            self.processes.average_([generator.mapping.w_avg])
        ws = ws.unsqueeze(1).expand(-1, generator.num_ws, -1)
        if not self.mixes_any:
            return ws
        tracking = generator.mapping.training
        generator.mapping.eval()
        other = generator.mapping(self.other_z, self.c).unsqueeze(1)
        generator.mapping.train(tracking)
        layers = torch.arange(generator.num_ws, device=self.device)
        first = 1 + (self.cuts * (generator.num_ws - 1)).floor()  # from 1 to num_ws - 1
        takes_over = self.mixes[:, None] & (layers[None] >= first[:, None])
        return torch.where(takes_over[:, :, None], other, ws)


def train_step(state: TrainState, reals: Minibatch, session: Session) -> dict[str, torch.Tensor]:
    """Run one step and advance `state.images` by the batch size.

    Args:
        state: the networks and optimizers; changed in place.
        reals: this process's share of the batch.
        session: see `Session`.

    Returns:
        The statistics of this step, scalars still on the device.
    """
    config, ctx, clock = session.config, session.ctx, session.clock
    state.generator.train()  # every pass updates the running mean of w, as in the original
    seen, number = state.images, state.images // config.batch
    step = session.step(seen)
    stats: dict[str, torch.Tensor] = {}

    def samples(purpose: str, count: int) -> Samples:
        return Samples(session, purpose, seen, count, state.c_dim)

    stats |= _generator_step(state, samples("generator", config.batch), step)
    if config.pl_weight and number % config.pl_interval == 0:
        size = ctx.processes.size
        shrunk = max(size, config.batch // PL_BATCH_SHRINK // size * size)
        stats |= _path_length_step(state, samples("path", shrunk), config, step)

    with clock.span("G"), torch.no_grad(), autocast(ctx.device, ctx.precision):
        drawn = samples("discriminator", config.batch)
        images = _fakes(state.generator, drawn, step)
    for member in state.members:
        stats |= discriminator_step(member, reals, Minibatch(images, drawn.c), step)
    if number % config.r1_interval == 0:
        if config.gamma:
            stats |= r1_step(state.members[0], reals, config.gamma * config.r1_interval, step)
        if config.gamma_heads:
            for member in state.members[1:]:
                stats |= head_r1_step(member, reals, config.gamma_heads * config.r1_interval, step)

    state.images += config.batch
    with clock.span("average"):
        half_life = config.ema_kimg * 1000
        if config.ema_rampup:
            half_life = min(half_life, state.images * config.ema_rampup)
        state.update_average(config.batch, half_life)
    if (number + 1) % P_INTERVAL == 0:
        for member in state.members:
            if member.is_adaptive:
                member.adaptive.update(P_INTERVAL * config.batch, ctx.processes.sum)
    return stats


def _fakes(generator: Generator, drawn: Samples, step: Step) -> torch.Tensor:
    """Return the generator's images; the next call may overwrite them."""
    return step.run(_synthesise, generator.synthesis, drawn.styles(generator), drawn.noise)


def _synthesise(synthesis: nn.Module, ws: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    return synthesis(ws, noise_keys=keys)


def _generator_step(state: TrainState, drawn: Samples, step: Step) -> dict[str, torch.Tensor]:
    """Update the generator so that every discriminator calls its images real."""
    generator = state.generator
    with step.span("G"), step.autocast(drawn.device):
        fakes = _fakes(generator, drawn, step)
    gradient, losses = generator_gradient(state.members, Minibatch(fakes, drawn.c), step)
    with step.span("G"):
        state.generator_optimizer.zero_grad(set_to_none=True)
        fakes.backward(gradient)
        take_step(state.generator_optimizer, step.processes)
    return losses


def _path_length_step(
    state: TrainState, drawn: Samples, config: ResolvedConfig, step: Step
) -> dict[str, torch.Tensor]:
    """Pull path lengths towards their running mean (Karras et al. 2020a, section 3.2)."""
    generator = state.generator
    with step.span("path_length"):
        with step.autocast(drawn.device):
            ws = drawn.styles(generator)
            images = generator.synthesis(ws, noise_keys=drawn.noise)
        noise = normal_noise(drawn.noise, PATH_NOISE, images.shape[1:])
        lengths = path_lengths(images, ws, noise)
        mean = step.processes.sum(lengths.detach().mean().double()) / step.processes.size
        state.path_mean = send(state.path_mean, mean.device).lerp(mean, PL_DECAY)
        penalty = path_length_penalty(lengths, state.path_mean, mean, PL_DECAY)
        state.generator_optimizer.zero_grad(set_to_none=True)
        (penalty * (config.pl_weight * config.pl_interval)).backward()
        take_step(state.generator_optimizer, step.processes)
    return {"Loss/pl_penalty": penalty.detach(), "Loss/path_length": lengths.detach().mean()}


def r1_step(member: Member, reals: Minibatch, weight: float, step: Step) -> dict[str, torch.Tensor]:
    """Apply the R1 penalty to the GAN's own discriminator; no backbone is involved.

    The gradient is taken with respect to the images before augmentation, as in the original code.
    Published values of `gamma` assume that norm; at a high p it is several times the norm at the
    augmented images.

    Args:
        member: the GAN's own discriminator.
        reals: the batch.
        weight: gamma times the number of steps between two R1 steps.
        step: see `Step`.
    """
    with step.span("r1"):
        images = reals.images.detach().requires_grad_()
        with step.autocast(images.device):
            levels = member.network(member.augment(images, "r1", step), reals.c)
        penalty = r1_penalty([images], levels)
        member.optimizer.zero_grad(set_to_none=True)
        (penalty * (weight / 2)).backward()
        take_step(member.optimizer, step.processes)
    return {"Loss/r1_penalty": penalty.detach()}


def head_r1_step(
    member: Member, reals: Minibatch, weight: float, step: Step
) -> dict[str, torch.Tensor]:
    """Apply the R1 penalty to a backbone's head, at the features of the reals; see `r1_step`."""
    with step.span("r1"):
        penalty = member.feature_penalty(reals, step)
        member.optimizer.zero_grad(set_to_none=True)
        (penalty * (weight / 2)).backward()
        take_step(member.optimizer, step.processes)
    return {f"Loss/r1_penalty/{member.label}": penalty.detach()}
