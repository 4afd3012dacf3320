"""Write images as PNG, to a folder or an uncompressed zip, with their labels."""

import io
import json
import zipfile
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import torch
from PIL import Image

from probe.errors import UsageError
from probe.files import atomic_path, write_bytes, write_text
from probe.images.labels import LABELS_FILE


class ImageWriter:
    """Writes images one by one.

    A zip appears only when complete; in a folder, each file appears only when complete. The zip is
    uncompressed because PNG is compressed already.

    Args:
        place: a folder, a path that ends in .zip, or None to write nothing.

    Raises:
        UsageError: if the folder's path is a file.
    """

    def __init__(self, place: Path | None) -> None:
        self._place, self._zip = place, None
        self._labels: list[tuple[str, int]] = []
        self._stack = ExitStack()
        if place is not None and place.suffix.lower() != ".zip" and place.is_file():
            raise UsageError(f"--outdir: {place} is a file. Name a folder, or a .zip.")

    def __enter__(self) -> "ImageWriter":
        """Open the zip."""
        if self._place is not None and self._place.suffix.lower() == ".zip":
            path = self._stack.enter_context(atomic_path(self._place))
            self._zip = self._stack.enter_context(zipfile.ZipFile(path, "w"))
        return self

    def add(self, name: str, image: torch.Tensor, label: int | None) -> None:
        """Write one image.

        Args:
            name: its file name.
            image: uint8 (3, R, R).
            label: its class, None if it has none.
        """
        if label is not None:
            self._labels.append((name, label))
        if self._place is None:
            return
        buffer = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(buffer, format="PNG")
        if self._zip is not None:
            self._zip.writestr(name, buffer.getvalue())
        else:
            write_bytes(self._place / name, buffer.getvalue())

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Write the labels, and publish the zip unless something failed."""
        if kind is None and self._labels and self._place is not None:
            text = json.dumps({"labels": self._labels})
            if self._zip is not None:
                self._zip.writestr(LABELS_FILE, text)
            else:
                write_text(self._place / LABELS_FILE, text)
        self._stack.__exit__(kind, error, trace)
