"""The one way in which an image of any size becomes a square of the wanted side."""

import numpy as np
import torch
from PIL import Image

# Lanczos: antialiased whatever the factor, the sharpest of Pillow's filters, and what the dataset
# tools of this field use, so that reals prepared by them and here were treated alike. No
# reducing_gap: its first step is a box filter, which would tell large originals from small ones.
FILTER = Image.Resampling.LANCZOS


def to_square(image: Image.Image, resolution: int) -> np.ndarray:
    """Centre-crop to a square, then resize once with antialiasing; reals and fakes alike.

    Args:
        image: RGB, any size.
        resolution: wanted side in pixels, larger or smaller; an image that has it already is
            not touched.

    Returns:
        uint8 (resolution, resolution, 3).
    """
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    if (width, height) != (side, side):
        image = image.crop((left, top, left + side, top + side))
    if side != resolution:
        image = image.resize((resolution, resolution), FILTER, reducing_gap=None)
    return np.array(image)  # a copy: Pillow's own memory is read-only


def squares(images: torch.Tensor, resolution: int) -> torch.Tensor:
    """Bring images in memory to squares, as `to_square` does.

    Args:
        images: uint8 (N, 3, H, W) on the CPU.
        resolution: wanted side in pixels.

    Returns:
        uint8 (N, 3, resolution, resolution), contiguous; the same tensor where nothing is to do.
    """
    if images.shape[2:] == (resolution, resolution):
        return images.contiguous()
    resized = torch.empty(len(images), 3, resolution, resolution, dtype=torch.uint8)
    for row, image in enumerate(images):
        picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
        resized[row] = torch.from_numpy(to_square(picture, resolution)).permute(2, 0, 1)
    return resized
