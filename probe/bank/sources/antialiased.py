"""VGG-16 with antialiased pooling (Zhang 2019): a dense maximum, then a low-pass with stride 2."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from probe.bank.base import FeatureNetwork, averages, no_such, numbered_layers
from probe.bank.spec import BackboneSpec
from probe.bank.weights.state import load_state

WIDTHS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # channels and convolutions per stage
TAPS = (1, 3, 3, 1)  # filter 4 of the paper's table


class BlurPool(nn.Module):
    """The separable low-pass [1, 3, 3, 1] / 8 with stride 2 and reflected borders."""

    kernel: torch.Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        taps = torch.tensor(TAPS, dtype=torch.float32) / sum(TAPS)
        kernel = torch.outer(taps, taps).expand(channels, 1, -1, -1).contiguous()
        self.register_buffer("kernel", kernel, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) → (N, C, ⌈H/2⌉, ⌈W/2⌉)."""
        x = F.pad(x, (1, 2, 1, 2), mode="reflect")
        return F.conv2d(x, self.kernel.to(x.dtype), stride=2, groups=x.shape[1])


class AntialiasedVGG(FeatureNetwork):
    """The convolutional part; its modules are numbered as in the published files.

    Args:
        taps: indices of the stages whose maps are returned, in order; by default the last.
    """

    def __init__(self, taps: Sequence[int | str] = ()) -> None:
        super().__init__()
        self.layers = numbered_layers(len(WIDTHS), taps, "vgg16")
        self.taps = tuple(taps) or (len(WIDTHS) - 1,)
        layers: list[nn.Module] = []
        before = 3
        for channels, count in WIDTHS:
            for _ in range(count):
                layers += [nn.Conv2d(before, channels, 3, padding=1), nn.ReLU(inplace=True)]
                before = channels
            layers += [nn.MaxPool2d(2, stride=1), BlurPool(channels)]
        self.features = nn.Sequential(*layers)

    def pool(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, S, S) → (N, 512), the global averages of the maps, of the last by default."""
        return self.levels(x)[1]

    def levels(self, x: torch.Tensor) -> tuple[Sequence[torch.Tensor], torch.Tensor]:
        """(N, 3, S, S) → the maps, by default (N, 512, S/32, S/32), and their global averages."""
        stages = []
        for module in self.features:
            x = module(x)
            if isinstance(module, BlurPool):
                stages.append(x)
        maps = [stages[int(tap)] for tap in self.taps]
        return maps, averages(maps)


def build(spec: BackboneSpec, path: Path | None) -> FeatureNetwork:
    """Build the network; `path` is its weight file, None keeps the random initialisation.

    Raises:
        BackboneUnavailable: if it is another network than VGG-16, or the weights do not fit.
    """
    if spec.model != "vgg16":
        raise no_such("the source antialiased has no model", spec.model, ["vgg16"])
    network = AntialiasedVGG(spec.taps)
    if path is not None:
        load_state(spec, path, network)
    return network
