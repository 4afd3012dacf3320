"""One encoded image to RGB pixels: every format's rule in one place.

The rules: EXIF orientation is applied; alpha and palette transparency are composited over white;
16-bit grey is scaled to 8 bit; CMYK is converted; of an animation the first frame is taken.
"""

import io
import logging
import re
import struct
import warnings
import zlib
from collections.abc import Sequence

import numpy as np
from PIL import Image, UnidentifiedImageError

from probe.errors import BrokenImageError
from probe.files import digest_bytes
from probe.images.base import Broken, Header

MOST_PIXELS = 178_956_970  # at which Pillow, too, speaks of a decompression bomb

# Named, because Pillow would try everything it knows: a PostScript file called x.png would start
# Ghostscript.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
MAGIC = re.compile(rb"\x89PNG|\xff\xd8\xff|RIFF....WEBP|BM|II\*\0|MM\0\*|GIF8", re.DOTALL)

# What Pillow's decoders raise on damaged bytes. They parse hostile input in Python and C, so any
# error of parsing, of arithmetic or of memory is to be expected, and the list is broad on purpose.
DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    EOFError,
    ArithmeticError,
    MemoryError,
    AssertionError,
    RuntimeError,
    SystemError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)

TURNS = {  # EXIF orientation → what makes the image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
ORIENTATION, EXIF = 0x0112, 0x8769  # tags
JPEG_IN_TIFF = ("jpeg", "tiff_jpeg", "webp")

_PIL_WARNINGS = ("ignore", None, Warning, re.compile(r"PIL\."), 0)

# Without any handler, Python prints a library's errors to stderr by itself.
logging.getLogger("PIL").addHandler(logging.NullHandler())


def _quiet() -> None:
    """See to it that what Pillow warns of in a damaged file is not printed; the reason is ours.

    Not `warnings.catch_warnings`, which threads undo for one another.
    """
    if warnings.filters[:1] != [_PIL_WARNINGS]:
        warnings.filterwarnings("ignore", module=r"PIL\.")


def _open(data: bytes) -> Image.Image:
    """Open an image without decoding its pixels.

    Raises:
        BrokenImageError: empty, not an image, or too large.
    """
    if not data:
        raise BrokenImageError("empty file")
    _quiet()
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        width, height = image.size
    except Image.DecompressionBombError as error:
        raise BrokenImageError("too many pixels") from error
    except UnidentifiedImageError as error:
        known = MAGIC.match(data)
        raise BrokenImageError(
            "truncated or damaged header" if known else "not an image"
        ) from error
    except DAMAGED as error:
        raise BrokenImageError("truncated or damaged header") from error
    if width * height > MOST_PIXELS:
        raise BrokenImageError(f"too many pixels ({width} x {height})")
    if width < 1 or height < 1:
        raise BrokenImageError("no pixels")
    return image


def decode(data: bytes) -> Image.Image:
    """Decode one image to 8-bit RGB of its own size.

    Args:
        data: the file's bytes.

    Returns:
        A Pillow image of mode RGB, upright.

    Raises:
        BrokenImageError: a short reason: empty file, not an image, truncated or damaged, too many
            pixels, a colour mode that has no RGB.
    """
    image = _open(data)
    try:
        image.load()
    except MemoryError as error:
        raise BrokenImageError("too large for this machine's memory") from error
    except DAMAGED as error:
        raise BrokenImageError("truncated or damaged file") from error
    try:
        turn = TURNS.get(_orientation(image))
        rgb = _to_rgb(image)
        return rgb if turn is None else rgb.transpose(turn)
    except MemoryError as error:
        raise BrokenImageError("too large for this machine's memory") from error
    except DAMAGED as error:
        raise BrokenImageError(f"colour mode {image.mode} cannot be converted") from error


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation; 1, upright, where EXIF is damaged: the pixels are sound."""
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except DAMAGED:
        return 1
    return value if isinstance(value, int) else 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return _wide_grey(image)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        white.alpha_composite(rgba)
        return white.convert("RGB")
    return image.convert("RGB")


def _wide_grey(image: Image.Image) -> Image.Image:
    """Scale grey of more than 8 bits to 8.

    Integers are taken for 16-bit ones and divided by 257. Floats carry no range: it is the
    smallest of 0–1, 0–255 and 0–65535 that holds the largest value; NaN is black.
    """
    values = np.asarray(image)
    if image.mode == "F":
        most = values.max(initial=0, where=np.isfinite(values))
        top = next((t for t in (1.0, 255.0) if most <= t), 65535.0)
        values = np.nan_to_num(values, nan=0, posinf=top, neginf=0).clip(0, top) * (255 / top)
        grey = values.round().astype(np.uint8)
    else:
        grey = ((values.astype(np.int32).clip(0, 65535) + 128) // 257).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")


def read_header(data: bytes) -> Header:
    """Read how an image is encoded, without decoding its pixels.

    Raises:
        BrokenImageError: empty, not an image, or too large.
    """
    image = _open(data)
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
    )


def _has_exif(image: Image.Image) -> bool:
    # A TIFF is made of the same tags as EXIF; only the folder of camera tags is EXIF proper.
    if image.format == "TIFF":
        return EXIF in getattr(image, "tag_v2", {})
    return "exif" in image.info or "Raw profile type exif" in image.info


def _is_lossy(image: Image.Image, data: bytes) -> bool:
    if image.format == "WEBP":
        return not _webp_is_lossless(data)
    if image.format == "TIFF":
        return image.info.get("compression") in JPEG_IN_TIFF
    return image.format in ("JPEG", "MPO")


def _webp_is_lossless(data: bytes) -> bool:
    """Return whether the picture of a WebP file is a VP8L chunk; animations are lossy."""
    position = 12  # after RIFF, the size and WEBP
    while position + 8 <= len(data):
        chunk, size = struct.unpack_from("<4sI", data, position)
        if chunk in (b"VP8L", b"VP8 ", b"ANMF"):
            return chunk == b"VP8L"
        position += 8 + size + size % 2
    return False


# The luminance table of the JPEG standard, annex K.1, whose mean the quality formula scales.
_STANDARD_LUMINANCE = np.array(
    [16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55,
     14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
     18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
     49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99]
)  # fmt: skip


def _jpeg_quality(tables: dict[int, list[int]]) -> int:
    """Return the IJG quality whose luminance table is nearest to the file's."""
    found = np.sort(np.asarray(tables[min(tables)]))
    qualities = np.arange(1, 101)
    scales = np.where(qualities < 50, 5000 // qualities, 200 - 2 * qualities)
    expected = np.clip((_STANDARD_LUMINANCE[None] * scales[:, None] + 50) // 100, 1, 255)
    distance = np.abs(np.sort(expected, axis=1) - found).sum(axis=1)
    return int(qualities[distance.argmin()])


def describe_broken(broken: Sequence[Broken], limit: int = 5) -> str:
    """Return one sentence that counts the skipped images and names the first `limit`."""
    if not broken:
        return "No images were skipped."
    named = "; ".join(f"{b.name} ({b.reason})" for b in broken[:limit])
    more = f"; and {len(broken) - limit} more" if len(broken) > limit else ""
    plural = "image was" if len(broken) == 1 else "images were"
    return f"{len(broken)} {plural} skipped: {named}{more}."
