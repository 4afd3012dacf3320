"""Contact sheets: order, padding, the file."""

import numpy as np
import torch
from PIL import Image

from probe.images.grid import contact_sheet, save_grid


def test_rows_are_filled_left_to_right_and_padded_white(tmp_path):
    images = torch.arange(3, dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 3, 2, 2)
    sheet = contact_sheet(images, 2)
    assert sheet[::2, ::2, 0].tolist() == [[0, 1], [2, 255]]
    save_grid(tmp_path / "sheet.png", images, columns=2)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "sheet.png")), sheet)
