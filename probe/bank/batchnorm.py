"""BatchNorm statistics for randomly initialised networks.

A new network in eval mode has mean 0 and variance 1 in every BatchNorm, so its activations shrink
or explode with depth and it is too weak a control. A few hundred unlabelled images from outside
both classes make the control fair.
"""

from collections.abc import Sequence

import torch
from torch import nn

from probe.bank.base import FeatureNetwork, InputSpec, normalise, resize
from probe.bank.weights.find import bn_indices
from probe.devices import autocast, choose_precision
from probe.errors import BackboneUnavailable
from probe.images.base import ImageSource

BATCHNORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class WithoutStatistics(FeatureNetwork):
    """A random network without BatchNorm statistics: it can be inspected but not run."""

    def __init__(self, network: FeatureNetwork, name: str) -> None:
        super().__init__()
        self.network, self.name = network, name

    def pool(self, x: torch.Tensor) -> torch.Tensor:
        """Refuse.

        Raises:
            BackboneUnavailable: always.
        """
        raise BackboneUnavailable(
            f"{self.name} has random weights and no BatchNorm statistics",
            "load it with BatchNorm images",
        )

    def levels(self, x: torch.Tensor) -> tuple[Sequence[torch.Tensor], torch.Tensor]:
        """Refuse, like `pool`."""
        return [], self.pool(x)


def has_batchnorm(network: nn.Module) -> bool:
    """Return whether a network's output depends on running statistics."""
    return any(isinstance(module, BATCHNORMS) for module in network.modules())


def bn_pixels(images: ImageSource | torch.Tensor) -> torch.Tensor:
    """Return the images used for the statistics, uint8 (N, 3, R, R)."""
    if isinstance(images, torch.Tensor):
        return images
    return images.load(bn_indices(images), images.resolution).images


@torch.no_grad()
def set_statistics(network: FeatureNetwork, images: torch.Tensor, spec: InputSpec) -> None:
    """Set every BatchNorm's running statistics from the given images.

    Deterministic, in bf16 if it is fast on this machine. Networks without BatchNorm are unchanged.

    Args:
        network: a `FeatureNetwork` on the CPU; left in eval mode, in channels_last.
        images: uint8 (N, 3, R, R), 0 to 255; a few hundred are enough.
        spec: the network's input.

    Raises:
        BackboneUnavailable: if there are fewer than two images, too few for statistics.
    """
    norms = [module for module in network.modules() if isinstance(module, BATCHNORMS)]
    if not norms:
        return
    if len(images) < 2:
        raise BackboneUnavailable(f"{len(images)} BatchNorm images are too few; two at least")
    momenta = [norm.momentum for norm in norms]
    for norm in norms:  # everything else stays in eval mode: no dropout, no stochastic depth
        norm.reset_running_stats()
        # All images form one batch, whose statistics replace the running ones. An average over
        # several batches would fit activations that were normalised batch by batch, and the error
        # grows with depth.
        norm.momentum = 1.0
        norm.train()
    device = torch.device("cpu")
    network.to(memory_format=torch.channels_last)
    x = normalise(resize(images.float() / 255, spec.size, spec.resize), spec)
    with autocast(device, choose_precision("auto", device)):
        network.pool(x.contiguous(memory_format=torch.channels_last))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()
