"""Discriminators: heads on frozen backbones, their losses, their augmentations, for any loop.

What an option names stands here, a line each; no torch. Heads are in `heads.HEADS`, since shapes
choose among them and no option does.
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
            None leaves them as they are.
        adaptive: whether it has a probability p, which ADA's controller steers.
        before_backbones: (images, draw) → images, applied after it if a backbone looks at them.
        smooths: whether it smooths the real targets under `--smooth auto`.
    """

    apply: Place[Callable[..., "torch.Tensor"]] | None = None
    adaptive: bool = False
    before_backbones: Place["Callable[[torch.Tensor, Draw], torch.Tensor]"] | None = None
    smooths: bool = False

    def __call__(self, images: "torch.Tensor", p: float, draw: "Draw") -> "torch.Tensor":
        """Return images (N, C, R, R), augmented."""
        if self.apply is None:
            return images
        given = (images, p, draw) if self.adaptive else (images, draw)
        return load(self.apply)(*given)


AUGMENTATIONS: dict[str, Augmentation] = {
    "ada": Augmentation(
        apply="probe.discriminators.ada:ada",
        adaptive=True,
        before_backbones="probe.discriminators.diffaugment:cutout",  # as in the reference code
    ),
    "diffaugment": Augmentation(apply="probe.discriminators.diffaugment:diffaugment", smooths=True),
    "none": Augmentation(),
}

LOSSES: dict[str, "Place[AdversarialLoss]"] = {
    "sigmoid": "probe.discriminators.losses:SIGMOID",
    "hinge": "probe.discriminators.losses:HINGE",
}
