"""The grids of images of a training run, small enough for a page."""

import base64
import io
import math
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from probe.errors import ProbeError, printable
from probe.run_files import FIRST_GRID, GRID, GRIDS, REALS_GRID, kimg_of

SIDE = 768  # pixels, of a square with the area of a grid


class Sheet(NamedTuple):
    """A grid on the page: its WebP in base64 and what it shows."""

    data: str
    title: str


def grids(folder: Path) -> list[tuple[float, Path]]:
    """Return (kimg, path) of the grids of generated images in a run directory, in order."""
    named = [(GRID.fullmatch(path.name), path) for path in folder.glob(GRIDS)]
    found = [(kimg_of(match[1]), path) for match, path in named if match]
    first = [(0.0, folder / FIRST_GRID)] if (folder / FIRST_GRID).exists() else []
    return [*first, *sorted(found)]


def reals(folder: Path) -> Sheet | None:
    """Return the grid of training images, None if there is none yet."""
    path = folder / REALS_GRID
    return sheet(path, "Training images") if path.exists() else None


def sheet(path: Path, title: str) -> Sheet:
    """Return a grid, scaled down.

    Raises:
        ProbeError: the file is damaged.
    """
    try:
        with Image.open(path) as image:
            picture = image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        what = printable(str(error), 100)
        raise ProbeError(f"{path} is damaged ({what}). Move it away to see the rest.") from error
    shrink = math.sqrt(SIDE**2 / (picture.width * picture.height))
    if shrink < 1:
        size = (max(1, round(picture.width * shrink)), max(1, round(picture.height * shrink)))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, format="WEBP", quality=82, method=4)
    return Sheet(base64.b64encode(buffer.getvalue()).decode(), title)
