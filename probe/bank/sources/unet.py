"""The contracting half of a U-Net (Ronneberger et al. 2015), padded and with BatchNorm.

With widths 16 to 256 and 19 classes the whole network has 1 943 395 parameters, those of the face
parser in the method's bank.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from probe.bank.base import FeatureNetwork, averages, no_such, numbered_layers
from probe.bank.spec import BackboneSpec
from probe.bank.weights.state import load_state

STAGES = ("conv1", "conv2", "conv3", "conv4", "center")  # as in published files
WIDTH = 16  # of the first stage; each further one has twice as many channels


class DoubleConvolution(nn.Module):
    """Two 3x3 convolutions, each with BatchNorm and ReLU."""

    def __init__(self, before: int, channels: int) -> None:
        super().__init__()
        self.conv1 = self._convolution(before, channels)
        self.conv2 = self._convolution(channels, channels)

    def _convolution(self, before: int, channels: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(before, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) → (N, channels, H, W)."""
        return self.conv2(self.conv1(x))


class UNetEncoder(FeatureNetwork):
    """Five stages with a 2x2 maximum between them.

    Args:
        taps: indices of the stages whose maps are returned, in order; by default the last map, each
            2x2 pixels averaged, which is the method's.
    """

    def __init__(self, taps: Sequence[int | str] = ()) -> None:
        super().__init__()
        self.layers = numbered_layers(len(STAGES), taps, "unet")
        self.taps = tuple(taps)
        before = 3
        for i, name in enumerate(STAGES):
            self.add_module(name, DoubleConvolution(before, WIDTH * 2**i))
            before = WIDTH * 2**i

    def pool(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, S, S) → (N, 256), the last map's global average; of the taps if there are any."""
        return self.levels(x)[1]

    def levels(self, x: torch.Tensor) -> tuple[Sequence[torch.Tensor], torch.Tensor]:
        """(N, 3, S, S) → the map (N, 256, S/32, S/32), or the taps', and their averages."""
        stages = []
        for name in STAGES:
            x = self.get_submodule(name)(F.max_pool2d(x, 2) if stages else x)
            stages.append(x)
        maps = [stages[int(tap)] for tap in self.taps] or [F.avg_pool2d(x, 2)]
        return maps, averages(maps)


def build(spec: BackboneSpec, path: Path | None) -> FeatureNetwork:
    """Build the network; `path` is its weight file, None keeps the random initialisation.

    Raises:
        BackboneUnavailable: if it is another network than the U-Net, or the weights do not fit.
    """
    if spec.model != "unet":
        raise no_such("the source unet has no model", spec.model, ["unet"])
    network = UNetEncoder(spec.taps)
    if path is not None:
        load_state(spec, path, network)
    return network
