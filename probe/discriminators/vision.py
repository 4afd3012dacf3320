"""A trainable head on a frozen backbone."""

from typing import Literal

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from probe import accel
from probe.bank.base import Backbone, normalise, resize_unclamped
from probe.discriminators.heads import Head
from probe.discriminators.options import DiscriminatorOptions
from probe.streams import stream_seed


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


def norm_of(network: nn.Module) -> Literal["equalised", "spectral"]:
    """Return how the weights of a head are normalised."""
    is_spectral = any(name.endswith("parametrizations") for name, _ in network.named_modules())
    return "spectral" if is_spectral else "equalised"
