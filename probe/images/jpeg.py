"""Apply the same JPEG compression to every image of a source, so that encoding reveals nothing."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from probe.errors import UsageError
from probe.images.base import Batch, Header, ImageSource
from probe.images.decode import decode
from probe.images.limits import map_threads


class JpegMatched:
    """An `ImageSource` whose images are compressed as JPEG, 4:2:0, after the resize.

    Args:
        source: the source of the images.
        quality: IJG quality, 1–100.

    Raises:
        UsageError: if the quality is out of range.
    """

    def __init__(self, source: ImageSource, quality: int) -> None:
        if not 1 <= quality <= 100:  # Pillow reads 0 as its default
            raise UsageError(f"JPEG quality {quality}: it must be 1 to 100.")
        self.source, self.quality = source, quality
        self.name = source.name

    @property
    def labels(self) -> Sequence[int] | None:
        """The source's classes."""
        return self.source.labels

    @property
    def classes(self) -> int | None:
        """Number of classes according to the source's labels."""
        return self.source.classes

    @property
    def notes(self) -> Sequence[str]:
        """The source's notes."""
        return self.source.notes

    def __len__(self) -> int:
        """Return the length of the source."""
        return len(self.source)

    @property
    def resolution(self) -> int:
        """The source's resolution."""
        return self.source.resolution

    def identity(self) -> dict[str, Any]:
        """Return the source's record plus the quality."""
        return {**self.source.identity(), "match_jpeg": self.quality}

    def keys(self, indices: Sequence[int]) -> list[str]:
        """Return keys that never match the uncompressed images' keys."""
        return [f"jpeg{self.quality}:{key}" for key in self.source.keys(indices)]

    def marks(self, indices: Sequence[int]) -> list[str]:
        """Return marks that never match those of the uncompressed images."""
        return [f"jpeg{self.quality}:{mark}" for mark in self.source.marks(indices)]

    def captions(self, indices: Sequence[int]) -> list[str]:
        """Return the source's captions."""
        return self.source.captions(indices)

    def headers(self, indices: Sequence[int]) -> list[Header | None]:
        """Return the source's headers: the original encodings."""
        return self.source.headers(indices)

    def load(self, indices: Sequence[int], resolution: int) -> Batch:
        """Load and compress; uint8 (M, 3, resolution, resolution)."""
        batch = self.source.load(indices, resolution)
        images = torch.empty_like(batch.images, memory_format=torch.contiguous_format)
        for row, image in enumerate(map_threads(self._compress, batch.images)):
            images[row] = image
        return Batch(images, batch.indices, batch.broken)

    def _compress(self, image: torch.Tensor) -> torch.Tensor:
        """Encode and decode one image, uint8 (3, R, R)."""
        buffer = io.BytesIO()
        pixels = Image.fromarray(image.permute(1, 2, 0).numpy())
        pixels.save(buffer, format="JPEG", quality=self.quality, subsampling="4:2:0")
        return torch.from_numpy(np.array(decode(buffer.getvalue()))).permute(2, 0, 1)
