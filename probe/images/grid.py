"""Contact sheets."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from probe.files import atomic_path


def contact_sheet(images: torch.Tensor, columns: int) -> np.ndarray:
    """Arrange uint8 images (N, 3, R, R) in rows, with white to fill the last one.

    Returns:
        uint8 (rows · R, columns · R, 3).
    """
    n, _, r, _ = images.shape
    rows = -(-n // columns)
    sheet = np.full((rows, columns, r, r, 3), 255, dtype=np.uint8)
    sheet.reshape(-1, r, r, 3)[:n] = images.permute(0, 2, 3, 1).cpu().numpy()
    return sheet.transpose(0, 2, 1, 3, 4).reshape(rows * r, columns * r, 3)


def save_grid(path: Path, images: torch.Tensor, *, columns: int) -> None:
    """Write uint8 images (N, 3, R, R) as one PNG contact sheet, atomically."""
    sheet = Image.fromarray(contact_sheet(images, columns))
    with atomic_path(path) as temporary:
        # A seventh larger than Pillow's own level, in a fifth of the time; a training writes many.
        sheet.save(temporary, format="PNG", compress_level=1)
