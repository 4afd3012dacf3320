"""VGG-16 with antialiased pooling (Zhang 2019): a dense maximum, then a low-pass with stride 2."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from probe.bank.base import FeatureNetwork, no_such
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
    """The convolutional part; its modules are numbered as in the published files."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for channels, count in WIDTHS:
            for _ in range(count):
                layers += [nn.Conv2d(before, channels, 3, padding=1), nn.ReLU(inplace=True)]
                before = channels
            layers += [nn.MaxPool2d(2, stride=1), BlurPool(channels)]
        self.features = nn.Sequential(*layers)

    def pool(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, S, S) → (N, 512), the map's global average."""
        return self.levels(x)[1]

    def levels(self, x: torch.Tensor) -> tuple[Sequence[torch.Tensor], torch.Tensor]:
        """(N, 3, S, S) → the map (N, 512, S/32, S/32) and its global average (N, 512)."""
        x = self.features(x)
        return [x], x.mean(dim=(2, 3))


def build(spec: BackboneSpec, path: Path | None) -> FeatureNetwork:
    """Build the network; `path` is its weight file, None keeps the random initialisation.

    Raises:
        BackboneUnavailable: if it is another network than VGG-16, or the weights do not fit.
    """
    if spec.model != "vgg16":
        raise no_such("the source antialiased has no model", spec.model, ["vgg16"])
    network = AntialiasedVGG()
    if path is not None:
        load_state(spec, path, network)
    return network
