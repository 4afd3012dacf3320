"""Use some of a source's images as a source."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from probe.files import digest_bytes
from probe.images.base import Batch, Header, ImageSource


@dataclass(frozen=True)
class Subset:
    """The images of `source` at `indices`, numbered from 0 in that order."""

    source: ImageSource
    indices: Sequence[int]

    @property
    def name(self) -> str:
        """The source's name."""
        return self.source.name

    @property
    def labels(self) -> Sequence[int] | None:
        """Classes of these images, if the source has any."""
        labels = self.source.labels
        return None if labels is None else [labels[i] for i in self.indices]

    @property
    def classes(self) -> int | None:
        """Number of classes according to the source's labels."""
        return self.source.classes

    @property
    def notes(self) -> Sequence[str]:
        """The source's notes."""
        return self.source.notes

    @property
    def resolution(self) -> int:
        """The source's resolution."""
        return self.source.resolution

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.indices)

    def _theirs(self, indices: Sequence[int]) -> list[int]:
        return [self.indices[i] for i in indices]

    def identity(self) -> dict[str, Any]:
        """Return the source's record plus the digest of the selection."""
        chosen = digest_bytes(repr(list(self.indices)).encode())
        return {**self.source.identity(), "subset": len(self), "subset_digest": chosen}

    def keys(self, indices: Sequence[int]) -> list[str]:
        """Return the images' content keys."""
        return self.source.keys(self._theirs(indices))

    def marks(self, indices: Sequence[int]) -> list[str]:
        """Return what is known of the images without reading them."""
        return self.source.marks(self._theirs(indices))

    def captions(self, indices: Sequence[int]) -> list[str]:
        """Return the images' captions."""
        return self.source.captions(self._theirs(indices))

    def headers(self, indices: Sequence[int]) -> list[Header | None]:
        """Return the images' encodings."""
        return self.source.headers(self._theirs(indices))

    def load(self, indices: Sequence[int], resolution: int) -> Batch:
        """Decode images; the result uses this source's indices."""
        theirs = self._theirs(indices)
        ours = dict(zip(theirs, indices, strict=True))
        batch = self.source.load(theirs, resolution)
        broken = {ours[i]: why for i, why in batch.broken.items()}
        return Batch(batch.images, [ours[i] for i in batch.indices], broken)
