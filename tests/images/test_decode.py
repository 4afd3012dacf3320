"""Every format and mode reaches the same RGB pixels; hostile bytes reach a plain error."""

import contextlib
import io
import logging
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from probe.errors import BrokenImageError
from probe.images.base import Header
from probe.images.decode import decode
from probe.images.header import read_header
from probe.images.resize import to_square

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (16, 24, 3), dtype=np.uint8)


def encode(image, form, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=form, **options)
    return buffer.getvalue()


def pixels(data: bytes) -> np.ndarray:
    image = decode(data)
    assert image.mode == "RGB"
    return np.asarray(image)


@pytest.mark.parametrize(
    ("form", "options"),
    [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("WEBP", {"lossless": True})],
)
def test_lossless_formats_are_exact(form, options):
    np.testing.assert_array_equal(pixels(encode(Image.fromarray(PIXELS), form, **options)), PIXELS)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 30}])
def test_jpeg_equals_pillow(options):
    data = encode(Image.fromarray(PIXELS), "JPEG", **options)
    np.testing.assert_array_equal(pixels(data), np.asarray(Image.open(io.BytesIO(data))))


def test_grey_is_repeated():
    grey = PIXELS[:, :, 0]
    np.testing.assert_array_equal(pixels(encode(Image.fromarray(grey), "PNG"))[:, :, 2], grey)


def test_sixteen_bit_grey_is_scaled_not_clipped():
    wide = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    found = pixels(encode(Image.fromarray(wide), "PNG"))
    np.testing.assert_array_equal(found[:, :, 0].ravel(), np.arange(256))


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_every_sixteen_bit_grey_rounds_to_the_nearest(form):
    wide = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    found = pixels(encode(Image.fromarray(wide), form))[:, :, 0]
    np.testing.assert_array_equal(found, np.round(wide / 257.0).astype(np.uint8))


def sixteen_bit_rgb(values: np.ndarray) -> bytes:
    """Encode uint16 (H, W, 3) as PNG, which Pillow cannot write."""
    height, width, _ = values.shape

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_sixteen_bit_colour():
    data = sixteen_bit_rgb(PIXELS.astype(np.uint16) * 257)
    np.testing.assert_array_equal(pixels(data), PIXELS)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0, np.nan], [0, 128, 255, 0]),
        ([-1.0, 100.0, 255.0, np.inf], [0, 100, 255, 255]),
        ([0.0, 257.0, 65535.0, -np.inf], [0, 1, 255, 0]),
    ],
)
def test_float_tiff_in_the_range_it_fits(values, expected):
    image = Image.fromarray(np.array([values], dtype=np.float32))
    assert pixels(encode(image, "TIFF"))[0, :, 0].tolist() == expected


def test_lab_tiff_is_converted():
    white = pixels(encode(Image.new("LAB", (4, 4), (255, 128, 128)), "TIFF"))
    assert white.min() > 250


def test_a_mode_that_cannot_be_converted_is_named(monkeypatch):
    def convert(image, mode):
        raise ValueError(f"conversion from {image.mode} to {mode} not supported")

    data = encode(Image.fromarray(PIXELS).convert("L"), "PNG")
    monkeypatch.setattr(Image.Image, "convert", convert)
    with pytest.raises(BrokenImageError, match="colour mode L cannot be converted"):
        decode(data)


def test_alpha_goes_over_white():
    rgba = np.zeros((2, 2, 4), np.uint8)
    rgba[0, 0] = (255, 0, 0, 255)
    rgba[0, 1] = (0, 0, 0, 128)
    found = pixels(encode(Image.fromarray(rgba), "PNG"))
    assert found[0, 0].tolist() == [255, 0, 0]
    assert abs(int(found[0, 1, 0]) - 127) <= 1
    assert found[1, 1].tolist() == [255, 255, 255]


def test_palette_with_transparency_and_gif_first_frame():
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 9, 8, 7] + [0] * 762)
    assert pixels(encode(palette, "PNG"))[0, 0].tolist() == [9, 8, 7]
    assert pixels(encode(palette, "PNG", transparency=1))[0, 0].tolist() == [255, 255, 255]
    frames = [Image.new("RGB", (4, 4), c) for c in ("red", "blue")]
    gif = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert pixels(gif)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("mode", ["1", "L"])
def test_transparent_grey_goes_over_white(mode):
    data = encode(Image.new(mode, (4, 4), 0), "PNG", transparency=0)
    assert pixels(data)[0, 0].tolist() == [255, 255, 255]
    data = encode(Image.new("LA", (4, 4), (0, 0)), "PNG")
    assert pixels(data)[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("form", ["JPEG", "TIFF"])
def test_cmyk_of_adobe_and_plain(form):
    # Pillow writes CMYK JPEG inverted with Adobe's marker, TIFF as it is: both must come out red.
    data = encode(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), form)
    assert (b"Adobe" in data) == (form == "JPEG")
    found = pixels(data)[0, 0]
    assert found[0] > 200 and found[1] < 60 and found[2] < 60


@pytest.mark.parametrize(
    ("form", "options"),
    [("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True}), ("JPEG", {"quality": 100})],
)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation, form, options):
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :16] = 255  # whole blocks of one colour: exact in JPEG as well
    undo = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    stored = Image.fromarray(upright)
    stored = stored if undo is None else stored.transpose(undo)
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(pixels(encode(stored, form, exif=exif, **options)), upright)


def test_damaged_exif_leaves_the_image_usable():
    data = encode(Image.fromarray(PIXELS), "PNG", exif=b"Exif\0\0neither II nor MM")
    with pytest.raises(SyntaxError):
        Image.open(io.BytesIO(data)).getexif()
    np.testing.assert_array_equal(pixels(data), PIXELS)


def test_a_bomb_is_refused_from_its_header():
    data = bytearray(encode(Image.new("L", (8, 8)), "PNG"))
    data[16:24] = struct.pack(">II", 60_000, 60_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    with pytest.raises(BrokenImageError, match="too many pixels"):
        decode(bytes(data))
    with pytest.raises(BrokenImageError):
        read_header(bytes(data))


def test_the_limit_of_pixels_does_not_hang_on_pillows_own(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # as other libraries do
    data = bytearray(encode(Image.new("L", (8, 8)), "BMP"))
    data[18:26] = struct.pack("<ii", 60_000, 60_000)
    with pytest.raises(BrokenImageError, match="too many pixels"):
        decode(bytes(data))


FORMS = ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("part", [0.01, 0.1, 0.3, 0.5, 0.8, 0.9])
def test_truncated_files_are_broken(form, part):
    large = RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encode(Image.fromarray(large), form)
    with pytest.raises(BrokenImageError, match="truncated|damaged"):
        decode(data[: int(len(data) * part)])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"hello", "not an image"),
        (b"<!DOCTYPE html><html></html>", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "not an image"),
        (b"\x89PNG\r\n\x1a\n", "truncated or damaged header"),
    ],
)
def test_what_is_no_image_says_so(data, reason):
    for read in (decode, read_header):
        with pytest.raises(BrokenImageError) as caught:
            read(data)
        assert str(caught.value) == reason


def test_damaged_files_print_and_warn_nothing(capfd, monkeypatch):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # pytest's own, which would swallow it
    wide = encode(Image.fromarray(PIXELS), "TIFF", exif=Image.Exif())
    samples = bytearray(wide)
    at = samples.index(struct.pack("<HHI", 277, 3, 1))
    samples[at + 8 : at + 10] = struct.pack("<H", 60_000)  # Pillow logs this as an error
    palette = Image.new("P", (4, 4), 1)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with pytest.raises(BrokenImageError):
            decode(bytes(samples))
        for length in range(0, len(wide), 3):
            with contextlib.suppress(BrokenImageError):
                decode(wide[:length])
        decode(encode(palette, "PNG", transparency=bytes([0, 9])))
        decode(encode(Image.new("1", (10_000, 9_000)), "PNG"))  # large enough for Pillow to warn
    assert [str(w.message) for w in seen] == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("form", FORMS)
def test_mutated_files_never_raise_anything_else(form, monkeypatch):
    # Claimed sizes below the real limit would only cost the test time and memory.
    monkeypatch.setattr("probe.images.encoded.MOST_PIXELS", 1_000_000)
    rng = np.random.default_rng(1)
    original = encode(Image.fromarray(PIXELS), form)
    for _ in range(200):
        data = bytearray(original)
        for position in rng.integers(0, len(data), rng.integers(1, 6)):
            data[position] = rng.integers(0, 256)
        for read in (decode, read_header):
            with contextlib.suppress(BrokenImageError):
                read(bytes(data))


def test_jpeg_quality_is_found():
    headers = {
        q: read_header(encode(Image.fromarray(PIXELS), "JPEG", quality=q)) for q in range(30, 96)
    }
    assert {q: h.jpeg_quality for q, h in headers.items()} == {q: q for q in headers}
    assert len({h.jpeg_tables for h in headers.values()}) == len(headers)
    assert headers[50].format == "JPEG" and headers[50].size == (24, 16) and headers[50].lossy


def test_header_does_not_decode_pixels():
    data = encode(Image.fromarray(PIXELS), "PNG")
    header = read_header(data[: data.index(b"IDAT") + 8])
    assert header == Header("PNG", (24, 16), "RGB")


@pytest.mark.parametrize(
    ("form", "options", "lossy"),
    [
        ("PNG", {}, False),
        ("GIF", {}, False),
        ("WEBP", {"lossless": True}, False),
        ("WEBP", {"lossless": True, "exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0"}, False),
        ("WEBP", {"lossless": True, "icc_profile": b"odd"}, False),  # chunks are padded to even
        ("WEBP", {"quality": 80}, True),
        ("TIFF", {"compression": "tiff_lzw"}, False),
        ("TIFF", {"compression": "jpeg"}, True),
        ("JPEG", {}, True),
    ],
)
def test_header_tells_lossy_from_lossless(form, options, lossy):
    assert read_header(encode(Image.fromarray(PIXELS), form, **options)).lossy is lossy


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_exif_is_noticed_only_where_it_is(form):
    exif = Image.Exif()
    exif[0x010F] = "maker"
    options = {"exif": exif}
    if form == "TIFF":  # all of a TIFF is tags; those of a camera lie in a folder of their own
        options = {"tiffinfo": {0x8769: {0x9003: "2020:01:01 00:00:00"}}}
    assert read_header(encode(Image.fromarray(PIXELS), form, **options)).has_exif
    assert not read_header(encode(Image.fromarray(PIXELS), form)).has_exif


def test_square_crop_is_central_and_equal_size_is_untouched():
    image = Image.fromarray(PIXELS)
    np.testing.assert_array_equal(to_square(image, 16), PIXELS[:, 4:20])
    assert to_square(image, 8).shape == (8, 8, 3)
    assert to_square(image, 32).shape == (32, 32, 3)
    assert to_square(image, 16).flags.writeable  # torch warns of arrays that are not


def test_resize_is_antialiased():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    assert np.abs(to_square(Image.fromarray(stripes), 8).astype(int) - 128).max() < 12


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (7, 5)])
def test_any_shape_becomes_a_square(size):
    assert (to_square(Image.new("RGB", size, (9, 8, 7)), 16) == (9, 8, 7)).all()
