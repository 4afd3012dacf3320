"""The contract of a generator network."""

from collections.abc import Iterator
from typing import Any, Protocol, Self

import torch


class Generator(Protocol):
    """A frozen generator network: latents (and classes) to images.

    Attributes:
        z_dim: width of the latent.
        c_dim: number of classes, 0 if unconditional.
        img_resolution: side of the images in pixels.
        img_channels: 3, or 1 for grey.
    """

    z_dim: int
    c_dim: int
    img_resolution: int
    img_channels: int

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move or cast, like `torch.nn.Module.to`; returns itself."""
        ...

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        """Yield the weights."""
        ...

    def __call__(
        self,
        z: torch.Tensor,
        c: torch.Tensor | None = None,
        *,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        noise_mode: str = "random",
        noise_keys: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return float images (N, img_channels, R, R), nominally in [-1, 1].

        Args:
            z: (N, z_dim) float32, standard normal.
            c: (N, c_dim) one-hot float32; None if `c_dim` is 0.
            truncation_psi: 1 is no truncation, 0 the mean image.
            truncation_cutoff: number of leading layers to truncate; None is all.
            noise_mode: "random", "const" (the buffers in the file) or "none".
            noise_keys: int64 (N,) on the device, of which "random" noise is a function, so that an
                image does not depend on its batch; None draws them from torch's global stream.
        """
        ...


def to_uint8(images: torch.Tensor) -> torch.Tensor:
    """Convert float images in [-1, 1] to 8 bit, as a saved file would hold them.

    x·127.5 + 128, clamped to 0–255, rounded towards zero (the generator family's convention). One
    channel is repeated to three; a fourth (alpha) is dropped.

    Args:
        images: (N, 1, 3 or 4, H, W) float.

    Returns:
        uint8 (N, 3, H, W).
    """
    eight_bit = (images.float() * 127.5 + 128).clamp(0, 255).to(torch.uint8)
    return eight_bit.expand(-1, 3, -1, -1) if eight_bit.shape[1] == 1 else eight_bit[:, :3]
