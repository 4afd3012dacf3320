"""Pictures of more than 8 bits come out as their 8-bit copies, whatever range they use."""

import warnings

import numpy as np
import pytest
from pictures import encode, pfm, png16, pnm, tiff
from PIL import Image

from probe.errors import BrokenImageError
from probe.images.decode import decode, deep_values
from probe.images.depth import Extent, Span, span_of
from probe.images.open import open_images

RNG = np.random.default_rng(3)
GREY = [RNG.integers(0, 256, (12, 16), dtype=np.uint8) for _ in range(6)]
COLOUR = [RNG.integers(0, 256, (12, 16, 3), dtype=np.uint8) for _ in range(6)]


def wide(values: np.ndarray, top: int) -> np.ndarray:
    """Return 8-bit values as they are when 255 is called `top`."""
    return np.round(values * (top / 255.0))


def with_alpha(values: np.ndarray, alpha: int) -> np.ndarray:
    values = np.atleast_3d(values)
    return np.concatenate([values, np.full_like(values[..., :1], alpha)], axis=2)


VARIANTS = {  # what the same grey pictures are stored as
    "16 bits": lambda v: png16(wide(v, 65535)),
    "16 bits, TIFF": lambda v: tiff(wide(v, 65535).astype(np.uint16)),
    "16 bits, TIFF, big-endian": lambda v: tiff(wide(v, 65535).astype(np.uint16), order=">"),
    "16 bits, packed": lambda v: tiff(wide(v, 65535).astype(np.uint16), packed=True),
    "16 bits, white is zero": lambda v: tiff(
        (65535 - wide(v, 65535)).astype(np.uint16), white_is_zero=True
    ),
    "16 bits, PGM": lambda v: pnm(wide(v, 65535), 65535),
    "12 bits, PGM": lambda v: pnm(wide(v, 4095), 4095),
    "16 bits, JPEG 2000": lambda v: encode(
        Image.fromarray(wide(v, 65535).astype(np.uint16)), "JPEG2000", irreversible=False
    ),
    "14 bits in 16": lambda v: png16(wide(v, 16383)),
    "12 bits in 16": lambda v: png16(wide(v, 4095)),
    "12 bits in 16, TIFF": lambda v: tiff(wide(v, 4095).astype(np.uint16), packed=True),
    "10 bits in 16": lambda v: png16(wide(v, 1023)),
    "8 bits in 16": lambda v: png16(v),
    "8 bits, moved up by 8": lambda v: png16(v * 256.0),
    "12 bits, moved up by 4": lambda v: png16(wide(v, 4095) * 16),
    "8 bits, moved up by 4": lambda v: tiff(v.astype(np.uint16) * 16),
    "signed 8 bits, moved up by 8": lambda v: tiff(((v.astype(int) - 128) * 256).astype(np.int16)),
    "8 bits in 32": lambda v: tiff(v.astype(np.int32)),
    "12 bits in 32": lambda v: tiff(wide(v, 4095).astype(np.int32)),
    "16 bits in 32": lambda v: tiff(wide(v, 65535).astype(np.int32), order=">", packed=True),
    "16 bits in unsigned 32": lambda v: tiff(wide(v, 65535).astype(np.uint32)),
    "32 bits": lambda v: tiff(wide(v, 2**32 - 1).astype(np.uint32)),
    "31 bits": lambda v: tiff(wide(v, 2**31 - 1).astype(np.int32)),
    "signed 8 bits": lambda v: tiff((v.astype(int) - 128).astype(np.int8)),
    "8 bits less 128 in 16": lambda v: tiff((v.astype(int) - 128).astype(np.int16)),
    "signed 16 bits": lambda v: tiff((wide(v, 65535) - 32768).astype(np.int16)),
    "signed 16 bits, big-endian": lambda v: tiff(
        (wide(v, 65535) - 32768).astype(np.int16), order=">", packed=True
    ),
    "signed 16 bits, none negative": lambda v: tiff(wide(v, 32767).astype(np.int16)),
    "float to 1": lambda v: tiff((v / 255).astype(np.float32)),
    "float to 1, big-endian": lambda v: tiff((v / 255).astype(np.float32), order=">", packed=True),
    "float to 1, PFM": lambda v: pfm(v / 255),
    "float from -1 to 1": lambda v: tiff((v / 127.5 - 1).astype(np.float32)),
    "float to 255": lambda v: tiff(v.astype(np.float32)),
    "float to 4095": lambda v: tiff(wide(v, 4095).astype(np.float32)),
    "float to 65535": lambda v: tiff(wide(v, 65535).astype(np.float32)),
}
COLOURS = {  # what the same colour pictures are stored as
    "16 bits": lambda v: png16(wide(v, 65535)),
    "12 bits in 16": lambda v: png16(wide(v, 4095)),
    "8 bits in 16": lambda v: png16(v),
    "8 bits, moved up by 8": lambda v: png16(v * 256.0),
    "8 bits, moved up by 8, opaque": lambda v: png16(with_alpha(v * 256.0, 65535)),
    "12 bits in 16, TIFF": lambda v: tiff(wide(v, 4095).astype(np.uint16)),
    "12 bits in 16, TIFF, big-endian": lambda v: tiff(wide(v, 4095).astype(np.uint16), order=">"),
    "12 bits in 16, TIFF, packed": lambda v: tiff(wide(v, 4095).astype(np.uint16), packed=True),
    "12 bits in 16, TIFF, planes": lambda v: tiff(wide(v, 4095).astype(np.uint16), planar=True),
    "12 bits in 16, TIFF, planes, big-endian": lambda v: tiff(
        wide(v, 4095).astype(np.uint16), planar=True, order=">"
    ),
    "12 bits in 16, opaque": lambda v: png16(with_alpha(wide(v, 4095), 65535)),
    "12 bits in 16, alpha too": lambda v: png16(with_alpha(wide(v, 4095), 4095)),
    "12 bits in 16, opaque, TIFF": lambda v: tiff(
        with_alpha(wide(v, 4095), 65535).astype(np.uint16)
    ),
    "16 bits, PPM": lambda v: pnm(wide(v, 65535), 65535),
    "12 bits in 16, PPM": lambda v: pnm(wide(v, 4095), 65535),
    "8 bits in 16, PPM": lambda v: pnm(v, 65535),
    "12 bits, PPM": lambda v: pnm(wide(v, 4095), 4095),
}
SUFFIX = {b"\x89P": "png", b"II": "tif", b"MM": "tif", b"P5": "pgm", b"P6": "ppm", b"Pf": "pfm"}


def write_set(folder, pictures, stored):
    folder.mkdir()
    for i, picture in enumerate(pictures):
        data = stored(picture)
        (folder / f"{i}.{SUFFIX.get(data[:2], 'jp2')}").write_bytes(data)
    return open_images(folder)


@pytest.mark.parametrize("name", VARIANTS)
def test_grey_pictures_equal_their_8_bit_copies(name, tmp_path):
    source = write_set(tmp_path / "set", GREY, VARIANTS[name])
    batch = source.load(range(6), 12)
    expected = write_set(tmp_path / "plain", GREY, lambda v: encode(Image.fromarray(v)))
    assert not batch.broken
    np.testing.assert_array_equal(batch.images, expected.load(range(6), 12).images)


@pytest.mark.parametrize("name", COLOURS)
def test_colour_pictures_equal_their_8_bit_copies(name, tmp_path):
    source = write_set(tmp_path / "set", COLOUR, COLOURS[name])
    batch = source.load(range(6), 12)
    expected = write_set(tmp_path / "plain", COLOUR, lambda v: encode(Image.fromarray(v)))
    assert not batch.broken
    difference = batch.images.int() - expected.load(range(6), 12).images.int()
    assert difference.abs().max() == 0


def test_packed_planes_of_16_bits_are_refused_and_not_read_in_part(tmp_path):
    data = tiff(wide(COLOUR[0], 4095).astype(np.uint16), planar=True, packed=True)
    with pytest.raises(BrokenImageError, match="16-bit colours in compressed planes.* save it as"):
        decode(data)
    eight = tiff(COLOUR[0], planar=True, packed=True)
    np.testing.assert_array_equal(decode(eight), COLOUR[0])


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_jpeg_2000_of_16_bit_colours_is_refused_and_its_white_not_read_as_black(mode):
    data = bytearray(encode(Image.new(mode, (16, 16), "white"), "JPEG2000", irreversible=False))
    assert np.array_equal(decode(bytes(data)), np.full((16, 16, 3), 255))
    start = data.index(b"\xff\x4f\xff\x51") + 42
    for channel in range(len(mode)):
        data[start + 3 * channel] = 15
    with pytest.raises(BrokenImageError, match="JPEG 2000 of 16-bit colours.* 8-bit PNG"):
        decode(bytes(data))


def test_16_bit_colours_as_text_are_refused():
    with pytest.raises(BrokenImageError, match="PPM of 16-bit colours as text.* 8-bit PNG"):
        decode(b"P3 2 1 65535 0 10 20 4000 4095 30")
    assert decode(b"P3 2 1 255 0 10 20 30 40 50").getpixel((1, 0)) == (30, 40, 50)


def test_grey_with_alpha_of_16_bits_is_scaled_and_composited(tmp_path):
    def half(v):
        return png16(np.stack([wide(v, 4095), np.full(v.shape, 4095 // 2)], axis=2))

    found = write_set(tmp_path / "set", GREY, half).load([0], 12).images[0, 0].numpy()
    expected = GREY[0][:, 2:14] * 0.5 + 255 * 0.5
    assert np.abs(found - expected).max() <= 2


def test_a_dark_picture_is_scaled_as_its_set(tmp_path):
    dark = [GREY[0] // 64, *GREY[1:]]
    source = write_set(tmp_path / "set", dark, lambda v: png16(wide(v, 4095)))
    assert source.load([0], 12).images.max() == 3


def test_a_set_says_how_it_was_read(tmp_path):
    source = write_set(tmp_path / "set", GREY, lambda v: png16(wide(v, 4095)))
    (tmp_path / "set" / "plain.png").write_bytes(encode(Image.fromarray(GREY[0])))
    source = open_images(tmp_path / "set", "mine")
    assert source.notes == [
        "mine: 6 of 7 files looked at are 16-bit, with values from 0 to 4095; 0 is taken for black "
        "and 4095 for white."
    ]
    plain = write_set(tmp_path / "plain", GREY, lambda v: encode(Image.fromarray(v)))
    assert plain.notes == []


def test_the_same_bytes_have_other_keys_where_they_are_scaled_otherwise(tmp_path):
    def store(v):
        return png16(wide(v, 4095))

    twelve = write_set(tmp_path / "twelve", GREY, store)
    write_set(tmp_path / "mixed", GREY, store)
    (tmp_path / "mixed" / "9.png").write_bytes(png16(np.full((12, 16), 65535)))
    mixed = open_images(tmp_path / "mixed")
    assert set(twelve.keys(range(6))).isdisjoint(mixed.keys(range(6)))
    assert not np.array_equal(twelve.load([0], 12).images, mixed.load([0], 12).images)


def test_a_kind_that_was_not_surveyed_is_scaled_by_itself(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    for i in range(600):
        (folder / f"{i:03}.png").write_bytes(encode(Image.fromarray(GREY[0])))
    (folder / "001.png").write_bytes(png16(wide(GREY[1], 4095)))
    source = open_images(folder)
    assert source.notes == []  # one in 600, between those that were looked at
    assert source.keys([1])[0].endswith(":own")
    np.testing.assert_array_equal(source.load([1], 12).images[0, 0], GREY[1][:, 2:14])


@pytest.mark.parametrize(
    ("kind", "low", "high", "expected"),
    [
        ("uint16", 0, 0, (0, 255)),
        ("uint16", 3, 255, (0, 255)),
        ("uint16", 0, 256, (0, 1023)),
        ("uint16", 0, 4095, (0, 4095)),
        ("uint16", 0, 4096, (0, 16383)),
        ("uint16", 0, 20000, (0, 65535)),
        ("int16", 0, 20000, (0, 32767)),
        ("int32", 0, 20000, (0, 65535)),
        ("int32", 0, 2**24 - 1, (0, 2**24 - 1)),
        ("uint32", 0, 2**32 - 1, (0, 2**32 - 1)),
        ("int8", 0, 100, (0, 127)),
        ("int8", -128, 127, (-128, 127)),
        ("int16", -128, 127, (-128, 127)),
        ("int16", -129, 127, (-512, 511)),
        ("int16", -1024, 3071, (-8192, 8191)),
        ("int16", -32768, 0, (-32768, 32767)),
        ("int16", -5, 255, (0, 255)),  # a background was subtracted
        ("float32", 0, 1, (0, 1)),
        ("float32", -0.1, 1.1, (0, 1)),  # overshoot of a filter
        ("float32", -1, 1, (-1, 1)),
        ("float32", -1.1, 0.9, (-1, 1)),
        ("float32", 0, 255, (0, 255)),
        ("float32", -20, 290, (0, 255)),
        ("float32", -128, 127, (-127, 127)),
        ("float32", 0, 4000, (0, 4095)),
        ("float32", 0, 65535, (0, 65535)),
        ("float32", 0, 12.5, (0, 12.5)),  # of no convention: its own range
        ("float32", -2.5, 2.0, (-2.5, 2.5)),
        ("float32", 0, 1e9, (0, 1e9)),
        ("float32", 0, 0, (0, 1)),
    ],
)
def test_what_values_are_taken_for(kind, low, high, expected):
    assert span_of(kind, Extent(low, high, used=1)) == Span(*map(float, expected))


@pytest.mark.parametrize(
    ("kind", "low", "high", "used", "expected"),
    [
        ("uint16", 0, 65280, 0xFF00, (0, 65280)),
        ("uint16", 0, 65520, 0xFFF0, (0, 65520)),
        ("uint16", 0, 4080, 0x0FF0, (0, 4080)),
        ("uint16", 0, 3000, 0x0FF0, (0, 4080)),
        ("uint16", 0, 65281, 0xFF01, (0, 65535)),
        ("int16", -32768, 32512, -256, (-32768, 32512)),
        ("uint16", 0, 0, 0, (0, 255)),
    ],
)
def test_bits_moved_up_are_moved_down(kind, low, high, used, expected):
    assert span_of(kind, Extent(low, high, used)) == Span(*map(float, expected))


def test_infinite_values_and_nan_do_not_decide_the_range():
    values = np.array([[np.nan, np.inf, -np.inf, 0.5, 1.0]], np.float32)
    assert deep_values(tiff(values)) == ("float32", Extent(0.5, 1.0))
    assert np.asarray(decode(tiff(values)))[0, :, 0].tolist() == [0, 255, 0, 128, 255]
    assert deep_values(tiff(np.full((2, 2), np.nan, np.float32))) == ("float32", Extent(0.0, 0.0))


def test_no_kind_of_nan_is_warned_of():
    signalling = np.array([[0x7F800001, 0x3F800000, 0]], np.uint32).view(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.asarray(decode(tiff(signalling)))[0, :, 0].tolist() == [0, 255, 0]


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "PPM"])
def test_8_bits_have_no_range(form):
    assert deep_values(encode(Image.fromarray(COLOUR[0]), form)) is None
