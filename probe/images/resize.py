"""The only path from an image of any size to a square of the requested side."""

import numpy as np
import torch
from PIL import Image

# Lanczos is antialiased at any factor, the sharpest of Pillow's filters, and what this field's
# dataset tools use, so reals prepared by them and here are treated alike. No reducing_gap: its
# first step is a box filter, which would distinguish large originals from small ones.
FILTER = Image.Resampling.LANCZOS


def to_square(image: Image.Image, resolution: int) -> np.ndarray:
    """Centre-crop to a square, then resize once with antialiasing; the same for reals and fakes.

    Args:
        image: RGB, any size.
        resolution: requested side in pixels, larger or smaller; an image that already has it is
            unchanged.

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
    return np.array(image)  # copy, because Pillow's own memory is read-only


def squares(images: torch.Tensor, resolution: int) -> torch.Tensor:
    """Make images in memory square, like `to_square`.

    Args:
        images: uint8 (N, 3, H, W) on the CPU.
        resolution: requested side in pixels.

    Returns:
        uint8 (N, 3, resolution, resolution), contiguous; the same tensor if it already fits.
    """
    if images.shape[2:] == (resolution, resolution):
        return images.contiguous()
    resized = torch.empty(len(images), 3, resolution, resolution, dtype=torch.uint8)
    for row, image in enumerate(images):
        picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
        resized[row] = torch.from_numpy(to_square(picture, resolution)).permute(2, 0, 1)
    return resized
