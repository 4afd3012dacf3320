"""The discriminators of a run: the GAN's own, and one on each chosen backbone.

Each has its augmentation, loss and optimizer to itself, so that adding one touches nothing else.
Their losses are summed with weight 1 (method 5.1); since the sum's gradient is the sum of the
gradients, each runs forward and backward by itself, and only one graph is in memory at a time.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import nn

from probe.bank.base import Backbone, normalise, resize_unclamped
from probe.runtime import World, autocast, stream_seed, torch_stream
from probe.training.adaptive import AdaptiveAugment
from probe.training.augment import AUGMENTATIONS
from probe.training.config import TrainConfig
from probe.training.depthwise import QuickDepthwiseGradients
from probe.training.diffaugment import cutout
from probe.training.discriminator import Discriminator
from probe.training.draws import Draw
from probe.training.heads import Head
from probe.training.losses import LOSSES, AdversarialLoss

SMOOTHED = 0.8  # method 5.3
SMOOTH_ABOVE = 0.9  # of the probe's accuracy
P_INTERVAL = 4  # steps between two updates of an augmentation's strength

Optimizer = Callable[[nn.Module], torch.optim.Adam]
Span = Callable[[str], AbstractContextManager[None]]


class Network(Protocol):
    """What a member trains."""

    def __call__(self, images: torch.Tensor, c: torch.Tensor | None) -> list[torch.Tensor]:
        """Map images (N, 3, R, R) in [-1, 1] to levels of logits, the final one (N,) last."""
        ...


class OwnNetwork(nn.Module):
    """The GAN's own discriminator as a network with one level."""

    def __init__(self, discriminator: Discriminator) -> None:
        super().__init__()
        self.discriminator = discriminator

    def forward(self, images: torch.Tensor, c: torch.Tensor | None) -> list[torch.Tensor]:
        """Map images (N, 3, R, R) to one level of logits (N,)."""
        return [self.discriminator(images, c)]


class VisionNetwork(nn.Module):
    """A head on a frozen backbone; the backbone is no part of its parameters or its state."""

    def __init__(self, backbone: Backbone, head: Head) -> None:
        super().__init__()
        self.head = head
        self._frozen = (backbone,)  # in a tuple, where torch does not look for modules

    @property
    def backbone(self) -> Backbone:
        """The frozen network."""
        return self._frozen[0]

    def forward(self, images: torch.Tensor, c: torch.Tensor | None) -> list[torch.Tensor]:
        """Map images (N, 3, R, R) in [-1, 1] to levels of logits."""
        return self.head(*self.features(images), c)

    def features(self, images: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Return the maps and the pooled vector; gradients flow to the images.

        Nothing is clamped on the way, since no gradient passes a clamp (method 1.1).
        """
        fed = self.backbone.input
        x = resize_unclamped(images.float() / 2 + 0.5, fed.size, fed.resize)
        x = normalise(x, fed).contiguous(memory_format=torch.channels_last)
        with QuickDepthwiseGradients() if x.device.type == "cpu" else nullcontext():
            return self.backbone.levels(x)


class Member:
    """One discriminator of the ensemble.

    Attributes:
        name: "D" for the GAN's own, else the backbone's.
        network: its trainable part; see `Network`.
        optimizer: of `network`.
        adaptive: the strength of its augmentation.
        target: what reals should be called: 1, or 0.8 where smoothed.
    """

    def __init__(
        self,
        name: str,
        network: OwnNetwork | VisionNetwork,
        optimizer: torch.optim.Adam,
        *,
        augmentation: str,
        adaptive: AdaptiveAugment,
        loss: AdversarialLoss,
        target: float = 1.0,
        generator_target: float = 1.0,
        seed: int = 0,
    ) -> None:
        self.name, self.network, self.optimizer = name, network, optimizer
        self.augmentation, self.adaptive, self.loss = augmentation, adaptive, loss
        self.target, self.generator_target = target, generator_target
        self.seed = seed

    @property
    def label(self) -> str:
        """How its losses are called in the statistics: "loss" for D's, as users parse them."""
        return "loss" if self.name == "D" else self.name

    def augment(self, images: torch.Tensor, world: World, purpose: str, seen: int) -> torch.Tensor:
        """Augment images by a draw of this member's own (method 5.4).

        A backbone's images are cut out after ADA, always, as in the reference.

        Args:
            images: (n, 3, R, R), this process's share.
            world: the processes; draws are made for all of them and shared out.
            purpose: part of the draw's name, so that no two draws of a step are alike.
            seen: images seen so far in the run.
        """
        rng = torch_stream(self.seed, "augment", self.name, purpose, seen)
        draw = Draw(rng, len(images) * world.size, world.rank, world.size)
        augmented = AUGMENTATIONS[self.augmentation](images, self.adaptive.p, draw)
        if self.augmentation == "ada" and isinstance(self.network, VisionNetwork):
            augmented = cutout(augmented, draw)
        return augmented

    def state_dict(self) -> dict[str, Any]:
        """Return everything that training changes, and the targets, as tensors and plain values."""
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


def make_adam(config: TrainConfig, network: nn.Module, interval: int) -> torch.optim.Adam:
    """Return the optimizer of a network, betas 0 and 0.99.

    Lazy regularisation adds one step in `interval`; the rates are scaled so that the sum of steps
    moves as far as before (Karras et al. 2020a, appendix B). Published learning rates are meant
    with this scaling, also where the regulariser's weight is 0.
    """
    assert config.lr is not None
    share = interval / (interval + 1)
    return torch.optim.Adam(
        network.parameters(), lr=config.lr * share, betas=(0.0, 0.99**share), eps=1e-8, fused=True
    )


def own_member(config: TrainConfig, discriminator: Discriminator) -> Member:
    """Return the GAN's own discriminator as a member: logistic loss, never smoothed."""
    network = OwnNetwork(discriminator)
    return Member(
        "D",
        network,
        make_adam(config, network, config.r1_interval),
        augmentation=config.aug,
        adaptive=_strength(config, config.target, config.aug),
        loss=LOSSES["sigmoid"],
        seed=config.seed,
    )


def vision_member(
    config: TrainConfig, backbone: Backbone, *, c_dim: int, smooth: bool, device: torch.device
) -> Member:
    """Return a new discriminator on a backbone.

    Its head's weights are a function of the run's seed and the backbone's name, and the global
    random state stays as it was.

    Args:
        config: the resolved options.
        backbone: frozen, on the device.
        c_dim: number of classes that the head sees, 0 for none.
        smooth: whether its real target is 0.8.
        device: where to train.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(config.seed, "head", backbone.name))
        head = Head(backbone.map_shapes, backbone.dim, c_dim=c_dim, norm=config.head_norm)
    network = VisionNetwork(backbone, head.to(device, memory_format=torch.channels_last))
    target = SMOOTHED if smooth else 1.0
    return Member(
        backbone.name,
        network,
        make_adam(config, network, config.r1_interval),
        augmentation=config.aug_heads,
        adaptive=_strength(config, config.target_heads, config.aug_heads),
        loss=LOSSES[config.head_loss],
        target=target,
        generator_target=target if config.smooth_generator else 1.0,
        seed=config.seed,
    )


def is_smoothed(config: TrainConfig, accuracy: float) -> bool:
    """Return whether a backbone's real target is smoothed (method 5.3).

    Args:
        config: see `smooth` and `aug_heads`.
        accuracy: of the backbone's probe when it was chosen.
    """
    if config.smooth == "auto":
        return accuracy > SMOOTH_ABOVE or config.aug_heads == "diffaugment"
    return config.smooth == "always"


def _strength(config: TrainConfig, target: float, augmentation: str) -> AdaptiveAugment:
    adaptive = AdaptiveAugment(target, interval=P_INTERVAL)
    if config.aug_p is not None and augmentation == "ada":
        adaptive.p = config.aug_p
    return adaptive


def generator_gradient(
    members: Sequence[Member],
    fakes: torch.Tensor,
    c: torch.Tensor | None,
    *,
    world: World,
    seen: int,
    precision: str,
    span: Span,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the gradient of the generator's loss with respect to its images.

    Args:
        members: the ensemble.
        fakes: (n, 3, R, R) float32, without graph.
        c: their classes, one-hot, or None.
        world: the processes.
        seen: images seen so far.
        precision: of the networks.
        span: times a part of the step by name.

    Returns:
        Gradient (n, 3, R, R), and each member's loss, scalars on the device.
    """
    images = fakes.detach().requires_grad_()
    losses = {}
    for member in members:
        member.network.requires_grad_(False)
        with span("augment"):
            seen_images = member.augment(images, world, "generator", seen)
        with span(member.name):
            with autocast(images.device, precision):
                levels = member.network(seen_images, c)
                loss = member.loss.generator(levels, member.generator_target)
            loss.backward()  # adds to images.grad
        member.network.requires_grad_(True)
        losses[f"Loss/G/{member.label}"] = loss.detach()
    assert images.grad is not None
    return images.grad, losses


def discriminator_step(
    member: Member,
    reals: torch.Tensor,
    c_real: torch.Tensor | None,
    fakes: torch.Tensor,
    c_fake: torch.Tensor | None,
    *,
    world: World,
    seen: int,
    precision: str,
    span: Span,
) -> dict[str, torch.Tensor]:
    """Train one member on a batch of reals and fakes (n, 3, R, R), neither with a graph.

    Returns:
        Loss and mean final logits, scalars on the device.
    """
    with span("augment"), torch.no_grad():
        reals = member.augment(reals, world, "real", seen)
        fakes = member.augment(fakes, world, "fake", seen)
    with span(member.name):
        with autocast(reals.device, precision):
            on_reals, on_fakes = _logits_of_both(member.network, reals, c_real, fakes, c_fake)
            loss = member.loss.discriminator(on_reals, on_fakes, member.target)
        member.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        take_step(member.optimizer, world)
    final = on_reals[-1].detach()
    member.adaptive.observe(final.sign().sum(), len(final))
    prefix = "Loss/scores" if member.name == "D" else f"Loss/scores/{member.name}"
    return {
        f"Loss/D/{member.label}": loss.detach(),
        f"{prefix}/real": final.mean(),
        f"{prefix}/fake": on_fakes[-1].detach().mean(),
    }


def _logits_of_both(
    network: OwnNetwork | VisionNetwork,
    reals: torch.Tensor,
    c_real: torch.Tensor | None,
    fakes: torch.Tensor,
    c_fake: torch.Tensor | None,
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Return the logits of reals and of fakes; a backbone is passed once, without a gradient."""
    if isinstance(network, OwnNetwork):
        return network(reals, c_real), network(fakes, c_fake)
    with torch.no_grad():
        maps, pooled = network.features(torch.cat([reals, fakes]))
    c = None if c_real is None or c_fake is None else torch.cat([c_real, c_fake])
    both, n = network.head(maps, pooled, c), len(reals)
    return [x[:n] for x in both], [x[n:] for x in both]


def take_step(optimizer: torch.optim.Optimizer, world: World) -> None:
    """Average the gradients over the processes and let the optimizer step."""
    gradients = [
        p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None
    ]
    world.average_(gradients)
    optimizer.step()
