"""The interface between everything that holds images and everything that reads them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch


@dataclass(frozen=True)
class Broken:
    """An unusable image.

    Attributes:
        name: file name as the user knows it (path below the folder, member of the zip).
        reason: a short clause without a full stop ("truncated file", "not an image").
    """

    name: str
    reason: str


@dataclass(frozen=True)
class Header:
    """How an image is encoded, read without decoding its pixels.

    Attributes:
        format: "PNG", "JPEG", "WEBP", …; None for images that were never encoded, as a generator's.
        size: width and height in pixels, before any EXIF rotation.
        mode: Pillow colour mode, "RGB", "L", "P", "RGBA", "CMYK", …
        jpeg_tables: digest of the JPEG quantisation tables, None for other formats.
        jpeg_quality: estimated IJG quality 1–100, None for other formats.
        has_exif: whether the file carries EXIF data.
        lossy: whether encoding changed the pixels (JPEG, lossy WebP, JPEG inside TIFF).
        profile: name of the colour profile, None if there is none or if it is sRGB.
    """

    format: str | None
    size: tuple[int, int]
    mode: str
    jpeg_tables: str | None = None
    jpeg_quality: int | None = None
    has_exif: bool = False
    lossy: bool = False
    profile: str | None = None


@dataclass(frozen=True)
class Batch:
    """Decoded images from a source.

    Attributes:
        images: uint8 (M, 3, R, R), RGB, 0–255, contiguous.
        indices: the M indices that decoded, in the requested order.
        broken: index → reason, for those that did not decode.
    """

    images: torch.Tensor
    indices: list[int]
    broken: dict[int, Broken]


class ImageSource(Protocol):
    """Anything that holds images: a folder, a zip, a generator.

    Indices run from 0 to `len(source) - 1` in an order that depends only on the content (sorted
    names, seeds), never on the file system.
    """

    @property
    def name(self) -> str:
        """What the user typed, for messages."""
        ...

    @property
    def labels(self) -> Sequence[int] | None:
        """Class index of every image, None if the source has none.

        Read this only if labels are needed, because invalid labels raise here.

        Raises:
            ImagesError: if the source's labels are invalid.
        """
        ...

    @property
    def classes(self) -> int | None:
        """Number of classes according to the labels; None if they do not say.

        Raises:
            ImagesError: if the source's labels are invalid.
        """
        ...

    @property
    def notes(self) -> Sequence[str]:
        """What a reader of results must know about how images were read, as sentences."""
        ...

    def __len__(self) -> int:
        """Return the number of candidates, some of which may turn out broken."""
        ...

    @property
    def resolution(self) -> int:
        """Native side in pixels: a generator's, or the most common short side of files."""
        ...

    def identity(self) -> dict[str, Any]:
        """Return a plain record of the source (kind, path, count, digest if it is cheap)."""
        ...

    def keys(self, indices: Sequence[int]) -> list[str]:
        """Return a content key per image: the same key means the same pixels at equal resolution.

        For files it is the SHA-256 of the file's bytes. `load` decodes the bytes that were hashed,
        or reports the image as broken. An unusable image gets a key that never matches anything
        stored ("unreadable:<name>").
        """
        ...

    def marks(self, indices: Sequence[int]) -> list[str]:
        """Return what is known of each image without reading its contents.

        For a file: its name, size and date, or a checksum that its archive lists. Equal marks mean
        an unchanged file; other marks do not mean other contents. Never raises for a broken image.
        """
        ...

    def captions(self, indices: Sequence[int]) -> list[str]:
        """Return each image's name for a report: its file name, or "seed 17"."""
        ...

    def headers(self, indices: Sequence[int]) -> list[Header | None]:
        """Return each image's encoding, None if the file cannot be read."""
        ...

    def load(self, indices: Sequence[int], resolution: int) -> Batch:
        """Decode images to uint8 (M, 3, resolution, resolution).

        Never raises for a broken image; it is added to `Batch.broken`.
        """
        ...
