"""TensorBoard events in the run directory."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from probe.files import utf8_path
from probe.training.tracking import Rows, Tracked

SIDE = 1024  # pixels at most of a picture, since every one stays in the events


class TensorBoard:
    """Writes events beside the run's other files; steps are images.

    Args:
        run: what is tracked. Events after the state that it resumes are marked as void.
    """

    def __init__(self, run: Tracked) -> None:
        self._links = ExitStack()
        known = self._links.enter_context(utf8_path(run.folder))
        self._board = SummaryWriter(known, purge_step=run.images + 1 if run.images else None)

    def scalars(self, images: int, values: Mapping[str, float]) -> None:
        """Write numbers."""
        for name, value in values.items():
            self._board.add_scalar(name, value, global_step=images)
        self._board.flush()

    def picture(self, images: int, name: str, path: Path) -> None:
        """Write an image, scaled down."""
        with Image.open(path) as picture:
            small = picture.convert("RGB")
        small.thumbnail((SIDE, SIDE))
        self._board.add_image(name, np.asarray(small), global_step=images, dataformats="HWC")

    def table(self, images: int, name: str, headings: Sequence[str], rows: Rows) -> None:
        """Write a table as Markdown text."""
        lines = [headings, ["---"] * len(headings), *(list(map(_cell, row)) for row in rows)]
        text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        self._board.add_text(name, text, global_step=images)

    def close(self) -> None:
        """Flush and close the events."""
        self._board.close()
        self._links.close()


def _cell(value: object) -> str:
    text = f"{value:.3f}" if isinstance(value, float) else "" if value is None else str(value)
    return text.replace("|", "\\|")
