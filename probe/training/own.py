"""The GAN's own discriminator as an ensemble member, and the ensemble options of a run."""

import torch
from torch import nn

from probe.discriminators.member import Member, make_adam
from probe.discriminators.options import DiscriminatorOptions
from probe.training.config import ResolvedConfig
from probe.training.discriminator import Discriminator


class OwnNetwork(nn.Module):
    """Wraps the GAN's own discriminator as a network with one level."""

    def __init__(self, discriminator: Discriminator) -> None:
        super().__init__()
        self.discriminator = discriminator

    def forward(
        self, images: torch.Tensor, c: torch.Tensor | None, *, batches: int = 1
    ) -> list[torch.Tensor]:
        """Map images (N, 3, R, R), which may be several batches, to one level of logits (N,)."""
        return [self.discriminator(images, c, batches=batches)]


def head_options(config: ResolvedConfig) -> DiscriminatorOptions:
    """Return the options for the discriminators on backbones."""
    return DiscriminatorOptions(
        loss=config.head_loss,
        norm=config.head_norm,
        augmentation=config.aug_heads,
        target=config.target_heads,
        p=config.aug_p,
        smooth=config.smooth,
        smooth_generator=config.smooth_generator,
        lr=config.lr,
        r1_interval=config.r1_interval,
        seed=config.seed,
    )


def own_member(config: ResolvedConfig, discriminator: Discriminator) -> Member:
    """Return the GAN's own discriminator as a member: logistic loss, never smoothed."""
    network = OwnNetwork(discriminator)
    optimizer = make_adam(network, config.lr, config.r1_interval)
    options = DiscriminatorOptions(
        augmentation=config.aug, target=config.target, p=config.aug_p, seed=config.seed
    )
    return Member("D", network, optimizer, options)
