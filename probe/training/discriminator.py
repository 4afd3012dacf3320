"""The StyleGAN2 discriminators in plain PyTorch (Karras et al. 2020a, section 4).

Parameter names match the StyleGAN2-ADA files.
"""

import math
from typing import Any

import torch
from torch import nn

from probe.discriminators.layers import ConvLayer
from probe.errors import UsageError, shown
from probe.generators.networks.layers import FullyConnected, Mapping

ARCHITECTURES = ("resnet", "orig")


class Block(nn.Module):
    """Halve the resolution: conv1(conv0(x)).

    A residual block ("resnet") adds skip(x) and scales both branches by sqrt(1/2).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        img_channels: int,
        *,
        is_first: bool,
        architecture: str,
        conv_clamp: float | None,
    ) -> None:
        super().__init__()
        if is_first:
            self.fromrgb = ConvLayer(img_channels, in_channels, 1, conv_clamp=conv_clamp)
        self.conv0 = ConvLayer(in_channels, in_channels, 3, conv_clamp=conv_clamp)
        self.conv1 = ConvLayer(in_channels, out_channels, 3, down=True, conv_clamp=conv_clamp)
        if architecture == "resnet":
            self.skip = ConvLayer(
                in_channels, out_channels, 1, bias=False, activation="linear", down=True
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images or features (N, ·, R, R) to (N, out_channels, R/2, R/2)."""
        if hasattr(self, "fromrgb"):
            x = self.fromrgb(x)
        if not hasattr(self, "skip"):
            return self.conv1(self.conv0(x))
        skip = self.skip(x, gain=math.sqrt(0.5))
        return skip + self.conv1(self.conv0(x), gain=math.sqrt(0.5))


def minibatch_std(x: torch.Tensor, group_size: int, batches: int = 1) -> torch.Tensor:
    """Append one channel with the spread of the features within groups of samples.

    Karras et al. 2018, section 3. A batch of N is divided into groups of `min(group_size, N)`.

    Args:
        x: (batches · N, C, H, W), one batch after the other, N divisible by the group size.
        group_size: samples per group.
        batches: number of batches; no group has samples of two.

    Returns:
        (batches · N, C + 1, H, W).
    """
    n, c, h, w = x.shape
    group = min(group_size, n // batches)
    grouped = x.float().reshape(batches, group, -1, c, h, w)
    # Written out because `var` along the first axis takes ten times as long on a CPU.
    variance = (grouped - grouped.mean(dim=1, keepdim=True)).square().mean(dim=1)
    std = (variance + 1e-8).sqrt().mean(dim=(2, 3, 4))
    spread = std.repeat(1, group).to(x.dtype).reshape(n, 1, 1, 1)
    return torch.cat([x, spread.expand(n, 1, h, w)], 1)


class Epilogue(nn.Module):
    """The 4x4 end of the network: minibatch std, convolution, two fully connected layers."""

    def __init__(self, channels: int, cmap_dim: int, group_size: int) -> None:
        super().__init__()
        self.group_size = group_size
        self.conv = ConvLayer(channels + 1, channels, 3)
        self.fc = FullyConnected(channels * 16, channels, activation="lrelu")
        self.out = FullyConnected(channels, cmap_dim or 1)

    def forward(self, x: torch.Tensor, batches: int = 1) -> torch.Tensor:
        """Map (N, C, 4, 4) to (N, cmap_dim or 1)."""
        x = self.conv(minibatch_std(x, self.group_size, batches))
        return self.out(self.fc(x.flatten(1)))


class Discriminator(nn.Module):
    """Map images to one logit each, positive for "real"; with classes, by projection.

    Args:
        c_dim: number of classes, 0 for none.
        img_resolution: side in pixels, a power of two from 8.
        img_channels: 3, or 1 for grey.
        channel_base: channels at resolution r are min(channel_base // r, channel_max).
        channel_max: see `channel_base`.
        architecture: of the blocks: "resnet", or "orig" for no residuals.
        mbstd_group_size: samples per minibatch-std group.
        conv_clamp: limit on the convolutions' activations, None for no limit.

    Raises:
        UsageError: unknown architecture.
    """

    def __init__(
        self,
        c_dim: int,
        img_resolution: int,
        img_channels: int,
        *,
        channel_base: int = 32768,
        channel_max: int = 512,
        architecture: str = "resnet",
        mbstd_group_size: int = 4,
        conv_clamp: float | None = None,
    ) -> None:
        super().__init__()
        if architecture not in ARCHITECTURES:
            raise UsageError(
                f"Unknown discriminator architecture {shown(architecture)}: one of {ARCHITECTURES}."
            )
        self.init_kwargs: dict[str, Any] = {
            "c_dim": c_dim,
            "img_resolution": img_resolution,
            "img_channels": img_channels,
            "channel_base": channel_base,
            "channel_max": channel_max,
            "architecture": architecture,
            "mbstd_group_size": mbstd_group_size,
            "conv_clamp": conv_clamp,
        }
        self.c_dim, self.img_resolution = c_dim, img_resolution
        self.resolutions = [2**i for i in range(int(math.log2(img_resolution)), 2, -1)]
        channels = {r: min(channel_base // r, channel_max) for r in [*self.resolutions, 4]}
        for r in self.resolutions:
            block = Block(
                channels[r],
                channels[r // 2],
                img_channels,
                is_first=r == img_resolution,
                architecture=architecture,
                conv_clamp=conv_clamp,
            )
            setattr(self, f"b{r}", block)
        cmap_dim = channels[4] if c_dim else 0
        if c_dim:
            self.mapping = Mapping(0, c_dim, cmap_dim, track_average=False)
        self.b4 = Epilogue(channels[4], cmap_dim, mbstd_group_size)

    def forward(
        self, images: torch.Tensor, c: torch.Tensor | None = None, *, batches: int = 1
    ) -> torch.Tensor:
        """Map images (N, C, R, R) in [-1, 1] and classes (N, c_dim) to logits (N,), float32.

        Args:
            images: one batch after the other if there are several.
            c: one-hot, or None.
            batches: number of batches of equal size; see `minibatch_std`.
        """
        x = images
        for r in self.resolutions:
            x = getattr(self, f"b{r}")(x)
        x = self.b4(x, batches).float()
        if self.c_dim:
            cmap = self.mapping(None, c).float()
            x = (x * cmap).sum(dim=1, keepdim=True) / math.sqrt(cmap.shape[1])
        return x.squeeze(1)
