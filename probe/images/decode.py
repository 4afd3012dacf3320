"""Decode an encoded image to RGB pixels, with every format's rules in one place.

EXIF orientation is applied. Alpha and palette transparency are composited over white. Values of
more than 8 bits are scaled to 8 (`depth`). CMYK is converted. Colour profiles are not applied. An
animation yields its first frame.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import MappingProxyType

import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile

from probe.errors import BrokenImageError
from probe.images.base import Broken
from probe.images.depth import Extent, Spans, deep_type, extent_of, to_8_bits, values_of
from probe.images.encoded import DAMAGED, FORMATS, UNSUPPORTED, open_image, unsupported
from probe.images.limits import DECODED, TOO_LARGE
from probe.images.resize import to_square

NO_SPANS: Spans = MappingProxyType({})

TURNS = {  # EXIF orientation → the transpose that makes the image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
ORIENTATION = 0x0112  # tag

# Maximum bytes per pixel for decoding, besides what a codec needs (`Format.codec`): the decoded
# image and its central square, then extras for some images. Measured; tests/attack measures them
# again.
PLAIN, TURNED, CMYK, TRANSPARENT, DEEP = 8, 4, 4, 12, 16
PROGRESSIVE = 6  # for a JPEG, which keeps all coefficients at any decoding scale
SCALES = (1, 2, 4, 8)  # at which a JPEG can be decoded


def decode(data: bytes, spans: Spans = NO_SPANS) -> Image.Image:
    """Decode one image to 8-bit RGB at its own size.

    Args:
        data: the file's bytes.
        spans: the meaning of values of more than 8 bits in the set; derived from this image by
            default.

    Returns:
        A Pillow image of mode RGB, upright.

    Raises:
        BrokenImageError: with a short reason: empty file, not an image, truncated or damaged, of a
            kind that Pillow does not read, too large.
    """
    image = open_image(data)
    with _room_for(image):
        return _upright_rgb(image, data, spans)


def decode_square(data: bytes, resolution: int, spans: Spans = NO_SPANS) -> np.ndarray:
    """Decode one image and make it square; see `decode` and `to_square`.

    Returns:
        uint8 (resolution, resolution, 3).

    Raises:
        BrokenImageError: as in `decode`.
    """
    image = open_image(data)
    with _room_for(image), _failures_named(lambda _: "cannot be resized"):
        return to_square(_upright_rgb(image, data, spans), resolution)


def deep_values(data: bytes) -> tuple[str, Extent] | None:
    """Decode one image and return its extent if its values have more than 8 bits.

    Returns:
        The kind of its values (`deep_type`), and their extent; None for an 8-bit image.

    Raises:
        BrokenImageError: as in `decode`.
    """
    image = open_image(data)
    kind = deep_type(image)
    if kind is None:
        return None
    with _room_for(image), _failures_named(_why_undecoded):
        return kind, extent_of(values_of(image, data))


@contextmanager
def _room_for(image: ImageFile) -> Iterator[None]:
    """Reserve the memory for decoding an image; scale down a JPEG that is too large.

    Raises:
        BrokenImageError: if it would exceed the limit for all threads together.
    """
    scales = SCALES if image.format in ("JPEG", "MPO") else SCALES[:1]
    scale, cost = 1, 0
    for scale in scales:
        cost = _cost(image, scale)
        if cost <= DECODED.most:
            break
    width, height = image.size
    if cost > DECODED.most:
        raise BrokenImageError(
            f"{width} x {height} pixels would take {cost / 2**30:.1f} GiB to decode, "
            f"{DECODED.most / 2**30:g} GiB is allowed; save it smaller"
        )
    if scale > 1:
        image.draft(None, (width // scale, height // scale))
    with DECODED.take(cost):
        yield


def _cost(image: ImageFile, scale: int) -> int:
    """Return the maximum bytes for decoding an image that is not decoded yet."""
    form = FORMATS.get(image.format or "")
    each = PLAIN + (form.codec if form else 0)
    if image.format == "TIFF" or ("exif" in image.info and _orientation(image) in TURNS):
        each += TURNED
    if image.mode == "CMYK":
        each += CMYK
    if image.has_transparency_data:
        each += TRANSPARENT
    if deep_type(image) is not None:
        each += DEEP
    width, height = image.size
    kept = PROGRESSIVE if image.info.get("progressive") else 0
    return width * height * kept + -(-width // scale) * -(-height // scale) * each


@contextmanager
def _failures_named(reason: Callable[[Exception], str]) -> Iterator[None]:
    """Turn Pillow's errors on damaged or rare files, and lack of memory, into a reason.

    Raises:
        BrokenImageError: if the body raises one.
    """
    try:
        yield
    except MemoryError as error:
        raise BrokenImageError(TOO_LARGE) from error
    except DAMAGED as error:
        raise BrokenImageError(reason(error)) from error


def _why_undecoded(error: Exception) -> str:
    said = str(error)
    if UNSUPPORTED.search(said):
        return unsupported("a rare kind of file", said)
    return "truncated or damaged file"


def _upright_rgb(image: ImageFile, data: bytes, spans: Spans) -> Image.Image:
    with _failures_named(_why_undecoded):
        if deep_type(image) is not None:
            narrow = to_8_bits(image, data, spans)
        else:
            image.load()
            narrow = image
    with _failures_named(lambda _: f"colour mode {image.mode} cannot be converted"):
        turn = TURNS.get(_orientation(image))
        rgb = _to_rgb(narrow)
        return rgb if turn is None else rgb.transpose(turn)


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation; 1 (upright) if EXIF is damaged, because the pixels are fine."""
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except DAMAGED:
        return 1
    return value if isinstance(value, int) else 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        rgba = image if image.mode == "RGBA" else image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def describe_broken(broken: Sequence[Broken]) -> str:
    """Return a sentence that counts the skipped images and names some of them, by reason."""
    if not broken:
        return "No images were skipped."
    plural = "image was" if len(broken) == 1 else "images were"
    return f"{len(broken)} {plural} skipped: {name_broken(broken)}."


def name_broken(broken: Sequence[Broken], reasons: int = 5, names: int = 3) -> str:
    """Return why images are unusable: the first few reasons, with the first images of each."""
    by_reason: dict[str, list[str]] = {}
    for b in broken:
        by_reason.setdefault(b.reason, []).append(b.name)
    parts = []
    for reason, having in list(by_reason.items())[:reasons]:
        more = f" and {len(having) - names} more" if len(having) > names else ""
        parts.append(f"{', '.join(having[:names])}{more} ({reason})")
    left = sum(len(having) for having in list(by_reason.values())[reasons:])
    return "; ".join([*parts, *([f"and {left} more"] if left else [])])
