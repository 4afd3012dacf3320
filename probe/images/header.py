"""Read how an image is encoded, without decoding its pixels."""

import struct

import numpy as np
from PIL.ImageFile import ImageFile

from probe.files import digest_bytes
from probe.images.base import Header
from probe.images.encoded import open_image
from probe.images.profile import profile_name

EXIF = 0x8769  # tag
JPEG_IN_TIFF = ("jpeg", "tiff_jpeg", "webp")


def read_header(data: bytes) -> Header:
    """Read how an image is encoded, without decoding its pixels.

    Raises:
        BrokenImageError: as in `open_image`.
    """
    image = open_image(data)
    tables: dict[int, list[int]] = getattr(image, "quantization", None) or {}
    flat = [value for key in sorted(tables) for value in tables[key]]
    return Header(
        format="JPEG" if image.format == "MPO" else image.format,
        size=image.size,
        mode=image.mode,
        jpeg_tables=digest_bytes(repr(flat).encode())[:16] if flat else None,
        jpeg_quality=_jpeg_quality(tables) if flat else None,
        has_exif=_has_exif(image),
        lossy=_is_lossy(image, data),
        profile=profile_name(image.info.get("icc_profile")),
    )


def _has_exif(image: ImageFile) -> bool:
    # TIFF uses the same tags as EXIF; only the directory of camera tags is EXIF proper.
    if image.format == "TIFF":
        return EXIF in getattr(image, "tag_v2", {})
    return "exif" in image.info or "Raw profile type exif" in image.info


def _is_lossy(image: ImageFile, data: bytes) -> bool:
    if image.format == "WEBP":
        return not _webp_is_lossless(data)
    if image.format == "TIFF":
        return image.info.get("compression") in JPEG_IN_TIFF
    if image.format == "JPEG2000":
        return not _jpeg2000_is_reversible(data)
    return image.format in ("JPEG", "MPO", "AVIF")  # AVIF can be lossless but rarely is


def _webp_is_lossless(data: bytes) -> bool:
    """Return whether a WebP's image data is a VP8L chunk; animations count as lossy."""
    position = 12  # after RIFF, the size and WEBP
    while position + 8 <= len(data):
        chunk, size = struct.unpack_from("<4sI", data, position)
        if chunk in (b"VP8L", b"VP8 ", b"ANMF"):
            return chunk == b"VP8L"
        position += 8 + size + size % 2
    return False


def _jpeg2000_is_reversible(data: bytes) -> bool:
    """Return whether a JPEG 2000 file names the reversible wavelet. ISO/IEC 15444-1, A.6.1."""
    start = data.find(b"\xff\x52")  # the coding style's marker; its segment ends in the wavelet
    return start >= 0 and data[start + 13 : start + 14] == b"\1"


# The luminance table from the JPEG standard, annex K.1; the quality formula scales its mean.
_STANDARD_LUMINANCE = np.array(
    [16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55,
     14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
     18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
     49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99]
)  # fmt: skip


def _jpeg_quality(tables: dict[int, list[int]]) -> int:
    """Return the IJG quality whose luminance table is closest to the file's."""
    found = np.sort(np.asarray(tables[min(tables)]))
    qualities = np.arange(1, 101)
    scales = np.where(qualities < 50, 5000 // qualities, 200 - 2 * qualities)
    expected = np.clip((_STANDARD_LUMINANCE[None] * scales[:, None] + 50) // 100, 1, 255)
    distance = np.abs(np.sort(expected, axis=1) - found).sum(axis=1)
    return int(qualities[distance.argmin()])
