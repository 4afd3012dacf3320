"""The discriminators of an ensemble, each with its own network, augmentation and loss.

A `Critic` has no optimizer: it returns losses, for any training loop. A `Member` is a critic that
the bundled trainer steps by itself. Adding one does not change the others.

The ensemble's loss is the sum of their losses, each with weight 1 (Kumari et al. 2022, section 3)
unless `Discriminators` is told otherwise. The gradient of a sum is the sum of the gradients, so
`generator_gradient` runs each one forward and backward by itself and only one graph is in memory.
The bundled trainer and `Discriminators` both use it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from probe import accel
from probe.accel.replay import Pass, Replays
from probe.bank.base import Backbone, normalise, resize_unclamped
from probe.devices import autocast
from probe.discriminators import AUGMENTATIONS, LOSSES
from probe.discriminators.adaptive import AdaptiveAugment
from probe.discriminators.draws import Draw
from probe.discriminators.heads import Head
from probe.discriminators.losses import Levels, r1_penalty
from probe.discriminators.options import DiscriminatorOptions
from probe.processes import Processes
from probe.registry import load
from probe.streams import stream_seed, torch_stream

SMOOTHED = 0.8  # target of reals if smoothed
P_INTERVAL = 4  # steps between updates of an augmentation's p


class Batch(NamedTuple):
    """Images with their classes.

    Attributes:
        images: (n, 3, R, R) float32 in [-1, 1], this process's share.
        c: (n, c_dim) one-hot, or None.
    """

    images: torch.Tensor
    c: torch.Tensor | None = None


@dataclass(frozen=True)
class Step:
    """Settings that all parts of one training step share.

    Attributes:
        seen: images seen so far; part of the name of every random stream.
        precision: of the networks, "fp32" or "bf16"; None keeps the caller's autocast.
        processes: the processes that split each batch.
        span: context manager that times a named part of the step.
        replays: runs passes of networks, from recordings if it has them.
    """

    seen: int = 0
    precision: str | None = "fp32"
    processes: Processes = field(default_factory=Processes)
    span: Callable[[str], AbstractContextManager[None]] = lambda name: nullcontext()
    replays: Replays | None = None

    def run(self, work: Pass, network: nn.Module, *given: torch.Tensor | None) -> Any:
        """Return `work(network, *given)`; see `Replays`."""
        return (
            work(network, *given) if self.replays is None else self.replays(work, network, *given)
        )

    def autocast(self, device: torch.device) -> AbstractContextManager[object]:
        """Return the context in which networks run."""
        return nullcontext() if self.precision is None else autocast(device, self.precision)


class VisionNetwork(nn.Module):
    """A head on a frozen backbone; the backbone is in neither its parameters nor its state.

    Attributes:
        checkpoint: whether the backward pass recomputes the backbone, which saves memory.
    """

    def __init__(self, backbone: Backbone, head: Head) -> None:
        super().__init__()
        self.head = head
        self._frozen = (backbone,)  # a tuple hides it from torch's module registration
        self.checkpoint = False

    @property
    def backbone(self) -> Backbone:
        """The frozen network."""
        return self._frozen[0]

    def follow(self, device: torch.device) -> None:
        """Move the backbone to a device, since `.to` does not reach it."""
        weight = next(self.backbone.parameters(), None)
        if weight is None or weight.device != device:
            self.backbone.to(device)

    def forward(self, images: torch.Tensor, c: torch.Tensor | None) -> list[torch.Tensor]:
        """Map images (N, 3, R, R) in [-1, 1] to levels of logits."""
        return self.head(*self.features(images), c)

    def features(self, images: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Return the maps and the pooled vector; gradients flow to the images.

        Pixels are not clamped, because a clamp blocks gradients.
        """
        expected = self.backbone.input
        x = resize_unclamped(images.float() / 2 + 0.5, expected.size, expected.resize)
        x = normalise(x, expected).contiguous(memory_format=torch.channels_last)
        if self.checkpoint and x.requires_grad:
            return checkpoint(self._levels, x, use_reentrant=False)
        return self._levels(x)

    def _levels(self, x: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        with accel.quick_gradients(x.device):
            return self.backbone.levels(x)


class Judgement(NamedTuple):
    """A discriminator's loss on a batch of reals and a batch of fakes, and its logits.

    Attributes:
        loss: a scalar.
        reals, fakes: levels of logits, the final one (n,) last.
    """

    loss: torch.Tensor
    reals: Levels
    fakes: Levels


class Critic:
    """One discriminator of the ensemble, without an optimizer.

    Args:
        name: "D" for the GAN's own discriminator, else the backbone's name.
        network: its trainable part; maps images (N, 3, R, R) in [-1, 1] and classes to levels of
            logits, the final one (N,) last. Unless it is a `VisionNetwork`, it also takes
            `batches`: how many batches of equal size the images are.
        options: loss, augmentation, seed.
        target: target probability of "real" for reals: 1, or 0.8 if smoothed.

    Attributes:
        adaptive: controls the p of its augmentation.
        is_adaptive: whether that p moves.
        generator_target: target probability of "real" for fakes in the generator's loss.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        options: DiscriminatorOptions,
        *,
        target: float = 1.0,
    ) -> None:
        self.name, self.network = name, network
        self.augmentation = AUGMENTATIONS[options.augmentation]
        self.loss = load(LOSSES[options.loss])
        self.adaptive = AdaptiveAugment(options.target, interval=P_INTERVAL)
        self.is_adaptive = self.augmentation.adaptive and options.p is None
        if options.p is not None and self.augmentation.adaptive:
            self.adaptive.p = options.p
        self.target = target
        self.generator_target = target if options.smooth_generator else 1.0
        self.seed = options.seed

    @property
    def label(self) -> str:
        """Key of its losses in the statistics; D's is "loss", which existing tools parse."""
        return "loss" if self.name == "D" else self.name

    def augment(self, images: torch.Tensor, purpose: str, step: Step) -> torch.Tensor:
        """Augment images with this member's own random stream.

        Args:
            images: (n, 3, R, R), this process's share.
            purpose: part of the stream's name; keeps the draws of one step different.
            step: numbers are drawn for the global batch, and each process takes its share.
        """
        rng = torch_stream(self.seed, "augment", self.name, purpose, step.seen)
        rank, size = step.processes.rank, step.processes.size
        draw = Draw(rng, len(images) * size, rank, size)
        augmented = self.augmentation(images, self.adaptive.p, draw)
        more = self.augmentation.before_backbones
        if more is not None and isinstance(self.network, VisionNetwork):
            augmented = load(more)(augmented, draw)
        return augmented

    def generator_loss(self, fakes: Batch, step: Step) -> torch.Tensor:
        """Return the generator's loss, a scalar; gradients flow to the images."""
        with step.span("augment"):
            images = self.augment(fakes.images, "generator", step)
        with step.span(self.name), step.autocast(images.device):
            levels = step.run(_logits, self.network, images, fakes.c)
            return self.loss.generator(levels, self.generator_target)

    def discriminator_loss(self, reals: Batch, fakes: Batch, step: Step) -> Judgement:
        """Return the discriminator's loss; gradients flow to the network alone."""
        with step.span("augment"), torch.no_grad():
            reals = reals._replace(images=self.augment(reals.images, "real", step))
            fakes = fakes._replace(images=self.augment(fakes.images, "fake", step))
        with step.span(self.name), step.autocast(reals.images.device):
            both = step.run(_logits_of_both, self.network, *_joined(reals, fakes))
            n = len(reals.images)
            on_reals, on_fakes = [x[:n] for x in both], [x[n:] for x in both]
            loss = self.loss.discriminator(on_reals, on_fakes, self.target)
        return Judgement(loss, on_reals, on_fakes)

    def feature_penalty(self, reals: Batch, step: Step) -> torch.Tensor:
        """Return R1 of a backbone's head at the features of the reals, a scalar; see `r1_penalty`.

        The backbone is fixed, so the penalty leaves out its derivative, which costs nothing then.
        """
        assert isinstance(self.network, VisionNetwork)
        device = reals.images.device
        with torch.no_grad(), step.autocast(device):
            maps, pooled = self.network.features(self.augment(reals.images, "r1", step))
        features = [x.float().requires_grad_() for x in (*maps, pooled)]
        with torch.autocast(device.type, enabled=False):  # half precision rounds double gradients
            levels = self.network.head(features[:-1], features[-1], reals.c)
        return r1_penalty(features, levels)

    def observe(self, judged: Judgement) -> dict[str, torch.Tensor]:
        """Tell ADA how the reals were judged.

        Returns:
            Loss and mean final logits, by their names in the statistics; scalars on the device.
        """
        final = judged.reals[-1].detach()
        self.adaptive.observe(final.sign().sum(), len(final))
        prefix = "Loss/scores" if self.name == "D" else f"Loss/scores/{self.name}"
        return {
            f"Loss/D/{self.label}": judged.loss.detach(),
            f"{prefix}/real": final.mean(),
            f"{prefix}/fake": judged.fakes[-1].detach().mean(),
        }


class Member(Critic):
    """A discriminator of the bundled trainer, with the optimizer of its network."""

    def __init__(
        self,
        name: str,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        options: DiscriminatorOptions,
        *,
        target: float = 1.0,
    ) -> None:
        super().__init__(name, network, options, target=target)
        self.optimizer = optimizer

    def state_dict(self) -> dict[str, Any]:
        """Return the trained state and the targets as tensors and plain values."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "adaptive": self.adaptive.state_dict(),
            "target": self.target,
            "generator_target": self.generator_target,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.adaptive.load_state_dict(state["adaptive"])
        self.target, self.generator_target = state["target"], state["generator_target"]


def make_adam(network: nn.Module, lr: float, interval: int) -> torch.optim.Adam:
    """Return the optimizer of a network: Adam with betas 0 and 0.99, scaled for `interval`.

    Lazy regularisation adds one step every `interval` steps. Learning rate and betas are scaled so
    that all steps together move the weights as far as before (Karras et al. 2020a, appendix B).
    Published learning rates assume this scaling even if the regulariser's weight is 0.
    """
    share = interval / (interval + 1)
    return torch.optim.Adam(
        network.parameters(), lr=lr * share, betas=(0.0, 0.99**share), eps=1e-8, fused=True
    )


def vision_network(
    options: DiscriminatorOptions,
    backbone: Backbone,
    *,
    c_dim: int = 0,
    device: torch.device | str = "cpu",
) -> VisionNetwork:
    """Return a new head on a backbone.

    Its initial weights depend only on the seed and the backbone's name. The global random state is
    left unchanged.

    Args:
        options: of the discriminator.
        backbone: frozen, on the device.
        c_dim: number of classes for the head, 0 for none.
        device: device to train on.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(options.seed, "head", backbone.name))
        head = Head(backbone.map_shapes, backbone.dim, c_dim=c_dim, norm=options.norm)
    return VisionNetwork(backbone, head.to(device).to(memory_format=torch.channels_last))


def vision_member(
    options: DiscriminatorOptions,
    backbone: Backbone,
    *,
    c_dim: int = 0,
    smooth: bool = False,
    device: torch.device | str = "cpu",
) -> Member:
    """Return a new discriminator on a backbone; see `vision_network`.

    Args:
        options: of the discriminator.
        backbone: frozen, on the device.
        c_dim: number of classes for the head, 0 for none.
        smooth: whether the target of reals is 0.8.
        device: device to train on.
    """
    network = vision_network(options, backbone, c_dim=c_dim, device=device)
    optimizer = make_adam(network, options.lr, options.r1_interval)
    target = SMOOTHED if smooth else 1.0
    return Member(backbone.name, network, optimizer, options, target=target)


def norm_of(network: nn.Module) -> Literal["equalised", "spectral"]:
    """Return how the weights of a head are normalised."""
    is_spectral = any(name.endswith("parametrizations") for name, _ in network.named_modules())
    return "spectral" if is_spectral else "equalised"


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Treat a network's parameters as constants in the graphs built inside."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)


def generator_gradient(
    members: Sequence[Critic], fakes: Batch, step: Step, weights: Mapping[str, float] | None = None
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the gradient of the generator's loss with respect to its images.

    Each member runs forward and backward by itself, so that only one graph is in memory.

    Args:
        members: the ensemble.
        fakes: images without a graph.
        step: see `Step`.
        weights: member → weight of its loss; 1 unless given.

    Returns:
        Gradient (n, 3, R, R), and each member's loss before weighting, scalars on the device.
    """
    images = fakes.images.detach().requires_grad_()
    losses = {}
    for member in members:
        with frozen(member.network):
            loss = member.generator_loss(Batch(images, fakes.c), step)
            # The backward pass takes its types from the forward pass, not from autocast.
            with step.span(member.name), torch.autocast(images.device.type, enabled=False):
                (loss * (weights or {}).get(member.name, 1.0)).backward()  # adds to images.grad
        losses[f"Loss/G/{member.label}"] = loss.detach()
    return torch.zeros_like(images) if images.grad is None else images.grad, losses


def generator_loss(
    members: Sequence[Critic], fakes: Batch, step: Step, weights: Mapping[str, float]
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the weighted sum of the members' losses, whose gradient flows to the images.

    That gradient is computed at once, by `generator_gradient`, if it will be needed; it has no
    second derivative. In float16 it is left to the caller's `backward`, because a gradient scaler
    has to scale the loss before the backbones' backward pass.

    Args:
        members: the ensemble.
        fakes: images with a graph.
        step: see `Step`.
        weights: member → weight of its loss.

    Returns:
        A scalar, 0 without members, and each member's loss before weighting.
    """
    images = fakes.images.float()
    is_needed = images.requires_grad and torch.is_grad_enabled()
    if is_needed and not _is_float16(images.device):
        gradient, losses = generator_gradient(members, Batch(images, fakes.c), step, weights)
        total = _sum(members, losses, weights, images)
        return _KnownGradient.apply(images, total, gradient), losses
    losses = {}
    for member in members:
        with frozen(member.network):
            losses[f"Loss/G/{member.label}"] = member.generator_loss(Batch(images, fakes.c), step)
    return _sum(members, losses, weights, images), losses


class _KnownGradient(torch.autograd.Function):
    """A loss of images whose gradient has been computed already."""

    @staticmethod
    def forward(
        ctx: Any, images: torch.Tensor, loss: torch.Tensor, gradient: torch.Tensor
    ) -> torch.Tensor:
        """Return the loss."""
        ctx.save_for_backward(gradient)
        return loss.clone()

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *gradients: torch.Tensor
    ) -> tuple[torch.Tensor, None, None]:
        """Return the gradient, times that of the loss."""
        (scale,), (gradient,) = gradients, ctx.saved_tensors
        return gradient * scale, None, None


def _sum(
    members: Sequence[Critic],
    losses: Mapping[str, torch.Tensor],
    weights: Mapping[str, float],
    images: torch.Tensor,
) -> torch.Tensor:
    """Return the weighted sum of losses, a scalar."""
    if not members:
        return images.sum() * 0
    each = [weights.get(m.name, 1.0) * losses[f"Loss/G/{m.label}"].float() for m in members]
    return torch.stack(each).sum()


def _is_float16(device: torch.device) -> bool:
    """Return whether the caller's autocast is to float16."""
    kind = device.type
    return torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.float16


def discriminator_step(
    member: Member, reals: Batch, fakes: Batch, step: Step
) -> dict[str, torch.Tensor]:
    """Train one member on a batch of reals and a batch of fakes, both without a graph.

    Returns:
        Loss and mean final logits, scalars on the device.
    """
    judged = member.discriminator_loss(reals, fakes, step)
    with step.span(member.name):
        member.optimizer.zero_grad(set_to_none=True)
        judged.loss.backward()
        take_step(member.optimizer, step.processes)
    return member.observe(judged)


def _logits(network: nn.Module, images: torch.Tensor, c: torch.Tensor | None) -> Any:
    """Return the logits of images; gradients flow to them."""
    return network(images, c)


def _joined(reals: Batch, fakes: Batch) -> Batch:
    """Return reals and fakes as one batch."""
    c = None if reals.c is None or fakes.c is None else torch.cat([reals.c, fakes.c])
    return Batch(torch.cat([reals.images, fakes.images]), c)


def _logits_of_both(network: nn.Module, images: torch.Tensor, c: torch.Tensor | None) -> Any:
    """Return the logits of reals and fakes from one pass; a backbone runs without gradients."""
    if not isinstance(network, VisionNetwork):
        return network(images, c, batches=2)
    with torch.no_grad():
        maps, pooled = network.features(images)
    return network.head(maps, pooled, c)


def take_step(optimizer: torch.optim.Optimizer, processes: Processes) -> None:
    """Average the gradients over the processes, then step the optimizer."""
    gradients = [
        p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None
    ]
    processes.average_(gradients)
    optimizer.step()
