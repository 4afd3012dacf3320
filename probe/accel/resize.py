"""Resize by one matrix product per axis, because torch's antialiased resize has a slow gradient."""

from collections.abc import Callable
from functools import lru_cache

import torch

from probe.accel import enabled

Resample = Callable[[torch.Tensor, tuple[int, int], str], torch.Tensor]


def resize_by_products(
    images: torch.Tensor, size: int, mode: str, resample: Resample
) -> torch.Tensor:
    """Resize square float images (N, C, R, R) to (N, C, size, size).

    Args:
        images: the images.
        size: the new side in pixels.
        mode: passed to `resample`.
        resample: the plain resize; must be linear in the image and equal along both axes.
    """
    if not enabled():
        return resample(images, (size, size), mode)
    matrix = _matrix(images.shape[-1], size, mode, images.device, resample).to(images.dtype)
    with torch.autocast(images.device.type, enabled=False):  # bf16 would round pixels twice
        return matrix @ images @ matrix.T


@lru_cache(maxsize=16)
@torch.inference_mode(False)  # cached, and also used in graphs
def _matrix(
    old: int, new: int, mode: str, device: torch.device, resample: Resample
) -> torch.Tensor:
    """Return the matrix that resizes one axis, float32 (new, old), on the device."""
    axis = torch.eye(old, dtype=torch.float32, device="cpu").view(1, 1, old, old)
    return resample(axis, (old, new), mode)[0, 0].T.contiguous().to(device)
