"""Hostile images and archives: a reason for each, bounded memory, nothing wrong in the store."""

import io
import json
import os
import random
import struct
import subprocess
import sys
import threading
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from inputs import photo, write_images
from pictures import encode, flat_png, pfm, png, png16, png_chunk, pnm, tiff
from PIL import Image

from probe.errors import BrokenImageError, ImagesError, printable
from probe.images.decode import decode_square, deep_values
from probe.images.depth import key_suffix
from probe.images.encoded import FORMATS
from probe.images.header import read_header
from probe.images.open import open_images
from probe.images.resize import to_square

ROOT = Path(__file__).parents[2]
PIXELS = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
PICTURE = Image.fromarray(PIXELS)
EXIF = Image.Exif()
EXIF[0x0112] = 6

SEEDS = {
    **{form: encode(PICTURE, form) for form in FORMATS},
    "PNG with everything": encode(
        PICTURE.quantize(8), "PNG", transparency=3, exif=EXIF, icc_profile=b"x" * 200, dpi=(72, 72)
    ),
    "PNG of 16 bits": png16(PIXELS.astype(int) * 257),
    "PNG of 16 bits, grey, alpha": png16(PIXELS[..., :2].astype(int) * 257),
    "JPEG with EXIF": encode(PICTURE, "JPEG", exif=EXIF, progressive=True),
    "JPEG of CMYK": encode(PICTURE.convert("CMYK"), "JPEG"),
    "WebP, lossless": encode(PICTURE.convert("RGBA"), "WEBP", lossless=True, exif=EXIF),
    "WebP, animated": encode(PICTURE, "WEBP", save_all=True, append_images=[PICTURE.rotate(90)]),
    "GIF, animated": encode(PICTURE, "GIF", save_all=True, append_images=[PICTURE.rotate(90)]),
    "TIFF, packed": encode(PICTURE, "TIFF", compression="tiff_lzw"),
    "TIFF, JPEG": encode(PICTURE, "TIFF", compression="jpeg"),
    "TIFF of 16 bits": tiff(PIXELS.astype(np.uint16) * 257, packed=True),
    "TIFF of planes": tiff(PIXELS.astype(np.uint16) * 257, planar=True),
    "TIFF of int32": tiff(PIXELS[..., 0].astype(np.int32), order=">"),
    "TIFF of floats": tiff(PIXELS[..., 0].astype(np.float32), packed=True, order=">"),
    "TIFF of float colours": tiff(PIXELS.astype(np.float32)),
    "PGM of 16 bits": pnm(PIXELS[..., 0].astype(int) * 257, 65535),
    "PFM": pfm(PIXELS[..., 0] / 255),
    "BMP, packed": encode(PICTURE.quantize(16), "BMP"),
}


def is_fit_for_terminals(text: str) -> bool:
    return printable(text) == text


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Return the bytes with some of them changed, cut, doubled or taken out."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        at = rng.randrange(len(changed))
        match rng.randrange(6):
            case 0 | 1:
                changed[at] = rng.randrange(256)
            case 2:
                changed[at] ^= 1 << rng.randrange(8)
            case 3:
                number = rng.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000, 65535, 65536))
                changed[at : at + 4] = struct.pack(rng.choice("<>") + "I", number)
            case 4:
                changed[at:at] = changed[at : at + rng.randrange(1, 64)]
            case 5:
                del changed[at : at + rng.randrange(1, 64)]
        if not changed:
            return b""
    return bytes(changed)


@pytest.mark.parametrize("name", SEEDS)
def test_mutated_images_have_a_reason(name, rounds, tally, monkeypatch, capfd):
    # Claimed sizes below the real limit would only cost the test time and memory.
    monkeypatch.setattr("probe.images.encoded.MOST_PIXELS", 1_000_000)
    rng = random.Random(name)
    for _ in range(rounds(25, 4000)):
        data = mutate(SEEDS[name], rng)
        try:
            read_header(data)
            key_suffix(data, {})
            deep_values(data)
            assert decode_square(data, 16).shape == (16, 16, 3)
        except BrokenImageError as error:
            assert 0 < len(str(error)) < 200 and is_fit_for_terminals(str(error))
            tally("mutated images refused with a reason")
        else:
            tally("mutated images decoded")
    assert capfd.readouterr() == ("", "")


def huge(form: str) -> bytes:
    """Return a small file of a format that says it is enormous."""
    data = bytearray(encode(PICTURE, form))
    if form == "PNG":
        data[16:24] = struct.pack(">II", 2**31 - 1, 2**31 - 1)
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    elif form == "JPEG":
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = struct.pack(">HH", 65535, 65535)
    elif form == "GIF":
        data[6:10] = struct.pack("<HH", 65535, 65535)
    elif form == "BMP":
        data[18:26] = struct.pack("<ii", 2**30, 2**30)
    elif form == "TIFF":
        for tag in (256, 257):
            at = next(i for i in range(len(data)) if data[i : i + 2] == struct.pack("<H", tag))
            data[at + 2 : at + 12] = struct.pack("<HII", 4, 1, 2**31 - 1)
    elif form == "WEBP":
        data = bytearray(encode(PICTURE.convert("RGBA"), "WEBP", exif=EXIF))
        at = data.index(b"VP8X") + 12
        data[at : at + 6] = b"\xff\xff\xff\xff\xff\xff"
    elif form == "JPEG2000":
        at = data.index(b"\xff\x51") + 6
        data[at : at + 8] = struct.pack(">II", 2**31, 2**31)
        at = data.index(b"ihdr") + 4
        data[at : at + 8] = struct.pack(">II", 2**31, 2**31)
    elif form == "AVIF":
        at = data.index(b"ispe") + 8
        data[at : at + 8] = struct.pack(">II", 2**31, 2**31)
    elif form == "PPM":
        data = bytearray(b"P6 2147483647 2147483647 255\n" + bytes(100))
    return bytes(data)


@pytest.mark.parametrize("form", FORMATS)
def test_absurd_sizes_are_refused_from_the_header(form, tally):
    started = time.monotonic()
    for read in (read_header, deep_values, lambda data: decode_square(data, 16)):
        with pytest.raises(BrokenImageError):
            read(huge(form))
    assert time.monotonic() - started < 10
    tally("files of absurd size refused")


FRAMES = [PICTURE.rotate(i) for i in range(0, 360, 2)]


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_of_very_many_frames_the_first_is_decoded(form, tally):
    frames = [frame for _ in range(3) for frame in FRAMES] if form != "AVIF" else FRAMES[:20]
    data = encode(frames[0], form, save_all=True, append_images=frames[1:])
    first = Image.open(io.BytesIO(data)).convert("RGB")
    started = time.monotonic()
    np.testing.assert_array_equal(decode_square(data, 16), to_square(first, 16))
    assert time.monotonic() - started < 5
    tally("animations of which one frame was decoded")


def resident(script: str, *arguments: object) -> tuple[int, str]:
    """Run a script; return by how many bytes its memory grew after it said so, and its output."""
    prelude = (
        "import sys\n"
        "def high():\n"
        "    lines = open('/proc/self/status').read().splitlines()\n"
        "    return int(next(l for l in lines if l.startswith('VmHWM')).split()[1]) * 1024\n"
    )
    command = [sys.executable, "-c", prelude + script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    grown, *rest = done.stdout.splitlines()
    return int(grown), "\n".join(rest)


LOAD = """
from probe.images import limits
from probe.images.open import open_images
limits.THREADS = 8
source = open_images(sys.argv[1])
before = high()
batch = source.load(range(len(source)), 32)
print(high() - before)
print(len(batch.indices))
for broken in batch.broken.values():
    print(broken.name, broken.reason)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_bombs_are_decoded_within_the_bound_or_named(tmp_path, rounds, tally):
    """Eight at a time would take 8 x 290 MB, and the largest 2.7 GB by itself."""
    side, count = 6000, rounds(5, 16)
    data = flat_png(side, side)
    for i in range(count):
        (tmp_path / f"{i:02}.png").write_bytes(data)
    (tmp_path / "bomb.png").write_bytes(flat_png(13377, 13377))
    assert (tmp_path / "bomb.png").stat().st_size < 2**20
    grown, output = resident(LOAD, tmp_path)
    assert output.splitlines() == [
        str(count),
        "bomb.png 13377 x 13377 pixels would take 1.3 GiB to decode, 1 GiB is allowed; save it "
        "smaller",
    ]
    assert grown < 1.25 * 2**30
    tally("bombs within the bound of memory", count + 1)


COST = """
from probe.images.decode import _cost, decode_square, deep_values
from probe.images.encoded import open_image
data = open(sys.argv[1], "rb").read()
decode_square(open(sys.argv[2], "rb").read(), 32)  # what is loaded once
image = open_image(data)
said, before = _cost(image, 1), high()
del image
deep_values(data)
decode_square(data, 32)
print(high() - before)
print(said)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("name", SEEDS)
def test_decoding_takes_no_more_than_is_held_for_it(name, tmp_path, rounds, tally):
    if rounds(1, 0) and name not in ("PNG", "JPEG"):
        pytest.skip("the long form alone")
    large, small = tmp_path / "large", tmp_path / "small"
    large.write_bytes(enlarged(name))
    small.write_bytes(SEEDS["PNG"])
    grown, said = resident(COST, large, small)
    assert grown < int(said) + 16 * 2**20
    tally("formats within the memory held for them")


def enlarged(name: str) -> bytes:
    """Return a seed's kind of file of nine megapixels."""
    pixels = np.tile(PIXELS[:15], (200, 125, 1))
    picture = Image.fromarray(pixels)
    more = [picture.transpose(Image.Transpose.ROTATE_180)]
    rgba = picture.convert("RGBA")
    rgba.putalpha(90)
    return {
        **{form: lambda form=form: encode(picture, form) for form in FORMATS},
        "PNG with everything": lambda: encode(picture.quantize(8), "PNG", transparency=3),
        "PNG of 16 bits": lambda: png16(pixels.astype(int) * 257),
        "PNG of 16 bits, grey, alpha": lambda: png16(pixels[..., :2].astype(int) * 257),
        "JPEG with EXIF": lambda: encode(
            picture, "JPEG", exif=EXIF, progressive=True, subsampling=0
        ),
        "JPEG of CMYK": lambda: encode(picture.convert("CMYK"), "JPEG"),
        "WebP, lossless": lambda: encode(rgba, "WEBP", lossless=True, method=0, quality=0),
        "WebP, animated": lambda: encode(
            picture, "WEBP", method=0, save_all=True, append_images=more
        ),
        "GIF, animated": lambda: encode(picture, "GIF", save_all=True, append_images=more),
        "TIFF, packed": lambda: encode(picture, "TIFF", compression="tiff_lzw"),
        "TIFF, JPEG": lambda: encode(picture, "TIFF", compression="jpeg"),
        "TIFF of 16 bits": lambda: tiff(pixels.astype(np.uint16) * 257, packed=True),
        "TIFF of planes": lambda: tiff(pixels.astype(np.uint16) * 257, planar=True),
        "TIFF of int32": lambda: tiff(pixels[..., 0].astype(np.int32), order=">"),
        "TIFF of floats": lambda: tiff(pixels[..., 0].astype(np.float32), packed=True),
        "TIFF of float colours": lambda: tiff(pixels.astype(np.uint8)),
        "PGM of 16 bits": lambda: pnm(pixels[..., 0].astype(int) * 257, 65535),
        "PFM": lambda: pfm(pixels[..., 0] / 255),
        "BMP, packed": lambda: encode(picture.quantize(16), "BMP"),
    }[name]()


METHODS = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("method", METHODS[1:])
def test_members_that_unpack_to_more_than_they_say_take_no_memory(tmp_path, rounds, method, tally):
    path = tmp_path / "bomb.zip"
    info = zipfile.ZipInfo("a.png")
    info.compress_type = method
    with zipfile.ZipFile(path, "w", method) as archive, archive.open(info, "w") as member:
        for _ in range(rounds(96, 1024)):
            member.write(bytes(2**20))
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02")
    struct.pack_into("<I", data, at + 24, 1000)
    path.write_bytes(data)
    grown, output = resident(LOAD, path)
    assert output == "0\na.png damaged zip member (its checksum is wrong)"
    assert grown < 48 * 2**20
    tally("zip bombs that stayed small")


def test_members_laid_over_each_other_are_refused(tmp_path, tally):
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(50):
            archive.writestr(f"{i:02}.png", png((i, i, i)))
    with zipfile.ZipFile(path, "a") as archive:
        first = archive.infolist()[0]
        for info in archive.infolist():
            info.header_offset, info.CRC = first.header_offset, first.CRC
            info.compress_size = info.file_size = first.file_size * 100
        archive.comment = b"written anew"
    with pytest.raises(ImagesError, match="damaged one .its members are larger than the file"):
        open_images(path)
    tally("zips of overlapping members refused")


TRICKS = [
    "../../outside.png", "/absolute.png", "C:\\windows.png", "a/../../b.png", "a//b.png",
    "con\x1b[31mtrol\n.png", "x" * 3000 + ".png", "folder.png/", " .png", "..png", "a\\..\\b.png",
]  # fmt: skip


def test_paths_of_members_lead_nowhere(tmp_path, tally):
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in TRICKS:
            archive.writestr(name, png())
        link = zipfile.ZipInfo("link.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    before = sorted(tmp_path.rglob("*"))
    source = open_images(path)
    batch = source.load(range(len(source)), 8)
    assert [b.reason for b in batch.broken.values()] == ["not an image"]  # of the link
    assert all(map(is_fit_for_terminals, source.captions(range(len(source)))))
    assert source.labels is None
    assert sorted(tmp_path.rglob("*")) == before
    tally("members with tricks in their paths read in place", len(TRICKS))


@pytest.mark.parametrize("method", METHODS)
def test_mutated_zips_have_a_reason(tmp_path, rounds, tally, method):
    path = tmp_path / "set.zip"
    names = [f"{i}.png" for i in range(4)]
    labels = json.dumps({"labels": [[name, i] for i, name in enumerate(names)]})
    with zipfile.ZipFile(path, "w", method) as archive:
        for name in names:
            archive.writestr(name, png())
        archive.writestr("plain", png())
        archive.writestr("dataset.json", labels)
    original, rng = path.read_bytes(), random.Random(method)
    for _ in range(rounds(100, 5000)):
        path.write_bytes(mutate(original, rng))
        try:
            source = open_images(path)
            batch = source.load(range(len(source)), 8)
            source.keys(range(len(source)))
            assert all(is_fit_for_terminals(b.reason) for b in batch.broken.values())
            tally("images read from mutated zips", len(batch.indices))
            tally("images of mutated zips refused with a reason", len(batch.broken))
            _ = (source.notes, source.labels)
        except ImagesError as error:
            assert is_fit_for_terminals(str(error))
            tally("mutated zips or their labels refused with a sentence")


def test_mutated_label_files_give_classes_or_a_sentence(tmp_path, rounds, tally):
    names = [f"{i}.png" for i in range(8)]
    for name in names:
        (tmp_path / name).write_bytes(png())
    forms = [
        {"labels": [[name, i] for i, name in enumerate(names)]},
        {"labels": [[name, [int(i == j) for j in range(8)]] for i, name in enumerate(names)]},
    ]
    rng = random.Random(0)
    for i in range(rounds(200, 20_000)):
        text = mutate(json.dumps(forms[i % 2]).encode(), rng)
        (tmp_path / "dataset.json").write_bytes(text)
        try:
            labels = open_images(tmp_path).labels
        except ImagesError as error:
            assert is_fit_for_terminals(str(error)) and len(str(error)) < 600
            tally("mutated label files refused with a sentence")
        else:
            assert labels is None or all(0 <= label < 100_000 for label in labels)
            tally("mutated label files read")


def test_a_folder_of_everything_hostile_is_ranked_without_it(tmp_path, reals, fakes, bank, cli):
    hostile = {f"{name}.png": data[: len(data) // 2] for name, data in SEEDS.items()}
    hostile |= {f"huge {form}.png": huge(form) for form in FORMATS}
    hostile |= {"empty.png": b"", "text.png": b"text", "page.jpg": b"<!DOCTYPE html>"}
    hostile["endless text.png"] = b"\x89PNG\r\n\x1a\n" + b"".join(
        png_chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(2**20))) for _ in range(80)
    )
    for name, data in hostile.items():
        (reals / f"000 {name}").write_bytes(data)
    os.mkfifo(reals / "000 pipe.png")
    (reals / "000 zero.png").symlink_to("/dev/zero")
    (reals / "000 loop.png").symlink_to("000 loop.png")
    result = cli("rank", "--real", reals, "--gen", fakes, "--bank", bank, "--format", "json",
                 "--backbones", "colour", "--num", 200)  # fmt: skip
    assert result.code == 0, result.err
    assert "Traceback" not in result.err
    board = json.loads(result.out)
    assert board["n_real"] == board["n_fake"] == 60
    assert any("images were skipped" in note for note in board["notes"])


REWRITTEN = 12  # of 60 files


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_files_rewritten_all_the_time_leave_nothing_wrong(
    tmp_path, reals, fakes, bank, cli, monkeypatch, rounds, tally, kind
):
    """Each file has two contents in turn; what is stored for either is what a quiet run finds."""
    names = sorted(path.name for path in fakes.iterdir())[:REWRITTEN]
    other = write_images(tmp_path / "other", 60, seed=9, blue=90)
    contents = [{name: (folder / name).read_bytes() for name in names} for folder in (fakes, other)]
    gen = fakes if kind == "folder" else tmp_path / "fakes.zip"

    def put(which: int) -> None:
        if kind == "folder":
            for name, data in contents[which].items():
                (fakes / name).write_bytes(data)
            return
        with zipfile.ZipFile(gen, "w") as archive:  # in place, as a careless program does
            for path in sorted(fakes.iterdir()):
                archive.writestr(path.name, contents[which].get(path.name, path.read_bytes()))

    def rank():
        return cli("rank", "--real", reals, "--gen", gen, "--bank", bank, "--format", "json",
                   "--backbones", "colour", "--out", tmp_path / "out")  # fmt: skip

    def scores(result) -> dict[str, float]:
        assert result.code == 0, result.err
        return {row["name"]: row["score"] for row in json.loads(result.out)["rows"]}

    quiet = []
    for which in (0, 1):
        put(which)
        monkeypatch.setenv("PROBE_CACHE_DIR", str(tmp_path / f"quiet{which}"))
        quiet.append(scores(rank()))
    assert quiet[0] != quiet[1]
    monkeypatch.setenv("PROBE_CACHE_DIR", str(tmp_path / "busy"))
    stop = threading.Event()

    def write() -> None:
        turn, pause = 0, 0.005 if kind == "folder" else 0.5
        while not stop.wait(pause):
            put(turn := 1 - turn)

    for _ in range(rounds(2, 25)):
        stop.clear()
        writer = threading.Thread(target=write)
        writer.start()
        try:
            result = rank()
        finally:
            stop.set()
            writer.join()
        assert result.code in (0, 1) and "Traceback" not in result.err, result.err
        tally(f"rankings of a {kind} in motion that {'ended' if result.code == 0 else 'refused'}")
    for which in (0, 1):
        put(which)
        assert scores(rank()) == quiet[which]


def test_a_bomb_within_a_zip_is_skipped(tmp_path, tally):
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", png())
        archive.writestr("bomb.png", flat_png(13377, 13377))
        archive.writestr("nested.zip", path.read_bytes())
        buffer = io.BytesIO()
        photo(np.random.default_rng(0)).save(buffer, "PNG")
        archive.writestr("b.png", buffer.getvalue())
    source = open_images(path)
    batch = source.load(range(len(source)), 8)
    assert batch.indices == [0, 1] and "save it smaller" in batch.broken[2].reason
    assert source.notes[0].endswith(" 1 file left out because of the suffix: 1 .zip.")
    tally("bombs within the bound of memory")
