"""Discriminators: heads on frozen backbones, their losses and augmentations, for any loop.

Everything an option can name is listed here, one line each, without importing torch. Heads are in
`heads.HEADS`, because they are chosen by feature shape and not by an option.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from probe.registry import Place, load

if TYPE_CHECKING:
    import torch

    from probe.discriminators.draws import Draw
    from probe.discriminators.losses import AdversarialLoss


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """A differentiable augmentation in front of a discriminator.

    Attributes:
        apply: (images, draw) → images of the same shape, or (images, p, draw) if it is adaptive;
            None leaves them unchanged.
        adaptive: whether it has a probability p, controlled by ADA.
        before_backbones: (images, draw) → images; applied afterwards if the network is a backbone.
        smooths: whether `--smooth auto` smooths the targets of reals with it.
    """

    apply: Place[Callable[..., "torch.Tensor"]] | None = None
    adaptive: bool = False
    before_backbones: Place["Callable[[torch.Tensor, Draw], torch.Tensor]"] | None = None
    smooths: bool = False

    def __call__(self, images: "torch.Tensor", p: float, draw: "Draw") -> "torch.Tensor":
        """Return augmented images (N, C, R, R)."""
        if self.apply is None:
            return images
        given = (images, p, draw) if self.adaptive else (images, draw)
        return load(self.apply)(*given)


AUGMENTATIONS: dict[str, Augmentation] = {
    "ada": Augmentation(
        apply="probe.discriminators.ada:ada",
        adaptive=True,
        before_backbones="probe.discriminators.diffaugment:cutout",  # as in the original code
    ),
    "diffaugment": Augmentation(apply="probe.discriminators.diffaugment:diffaugment", smooths=True),
    "none": Augmentation(),
}

LOSSES: dict[str, "Place[AdversarialLoss]"] = {
    "sigmoid": "probe.discriminators.losses:SIGMOID",
    "hinge": "probe.discriminators.losses:HINGE",
}
