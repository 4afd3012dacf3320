"""Which files are read, whatever they are called, and what is said of those that are not."""

import io
import json
import re
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from pictures import encode, pfm, png, png16, pnm, tiff
from PIL import Image

from probe.errors import BrokenImageError, ImagesError
from probe.images.archive import Members
from probe.images.blob import LocalBlob
from probe.images.decode import decode
from probe.images.encoded import FORMATS
from probe.images.header import read_header
from probe.images.open import open_images

PIXELS = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
PICTURE = Image.fromarray(PIXELS)


SUFFIXES = {suffix for form in FORMATS.values() for suffix in form.suffixes}


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_is_read_and_known_by_its_first_bytes(form):
    data = encode(PICTURE, form)
    assert FORMATS[form].matches(data)
    assert decode(data).size == (24, 16)
    assert read_header(data).format == form


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_every_suffix_is_an_image_whatever_the_bytes_are(tmp_path, suffix, kind):
    members = {f"a{suffix}": png(), f"B{suffix.upper()}": encode(PICTURE, "AVIF")}
    source = make(tmp_path / "set", kind, members)
    assert len(source.load([0, 1], 8).indices) == 2
    assert source.notes == []


def make(path, kind, members):
    if kind == "zip":
        path = path.with_suffix(".zip")
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in members.items():
                archive.writestr(name, data)
    else:
        for name, data in members.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
    return open_images(path, "set")


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_what_is_left_out_is_counted_by_suffix(tmp_path, kind):
    members = {
        "a.png": png(),
        "0001": png(),  # no suffix, and an image
        "sub/README": b"text",
        "b.heic": b"....",
        "c.HEIC": b"....",
        "d.txt": b"text",
        "e.png.part": b"....",
        "dataset.json": json.dumps({"labels": None}).encode(),
    }
    source = make(tmp_path / "set", kind, members)
    assert source.captions([0, 1]) == ["0001", "a.png"]
    assert source.notes == [
        "set: 5 files left out because of the suffix: 2 .heic, 1 without a suffix, 1 .part, 1 .txt."
    ]


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_what_systems_put_beside_images_is_neither_read_nor_counted(tmp_path, kind):
    places = (
        "@eaDir/a.jpg@SynoEAStream", "@eaDir/a.jpg/SYNOPHOTO_THUMB_XL.jpg", "#recycle/a.png",
        "@Recently-Snapshot/a.png", "@tmp/a.png",
        "x/@eaDir/b.jpg", "x/.thumbnails/a.png", "__MACOSX/._a.png", "._a.png", ".DS_Store",
        "Thumbs.db", "desktop.ini", ".ipynb_checkpoints/a-checkpoint.png", ".git/a.png",
        "System Volume Information/a.png", "$RECYCLE.BIN/a.png", "lost+found/a.png",
    )  # fmt: skip
    source = make(tmp_path / "set", kind, {**dict.fromkeys(places, png()), "x/a.png": png()})
    assert source.captions(range(len(source))) == ["x/a.png"]
    assert source.notes == []


def test_a_zip_of_windows_has_folders_too(tmp_path):
    members = {"set\\@eaDir\\a.jpg": png(), "set\\b.png": png()}
    source = make(tmp_path / "set", "zip", members)
    assert source.captions(range(len(source))) == ["set\\b.png"]


def test_no_images_says_what_there_is(tmp_path):
    with pytest.raises(ImagesError) as caught:
        make(tmp_path / "set", "folder", {"a.heic": b"", "b.heic": b"", "c.txt": b""})
    assert "no images found among 3 files (2 .heic, 1 .txt)" in str(caught.value)


FLOAT_COLOUR = tiff((PIXELS / 255).astype(np.float32))


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (FLOAT_COLOUR, "TIFF of 3 x 32-bit float values"),
        (tiff(PIXELS.astype(np.int16)), "TIFF of 3 x 16-bit signed values"),
        (tiff(PIXELS.astype(np.float64)), "TIFF of 3 x 64-bit float values"),
        (tiff(PIXELS[..., 0].astype(np.float16)), "TIFF of 1 x 16-bit float values"),
        (tiff(PIXELS, tags={259: ("H", [50002])}), "TIFF of 3 x 8-bit unsigned values in comp"),
        (pfm(PIXELS[..., 0] / 255).replace(b"Pf", b"PF", 1), "colour PFM"),
        (b"\0\0\0\x18ftypheic" + bytes(64), "HEIC"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(64), "JPEG XL"),
        (b"v/1\x01" + bytes(64), "OpenEXR"),
        (b"#?RADIANCE\n" + bytes(64), "Radiance"),
        (b"8BPS" + bytes(64), "Photoshop"),
        (b'<?xml version="1.0"?><svg width="9" height="9"/>', "SVG"),
        (b"%PDF-1.4\n", "PDF"),
    ],
)  # fmt: skip
def test_sound_files_that_pillow_does_not_read_are_no_damaged_ones(data, what):
    for read in (decode, read_header):
        with pytest.raises(BrokenImageError) as caught:
            read(data)
        reason = str(caught.value)
        assert reason.startswith(what)
        assert reason.endswith("which Pillow does not read; save it as an 8-bit PNG")


def test_a_jpeg_of_12_bits_is_of_a_rare_kind():
    data = bytearray(encode(PICTURE, "JPEG"))
    data[data.index(b"\xff\xc0") + 4] = 12
    with pytest.raises(
        BrokenImageError, match="JPEG of a rare .*: cannot handle 12-bit layers; save"
    ):
        decode(bytes(data))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.97])
def test_damaged_files_are_not_called_rare(share):
    noisy = np.random.default_rng(1).integers(0, 65536, (64, 64, 3)).astype(np.uint16)
    for data in (FLOAT_COLOUR[:100], tiff(noisy), png16(noisy), pnm(noisy, 65535)):
        with pytest.raises(BrokenImageError, match="truncated or damaged"):
            decode(data[: int(len(data) * share)])


@pytest.mark.parametrize(("method", "name"), [(9, "Deflate64"), (93, "Zstandard"), (7, "method 7")])
def test_a_zip_packed_in_a_way_that_is_not_read_says_how(tmp_path, method, name):
    make(tmp_path / "set", "zip", {"a.png": png(), "b": png()})
    path = tmp_path / "set.zip"
    data = bytearray(path.read_bytes())
    at = -1
    while (at := data.find(b"PK\x01\x02", at + 1)) >= 0:
        struct.pack_into("<H", data, at + 10, method)
    path.write_bytes(data)
    source = open_images(path)
    assert source.captions(range(len(source))) == ["a.png"]
    reason = source.load([0], 8).broken[0].reason
    assert reason == (
        f"packed with {name}, which is not supported; unpack the zip, or pack it with Deflate"
    )
    with pytest.raises(ImagesError, match=f"is a readable image: a.png .packed with {name}"):
        _ = source.resolution


@pytest.mark.parametrize(
    "method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
def test_zips_are_unpacked_as_zipfile_does(tmp_path, method):
    rng = np.random.default_rng(method)
    members = {f"{i}.bin": rng.integers(0, 1 + 8 * i, 3000 * i).tobytes() for i in range(9)}
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.comment = b"a comment"
        for name, data in members.items():
            archive.writestr(name, data)
    for stub in (b"", b"#!/bin/sh\n" * 50):  # a self-extracting zip has a program before it
        path.write_bytes(stub + path.read_bytes())
        opened = Members(LocalBlob(path))
        assert list(opened) == list(members)
        for name, data in members.items():
            with opened.read(name) as found:
                assert found == data
            assert opened.start(name) == data[:64]


def test_lossless_jpeg_2000_is_told_from_lossy():
    assert not read_header(encode(PICTURE, "JPEG2000", irreversible=False)).lossy
    assert read_header(encode(PICTURE, "JPEG2000", irreversible=True)).lossy
    assert read_header(encode(PICTURE, "AVIF")).lossy
    assert not read_header(encode(PICTURE, "PPM")).lossy


def test_what_the_first_bytes_say_counts(tmp_path):
    (tmp_path / "phone.jpg").write_bytes(encode(PICTURE, "AVIF"))
    header = open_images(tmp_path).headers([0])[0]
    assert header is not None and header.format == "AVIF"
    assert io.BytesIO(encode(PICTURE, "AVIF")).read(12)[4:] == b"ftypavif"


def test_the_page_on_images_lists_every_suffix():
    page = (Path(__file__).parents[2] / "docs" / "images.md").read_text("utf-8")
    assert (
        set(re.findall(r"`(\.\w+)`", page.split("## Which")[1].split("The suffix")[0])) == SUFFIXES
    )
