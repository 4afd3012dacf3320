"""Supported formats, and opening an encoded image without decoding its pixels."""

import ctypes
import io
import logging
import re
import struct
import warnings
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from PIL import Image, TiffImagePlugin
from PIL.ImageFile import ImageFile

from probe.errors import BrokenImageError, printable


@dataclass(frozen=True)
class ImageFormat:
    """A format that Pillow reads.

    Attributes:
        suffixes: of its files, in lower case.
        magic: a regular expression for their first bytes.
        codec: bytes per pixel that its decoder needs besides the decoded image.
    """

    suffixes: tuple[str, ...]
    magic: bytes
    codec: int = 0

    def matches(self, start: bytes) -> bool:
        """Return whether a file with these first bytes has this format."""
        return re.match(self.magic, start, re.DOTALL) is not None


# By Pillow's names, to restrict it to these: otherwise a PostScript file named x.png would start
# Ghostscript. A file's first bytes decide, not its suffix.
FORMATS: dict[str, ImageFormat] = {
    "PNG": ImageFormat((".png", ".apng"), rb"\x89PNG"),
    "JPEG": ImageFormat((".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".mpo"), rb"\xff\xd8\xff"),
    "WEBP": ImageFormat((".webp",), rb"RIFF....WEBP", codec=10),
    "AVIF": ImageFormat((".avif", ".avifs"), rb"....ftypavi[fs]", codec=4),
    "GIF": ImageFormat((".gif",), rb"GIF8[79]a"),
    "BMP": ImageFormat((".bmp",), rb"BM"),
    "TIFF": ImageFormat((".tif", ".tiff"), rb"II[*+]\0|MM\0[*+]"),
    "JPEG2000": ImageFormat(
        (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
        rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51",
        codec=12,
    ),
    "PPM": ImageFormat((".ppm", ".pgm", ".pbm", ".pnm", ".pfm"), rb"P[1-6f]\s", codec=4),
}
# Images that people expect to work, but Pillow cannot read.
OTHERS: Mapping[str, re.Pattern[bytes]] = {
    name: re.compile(start, re.DOTALL)
    for name, start in {
        "HEIC": rb"....ftyp(hei[cmsx]|hev[cmsx]|mif1|msf1)",
        "JPEG XL": rb"\xff\x0a|\0\0\0\x0cJXL ",
        "OpenEXR": rb"v/1\x01",
        "Radiance": rb"#\?(RADIANCE|RGBE)",
        "Photoshop": rb"8BPS",
        "SVG": rb"\s*(<\?xml[^>]*>\s*)?<svg",
        "PDF": rb"%PDF",
        "colour PFM": rb"PF\s",
    }.items()
}
DAMAGED_HEADER = "truncated or damaged header"
LONGEST_MAGIC = 64  # bytes needed to identify a file

MOST_PIXELS = 178_956_970  # Pillow's own limit for a decompression bomb

# What Pillow's decoders raise on damaged bytes. They parse hostile input in Python and C, so any
# parsing, arithmetic or memory error is possible, and the list is broad on purpose.
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
# How Pillow reports intact files that it cannot decode.
UNSUPPORTED = re.compile(r"unsupported|unknown|cannot handle|not supported|not available", re.I)

# TIFF tags, and names for its sample formats.
BITS, SAMPLE_FORMAT, CHANNELS, COMPRESSION = 258, 339, 277, 259
SAMPLES = {1: "unsigned", 2: "signed", 3: "float", 5: "complex", 6: "complex"}

_PIL_WARNINGS = ("ignore", None, Warning, re.compile(r"PIL\."), 0)

# Without a handler, Python prints a library's errors to stderr.
logging.getLogger("PIL").addHandler(logging.NullHandler())


def _silence_libtiff() -> None:
    """Stop libtiff from printing messages about damaged files; Pillow's errors are enough.

    Pillow silences only its warnings. If libtiff is built into Pillow's own file, as on Windows,
    it cannot be reached.
    """
    set_handler = getattr(ctypes.CDLL(Image.core.__file__), "TIFFSetErrorHandler", None)
    if set_handler is not None:
        set_handler.argtypes, set_handler.restype = [ctypes.c_void_p], ctypes.c_void_p
        set_handler(None)


_silence_libtiff()


def is_suffix(suffix: str) -> bool:
    """Return whether a supported format has this suffix, given in lower case."""
    return any(suffix in form.suffixes for form in FORMATS.values())


def is_image(start: bytes) -> bool:
    """Return whether a file with these first bytes has a supported format."""
    return any(form.matches(start) for form in FORMATS.values())


def open_image(data: bytes) -> ImageFile:
    """Open an image without decoding its pixels.

    Args:
        data: the file's bytes.

    Raises:
        BrokenImageError: if it is empty, not an image, damaged, of a kind that Pillow does not
            read, or has too many pixels.
    """
    if not data:
        raise BrokenImageError("empty file")
    _quiet()
    try:
        image = Image.open(io.BytesIO(data), formats=tuple(FORMATS))
        width, height = image.size
    except Image.DecompressionBombError as error:
        raise BrokenImageError("too many pixels") from error
    except DAMAGED as error:  # includes UnidentifiedImageError
        raise BrokenImageError(_why_refused(data, error)) from error
    if width * height > MOST_PIXELS:
        raise BrokenImageError(f"too many pixels ({width} x {height})")
    if width < 1 or height < 1:
        raise BrokenImageError("no pixels")
    return image


def unsupported(what: str, said: str = "") -> str:
    """Return the reason for skipping an intact image, with what to do about it.

    Args:
        what: the kind of file.
        said: Pillow's own message.
    """
    why = f": {printable(said, 60)}" if said else ""
    return f"{what}, which Pillow does not read{why}; save it as an 8-bit PNG"


def _quiet() -> None:
    """Stop Pillow from printing warnings about damaged files; we report our own reason.

    `warnings.catch_warnings` is not an option, because threads undo each other's.
    """
    if warnings.filters[:1] != [_PIL_WARNINGS]:
        warnings.filterwarnings("ignore", module=r"PIL\.")


def _why_refused(data: bytes, error: Exception) -> str:
    """Return why Pillow did not open a file: not an image, damaged, or of a rare kind."""
    for name, magic in OTHERS.items():
        if magic.match(data):
            return unsupported(name)
    name = next((name for name, form in FORMATS.items() if form.matches(data)), None)
    if name is None:
        return "not an image"
    if name == "TIFF":  # its reader says the same about rare kinds and damaged tags
        samples = _tiff_samples(data)
        return unsupported(f"TIFF of {samples}") if samples else DAMAGED_HEADER
    said = _plugin_says(name, data) or str(error)
    if UNSUPPORTED.search(said):
        return unsupported(f"{name} of a rare kind", said)
    return DAMAGED_HEADER


def _plugin_says(name: str, data: bytes) -> str:
    """Return the error of one format's reader, which `Image.open` hides."""
    try:
        Image.OPEN[name][0](io.BytesIO(data), "")
    except DAMAGED as error:
        return str(error)
    return ""


def _tiff_samples(data: bytes) -> str | None:
    """Return the type of a TIFF's samples, None if its tags are damaged."""
    try:
        stream = io.BytesIO(data)
        head = stream.read(16 if data[2:4] in (b"+\0", b"\0+") else 8)  # BigTIFF or TIFF
        tags = TiffImagePlugin.ImageFileDirectory_v2(head)
        stream.seek(tags.next)
        tags.load(stream)
        bits, kinds = set(tags[BITS]), set(tags.get(SAMPLE_FORMAT, (1,)))
        channels, compression = tags.get(CHANNELS, 1), tags.get(COMPRESSION, 1)
    except DAMAGED:
        return None
    if not all(type(value) is int for value in (*bits, *kinds, channels, compression)):
        return None
    if len(bits) != 1 or len(kinds) != 1 or not kinds <= SAMPLES.keys():
        return None
    known = compression in TiffImagePlugin.COMPRESSION_INFO
    samples = f"{channels} x {bits.pop()}-bit {SAMPLES[kinds.pop()]} values"
    return samples if known else f"{samples} in compression {compression}"
