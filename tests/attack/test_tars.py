"""Hostile and damaged tars: an error or a reason, never a wrong image, a hang or much memory."""

import io
import random
import tarfile
import tracemalloc

import pytest
from packing import tar_of
from pictures import png

from probe.errors import ImagesError
from probe.images.open import open_images

FILES = {f"{i}.png": png((i, i, i)) for i in range(20)}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PROBE_CACHE_DIR", str(tmp_path / "cache"))


def header(name: str = "a.png", kind: bytes = b"0", size: bytes = b"00000000003\0") -> bytes:
    """Return a header with a correct checksum, whatever it says."""
    info = tarfile.TarInfo(name)
    info.type = kind
    data = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    data[124:136] = size
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data)
    return bytes(data)


def pax(*records: bytes, claims: int | None = None) -> bytes:
    body = b"".join(records)
    size = len(body) if claims is None else claims
    return header(kind=b"x", size=b"%011o\0" % size) + body.ljust(-(-len(body) // 512) * 512, b"\0")


def record(key: bytes, value: bytes) -> bytes:
    length = len(key) + len(value) + 3
    length += len(str(length))
    length = len(key) + len(value) + 3 + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


SOUND = header() + b"abc".ljust(512, b"\0")
REFUSED = {
    "negative size in base 256": header(size=b"\xff" * 12),
    "size that is no number": header(size=b"12 x 34 \0\0\0\0"),
    "negative size": header(size=b"-0000000003\0"),
    "size with an underscore": header(size=b"0_____0000y\0"),
    "long name without an end": header(kind=b"L", size=b"00077777777\0") + b"a" * 512,
    "extended header of 8 GiB": header(kind=b"x", size=b"77777777777\0"),
    "extended header that is cut off": pax(b"12 path=a.p\n", claims=4000),
    "record of no length": pax(b"0 path=a.png\n") + SOUND,
    "record that claims more than there is": pax(b"9999 path=a.png\n") + SOUND,
    "record without a value": pax(b"9 path a\n") + SOUND,
    "record of endless digits": pax(b"9" * 600) + SOUND,
    "size of endless digits": pax(record(b"size", b"9" * 300)) + SOUND,
    "negative size in an extended header": pax(record(b"size", b"-5")) + SOUND,
    "wrong checksum": SOUND[:150] + b"7" + SOUND[151:],
    "map of a sparse file without an end": header(kind=b"S")[:482] + b"\1",
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_followed_is_refused(what, tmp_path, tally):
    path = tmp_path / "a.tar"
    path.write_bytes(SOUND + REFUSED[what])
    tracemalloc.start()
    with pytest.raises(ImagesError, match="a damaged tar: at byte 1024"):
        open_images(path)
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()
    tally("hostile tars refused")


SKIPPED = {
    "sparse file of GNU": (header("s.png", b"S"), "sparse file"),
    "sparse file of pax": (pax(record(b"GNU.sparse.major", b"1")) + header("s.png"), "sparse"),
    "link": (header("s.png", b"2", b"00000000000\0"), "link inside a tar"),
    "device": (header("s.png", b"4", b"00000000000\0"), "not a regular file"),
    "unknown kind": (header("s.png", b"Z"), "not a regular file"),
    "8 EiB": (header("s.png", size=b"\x80" + b"\0" * 4 + b"\x7f" + b"\xff" * 6), "cut off"),
    "more than fits in memory": (
        pax(record(b"size", b"9" * 18)) + header("s.png"), "cut off at the end",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", SKIPPED)
def test_what_is_no_image_is_skipped_with_the_reason(what, tmp_path, tally):
    member, reason = SKIPPED[what]
    path = tar_of(tmp_path / "a.tar", FILES)
    sound = path.read_bytes()[: 1024 * len(FILES)]
    path.write_bytes(sound + member + bytes(512 if "cut" not in reason else 0))
    source = open_images(path)
    batch = source.load(range(len(source)), 8)
    assert [b.name for b in batch.broken.values()] == ["s.png"]
    assert reason in next(iter(batch.broken.values())).reason
    assert len(batch.indices) == len(FILES)
    tally("hostile members skipped")


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd.png", "/etc/passwd.png", "a\x1b[31m.png", "a\n.png", "C:\\a.png", "."],
)
def test_names_are_text_and_nothing_is_written(name, tmp_path):
    place = tmp_path / "set"
    place.mkdir()
    tar_of(place / "a.tar", {name: png((7, 7, 7)), "b.png": png()})
    source = open_images(place / "a.tar")
    assert source.load(range(len(source)), 8).broken == {}
    assert all(c.isprintable() for c in source.captions(range(len(source))))
    assert [p.name for p in place.iterdir()] == ["a.tar"]


def test_millions_of_empty_members_take_little_memory(tmp_path, rounds):
    count = rounds(50_000, 1_000_000)
    empty = header("0.txt", size=b"0" * 11 + b"\0")
    (tmp_path / "a.tar").write_bytes(SOUND + empty * count)
    tracemalloc.start()
    assert len(open_images(tmp_path / "a.tar")) == 1
    assert tracemalloc.get_traced_memory()[1] < 30e6 + 40 * count
    tracemalloc.stop()


def test_a_member_named_twice_counts_once_the_last_time(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for shade in (1, 2):
            info, data = tarfile.TarInfo("a.png"), png((shade, shade, shade))
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    source = open_images(path)
    assert len(source) == 1 and source.load([0], 8).images[0, 0, 0, 0] == 2


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_flipped_bits_never_give_a_wrong_image(form, tmp_path, rounds, tally):
    names = {f"{'d' * 60}/{'ü' * 30}/{name}": data for name, data in FILES.items()}
    sound = tar_of(tmp_path / "sound.tar", names, form).read_bytes()
    right = set(open_images(tmp_path / "sound.tar").keys(range(len(FILES))))
    rng = random.Random(form)
    for i in range(rounds(40, 2000)):
        data, path = bytearray(sound), tmp_path / f"{i}.tar"
        place = rng.randrange(len(data))
        data[place] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        try:
            source = open_images(path)
        except ImagesError:
            tally("bit flips refused")
            continue
        keys = source.keys(range(len(source)))
        assert len(source) >= 1 and len(set(keys) - right) <= 1  # the image that was hit
        source.load(range(len(source)), 8)
        tally("bit flips survived")
        path.unlink()
