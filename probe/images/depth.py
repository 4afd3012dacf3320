"""Scale values of more than 8 bits to 8.

A file does not say which part of its range it uses: cameras put 12 bits into 16, programs 8 bits
into 16 or 32, networks floats from -1 to 1. The extent of a set's values reveals it; see `span_of`.
"""

import io
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from probe.errors import BrokenImageError
from probe.images.encoded import BITS, SAMPLE_FORMAT, open_image, unsupported

# First bytes of files that may have more than 8 bits: 16-bit PNG, TIFF, PNM, JPEG 2000.
MAY_BE_DEEP = re.compile(
    rb"\x89PNG.{8}(?!IHDR)|\x89PNG.{20}\x10|II[*+]\0|MM\0[*+]|P[1-6f]\s|\0\0\0\x0cjP  |\xffO\xffQ",
    re.DOTALL,
)
USUAL_BITS = (8, 10, 12, 14, 16)  # of cameras, scanners and programs
ROWS = 64  # to scale at a time
NAMES = {
    "uint16": "16-bit",
    "uint32": "32-bit",
    "int8": "signed 8-bit",
    "int16": "signed 16-bit",
    "int32": "signed 32-bit",
    "float32": "float",
}

# TIFF tags, and values of those tags and of the sample format.
PHOTOMETRIC, PLANAR = 262, 284
SIGNED, WHITE_IS_ZERO, PLANES = 2, 0, 2

# Pillow's raw modes of 16-bit colour. It keeps only the upper bytes; if read with the opposite byte
# order, it keeps the lower ones.
DEEP_COLOUR = re.compile(r"(RGB|RGBA|RGBX|[RGBA]);16[BLN]")
OTHER_ORDER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
NUMBERS = re.compile(r"([IF];(?:16|32))B?([SF])")  # signed and float ones, in either byte order
GREY_ALPHA, FOUR_BYTES = "LA;16B", "RGBA"  # a pixel is four bytes, which RGBA keeps unchanged
PNM_DEEP = ("RGB", 65535)  # Pillow's arguments for 16-bit colour; with a smaller maximum it scales
JPEG2000_START = b"\xff\x4f\xff\x51"  # of the codestream
JPEG2000_BITS = 42  # offset of the first component's bits, minus 1. ISO/IEC 15444-1, A.5.1


@dataclass(frozen=True)
class Span:
    """The values that map to black and white."""

    low: float
    high: float


@dataclass(frozen=True)
class Extent:
    """The range of some values.

    Attributes:
        low: the smallest.
        high: the largest.
        used: every bit that is set in any of them; 0 for floats.
    """

    low: float
    high: float
    used: int = 0

    def __or__(self, other: "Extent") -> "Extent":
        """Return the range of both together."""
        low, high = min(self.low, other.low), max(self.high, other.high)
        return Extent(low, high, self.used | other.used)


Spans = Mapping[str, Span]  # kind (see `deep_type`) → the span for a set's values of that kind


def deep_type(image: ImageFile) -> str | None:
    """Return the numpy type name of an image's values; None for plain 8-bit ones.

    Args:
        image: opened, not yet loaded.
    """
    if image.mode == "F":
        return "float32"
    if image.format == "TIFF" and image.mode in ("I", "L"):
        is_signed = SIGNED in _tag(image, SAMPLE_FORMAT)
        if image.mode == "L":
            return "int8" if is_signed else None
        return f"{'' if is_signed else 'u'}int{16 if 16 in _tag(image, BITS) else 32}"
    if image.mode.startswith("I"):  # Pillow scales PNM values to 16 bits
        return "uint16"
    return "uint16" if _is_deep_colour(_rawmodes(image)) or _unread(image) else None


def values_of(image: ImageFile, data: bytes) -> np.ndarray:
    """Decode an image of more than 8 bits.

    Args:
        image: opened, not yet loaded.
        data: its bytes.

    Returns:
        (H, W), or (H, W, C) with C = 2 (grey, alpha), 3 (RGB) or 4 (RGBA), of type `deep_type`.

    Raises:
        BrokenImageError: if Pillow gives only the upper bytes of such images.
    """
    if what := _unread(image):
        raise BrokenImageError(unsupported(what))
    kind, rawmodes = deep_type(image), _rawmodes(image)
    if not _is_deep_colour(rawmodes):
        values = _read(data, rawmodes)
        # Pillow turns uint32 and int8 into int32 and uint8.
        return values.view(kind) if kind in ("uint32", "int8") else values.astype(kind, copy=False)
    if rawmodes[0] == GREY_ALPHA:
        pairs = _read(data, [FOUR_BYTES] * len(rawmodes))
        return pairs[..., ::2].astype(np.uint16) << 8 | pairs[..., 1::2]
    low = _read(data, [mode[:-1] + OTHER_ORDER[mode[-1]] for mode in rawmodes])
    values = _read(data, rawmodes).astype(np.uint16) << 8 | low
    return values[..., :3] if image.mode == "RGBX" else values


def extent_of(values: np.ndarray) -> Extent:
    """Return the range of an image's values, excluding alpha and non-finite values."""
    if values.ndim == 3:
        values = values[..., : values.shape[2] - 1 + values.shape[2] % 2]
    if values.dtype.kind != "f":
        used = int(np.bitwise_or.reduce(values, axis=None))
        return Extent(float(values.min()), float(values.max()), used)
    finite = values[np.isfinite(values)]
    return Extent(float(finite.min()), float(finite.max())) if finite.size else Extent(0.0, 0.0)


def span_of(kind: str, extent: Extent) -> Span:
    """Return the values that map to black and white, from the range of a set's values.

    For integers, black is 0 and white the largest value of the smallest usual bit depth that holds
    them, excluding low bits that no value sets, because 8 bits may have been shifted up. For
    floats, black is 0 and white is 1 or the white of integers, with a quarter of overshoot allowed.
    Floats that fill less than a quarter of that range follow no convention and use their own
    maximum. If the minimum is below minus a quarter of the maximum, values are signed and the span
    is centred on 0.
    """
    low, high = extent.low, extent.high
    signed = low < -high / 4
    if np.dtype(kind).kind == "f":
        reach = max(-low, high)
        tops = [1.0, *(2.0 ** (bits - signed) - 1 for bits in USUAL_BITS)]
        top = next((top for top in tops if reach <= 1.25 * top), reach)
        if reach < top / 4:
            top = reach or 1.0
        return Span(-top if signed else 0.0, top)
    info = np.iinfo(kind)
    if signed:
        needed = 1 + max(int(-low - 1), int(max(high, 0))).bit_length()
        usual = {*USUAL_BITS, info.bits}
    else:
        needed, usual = int(high).bit_length(), {*USUAL_BITS, int(info.max).bit_length()}
    # Above 16 bits there is no usual depth, and the next power of two is close enough.
    bits = next((bits for bits in sorted(usual) if needed <= bits <= 16), needed)
    step = extent.used & -extent.used or 1
    bottom = -(2.0 ** (bits - 1)) if signed else 0.0
    return Span(bottom, bottom + 2.0**bits - step)


def to_8_bits(image: ImageFile, data: bytes, spans: Spans) -> Image.Image:
    """Decode an image of more than 8 bits and scale it to 8.

    Args:
        image: opened, not yet loaded.
        data: its bytes.
        spans: of its set; an image of a kind not in it is scaled by its own values.

    Returns:
        An image of mode L, LA, RGB or RGBA. NaN becomes black.
    """
    kind = deep_type(image)
    assert kind is not None
    values = values_of(image, data)
    span = spans.get(kind) or span_of(kind, extent_of(values))
    scaled = np.empty(values.shape, np.uint8)
    for start in range(0, len(values), ROWS):  # all at once, float64 would take eight times this
        part = slice(start, start + ROWS)
        scaled[part] = _scale(values[part], span)
    if values.ndim == 3 and values.shape[2] % 2 == 0:
        alpha = values[..., -1]  # it may fill all 16 bits even if the colours do not
        scaled[..., -1] = _scale(alpha, span if alpha.max() <= span.high else Span(0, 65535))
    if image.format == "TIFF" and values.ndim == 2 and WHITE_IS_ZERO in _tag(image, PHOTOMETRIC):
        scaled = 255 - scaled
    return Image.fromarray(scaled)


def key_suffix(data: bytes, spans: Spans) -> str:
    """Return what a file's content key needs besides its digest, if the set determines its scaling.

    Args:
        data: the file's bytes.
        spans: of its set.

    Returns:
        "" for an 8-bit image, and for anything that is not an image.
    """
    if not MAY_BE_DEEP.match(data):
        return ""
    try:
        kind = deep_type(open_image(data))
    except BrokenImageError:
        return ""
    if kind is None:
        return ""
    return f":{spans[kind].low!r}:{spans[kind].high!r}" if kind in spans else ":own"


def _scale(values: np.ndarray, span: Span) -> np.ndarray:
    """Return values scaled to 0 to 255, uint8."""
    with np.errstate(invalid="ignore"):  # some kinds of NaN cause a warning
        values = np.nan_to_num(values.astype(np.float64), nan=span.low).clip(span.low, span.high)
    return ((values - span.low) * (255 / (span.high - span.low))).round().astype(np.uint8)


def _tag(image: ImageFile, tag: int) -> tuple[object, ...]:
    """Return the values of a TIFF tag."""
    assert isinstance(image, TiffImageFile)
    found = image.tag_v2.get(tag, ())
    return found if isinstance(found, tuple) else (found,)


def _is_deep_colour(rawmodes: Sequence[str]) -> bool:
    return bool(rawmodes) and all(m == GREY_ALPHA or DEEP_COLOUR.fullmatch(m) for m in rawmodes)


def _rawmodes(image: ImageFile) -> list[str]:
    """Return how each tile's samples are packed, corrected for Pillow's mistakes."""
    tiles = getattr(image, "tile", ())
    modes = [_rawmode(tile.args) for tile in tiles]
    if image.format == "PPM" and tiles and tiles[0].args == PNM_DEEP:
        return ["RGB;16B"]
    if image.format != "TIFF" or not tiles:
        return modes
    if _is_packed(image):  # libtiff returns this machine's byte order, not the file's
        return [NUMBERS.sub(r"\1N\2", mode) for mode in modes]
    if 16 in _tag(image, BITS):  # planes, which Pillow takes for 8-bit ones
        assert isinstance(image, TiffImageFile)
        order = "L" if image.tag_v2.prefix == b"II" else "B"
        return [f"{mode};16{order}" if mode in tuple("RGBA") else mode for mode in modes]
    return modes


def _unread(image: ImageFile) -> str | None:
    """Return a description of an image whose 16-bit colours Pillow reduces to the upper bytes."""
    if image.format == "JPEG2000":  # Pillow also rounds values just below white up to black
        deep = not image.mode.startswith("I") and _jpeg2000_bits(image) > 8
        return "JPEG 2000 of 16-bit colours" if deep else None
    if not _is_deep_colour(_rawmodes(image)):
        return None
    if image.format == "PPM" and image.tile[0].codec_name == "ppm_plain":
        return "PPM of 16-bit colours as text"
    if image.format == "TIFF" and PLANES in _tag(image, PLANAR) and _is_packed(image):
        return "TIFF of 16-bit colours in compressed planes"
    return None


def _jpeg2000_bits(image: ImageFile) -> int:
    """Return the number of bits of a JPEG 2000 file's first channel; 0 if it does not say."""
    assert isinstance(image.fp, io.BytesIO)  # see `open_image`
    data = image.fp.getvalue()
    start = data.find(JPEG2000_START)
    return (data[start + JPEG2000_BITS] & 0x7F) + 1 if 0 <= start < len(data) - JPEG2000_BITS else 0


def _is_packed(image: ImageFile) -> bool:
    """Return whether libtiff decodes a TIFF."""
    return image.tile[0].codec_name == "libtiff"


def _rawmode(args: object) -> str:
    first = args[0] if isinstance(args, tuple) and args else args
    return first if isinstance(first, str) else ""


def _read(data: bytes, rawmodes: Sequence[str]) -> np.ndarray:
    """Decode an image with its tiles packed as given, ignoring Pillow's own guess."""
    image = open_image(data)
    image.tile = [
        tile if mode == _rawmode(tile.args) else _repacked(tile, mode)
        for tile, mode in zip(image.tile, rawmodes, strict=True)
    ]
    return np.asarray(image)


def _repacked(tile: Any, mode: str) -> Any:
    if tile.codec_name == "ppm":
        return tile._replace(codec_name="raw", args=mode)
    args = mode if isinstance(tile.args, str) else (mode, *tile.args[1:])
    return tile._replace(args=args)
