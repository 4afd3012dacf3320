"""Images in memory as an `ImageSource`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from probe.errors import ImagesError
from probe.files import digest_bytes
from probe.images.base import Batch, Header
from probe.images.resize import squares


class TensorSource:
    """Images already in memory, identified by their pixels.

    Args:
        images: uint8 (N, 3, H, W), RGB, a tensor or an array.
        name: for messages.

    Raises:
        ImagesError: if the shape or type differs.
    """

    labels: Sequence[int] | None = None
    classes: int | None = None
    notes: Sequence[str] = ()

    def __init__(self, images: torch.Tensor | np.ndarray, *, name: str = "images") -> None:
        given = f"{str(images.dtype).removeprefix('torch.')} {tuple(images.shape)}"
        tensor = torch.as_tensor(images).detach().cpu()
        if tensor.dtype != torch.uint8 or tensor.ndim != 4 or tensor.shape[1] != 3:
            raise ImagesError(f"{name}: {given} was given; uint8 (N, 3, H, W) is expected.")
        if tensor.numel() == 0:
            raise ImagesError(f"{name}: {given} holds no images.")
        self.name, self.images = name, tensor

    def __len__(self) -> int:
        """Return how many images there are."""
        return len(self.images)

    @property
    def resolution(self) -> int:
        """The images' short side."""
        return min(self.images.shape[2:])

    def identity(self) -> dict[str, Any]:
        """Return the kind, name and shape."""
        return {"kind": "tensor", "path": self.name, "shape": list(self.images.shape)}

    def keys(self, indices: Sequence[int]) -> list[str]:
        """Return the digest of each image's pixels."""
        height, width = self.images.shape[2:]
        side = f"{height}" if height == width else f"{height}x{width}"
        return [f"pixels:{side}:{digest_bytes(self.images[i].numpy().tobytes())}" for i in indices]

    def marks(self, indices: Sequence[int]) -> list[str]:
        """Return the keys: the pixels are in memory."""
        return self.keys(indices)

    def captions(self, indices: Sequence[int]) -> list[str]:
        """Return "image 17"."""
        return [f"image {i}" for i in indices]

    def headers(self, indices: Sequence[int]) -> list[Header | None]:
        """Return a header without a format, because how these images were stored is unknown."""
        height, width = self.images.shape[2:]
        return [Header(None, (width, height), "RGB") for _ in indices]

    def load(self, indices: Sequence[int], resolution: int) -> Batch:
        """Return uint8 (N, 3, resolution, resolution)."""
        return Batch(squares(self.images[list(indices)], resolution), list(indices), {})
