"""Folders and zips: what is found, what is skipped, what is refused."""

import contextlib
import io
import json
import os
import struct
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from pictures import png
from PIL import Image

from probe.errors import ImagesError
from probe.files import digest_bytes
from probe.images.base import Broken
from probe.images.decode import describe_broken, name_broken
from probe.images.open import open_images


def write_zip(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


NAMES = ["a.png", "sub/deep/b.PNG", "ünï çödé/日本.png"]


@pytest.fixture(params=["folder", "zip"])
def source_path(request, tmp_path):
    members = {name: png((i, i, i)) for i, name in enumerate(NAMES)}
    members |= {"notes.txt": b"text", ".hidden.png": png(), "__MACOSX/a.png": png()}
    if request.param == "zip":
        write_zip(tmp_path / "set.zip", members)
        return tmp_path / "set.zip"
    for name, data in reversed(members.items()):  # creation order must not matter
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "set"


def test_finds_images_recursively_in_sorted_order(source_path):
    source = open_images(source_path)
    assert source.captions(range(len(source))) == NAMES
    batch = source.load([2, 0], 8)
    assert batch.images.shape == (2, 3, 8, 8)
    assert batch.images[:, 0, 0, 0].tolist() == [2, 0]
    assert source.resolution == 8


def test_keys_follow_the_bytes_alone(source_path, tmp_path):
    source = open_images(source_path)
    other = tmp_path / "other"
    other.mkdir()
    (other / "renamed.png").write_bytes(png((1, 1, 1)))
    assert open_images(other).keys([0]) == source.keys([1])
    assert len(set(source.keys(range(3)))) == 3


def test_follows_links_and_survives_loops(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.png").write_bytes(png())
    folder = tmp_path / "set"
    folder.mkdir()
    os.symlink(tmp_path / "real" / "a.png", folder / "link.png")
    os.symlink(tmp_path / "real", folder / "elsewhere")
    os.symlink(folder, folder / "loop")
    source = open_images(folder)
    assert source.captions(range(len(source))) == ["elsewhere/a.png", "link.png"]


def test_a_link_never_hides_a_folder_of_the_set(tmp_path):
    (tmp_path / "z" / "deep").mkdir(parents=True)
    (tmp_path / "z" / "deep" / "a.png").write_bytes(png())
    for link in ("a_link", "zz_link"):  # before and after it in order of names
        os.symlink(tmp_path / "z" / "deep", tmp_path / link)
    os.symlink("self.png", tmp_path / "self.png")
    os.symlink(tmp_path / "z", tmp_path / "z" / "deep" / "up")
    source = open_images(tmp_path)
    assert source.captions(range(len(source))) == ["self.png", "z/deep/a.png"]
    assert "cannot be read: too many levels" in source.load([0], 8).broken[0].reason


def test_folders_pipes_and_hidden_places(tmp_path):
    for name in ("x.png/a.png", ".git/b.png", "c.png/.hidden.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(png())
    os.mkfifo(tmp_path / "pipe.png")  # opened, it would wait for ever
    source = open_images(tmp_path)
    assert source.captions(range(len(source))) == ["pipe.png", "x.png/a.png"]
    assert source.load([0], 8).broken[0].reason == "not a regular file"


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, monkeypatch):
    (tmp_path / "closed").mkdir()
    (tmp_path / "a.png").write_bytes(png())
    scandir = os.scandir

    def refuse(path):  # chmod 000 does not stop root
        if str(path) in closed:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    closed = {str(tmp_path / "closed")}
    monkeypatch.setattr(os, "scandir", refuse)
    batch = open_images(tmp_path).load([0, 1], 8)
    assert batch.indices == [0]
    assert batch.broken[1] == Broken("closed", "folder that cannot be listed")
    closed.add(str(tmp_path))
    with pytest.raises(ImagesError, match="cannot be opened: permission denied"):
        open_images(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_files_without_permission_are_broken(tmp_path):
    (tmp_path / "a.png").write_bytes(png())
    (tmp_path / "a.png").chmod(0)
    reason = open_images(tmp_path).load([0], 8).broken[0].reason
    assert reason == "cannot be read: permission denied"


def test_names_are_fit_for_terminals_and_json(tmp_path):
    (tmp_path / "a\x1b[31m\n.png").write_bytes(png())
    with open(os.fsencode(tmp_path) + b"/b\xff.png", "wb") as file:
        file.write(b"")
    source = open_images(tmp_path)
    assert source.captions([0, 1]) == [r"a\x1b[31m\n.png", r"b\udcff.png"]
    batch = source.load([0, 1], 8)
    assert batch.indices == [0]
    json.dumps(batch.broken[1].name, ensure_ascii=False).encode()


def test_broken_files_are_named_and_the_rest_loads(tmp_path):
    good = png()
    noisy = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(pixels).save(noisy, format="JPEG")
    png_noise = io.BytesIO()
    Image.fromarray(pixels).save(png_noise, format="PNG")
    png_noise = png_noise.getvalue()
    files = {
        "a_good.png": good,
        "b_truncated.png": png_noise[: len(png_noise) // 2],
        "c_truncated.jpg": noisy.getvalue()[:900],
        "d_empty.png": b"",
        "e_text.png": b"hello",
        "f_page.jpg": b"<!DOCTYPE html><html></html>",
        "g_good.png": good,
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    os.symlink(tmp_path / "gone", tmp_path / "h_dangling.png")
    source = open_images(tmp_path)
    batch = source.load(range(len(source)), 8)
    assert batch.indices == [0, 6]
    reasons = {b.name: b.reason for b in batch.broken.values()}
    assert reasons["d_empty.png"] == "empty file"
    assert reasons["e_text.png"] == reasons["f_page.jpg"] == "not an image"
    assert "truncated" in reasons["b_truncated.png"] and "truncated" in reasons["c_truncated.jpg"]
    assert "cannot be read" in reasons["h_dangling.png"]
    assert source.keys([7])[0].startswith("unreadable:")
    assert source.headers([0, 4])[1] is None


def test_a_damaged_zip_member_is_broken_alone(tmp_path):
    path = tmp_path / "set.zip"
    write_zip(path, {"a.png": png(), "b.png": png((1, 2, 3))})
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 6] ^= 255  # in a.png: its CRC no longer fits
    path.write_bytes(data)
    batch = open_images(path).load([0, 1], 8)
    assert batch.indices == [1] and "zip member" in batch.broken[0].reason


def test_paths_without_images_are_refused(tmp_path):
    with pytest.raises(ImagesError, match="no such file"):
        open_images(tmp_path / "nowhere")
    with pytest.raises(ImagesError, match="no images found"):
        open_images(tmp_path)
    (tmp_path / "file.txt").write_text("text")
    with pytest.raises(ImagesError, match="not a folder, zip, tar, .* or LMDB of images"):
        open_images(tmp_path / "file.txt")
    (tmp_path / "file.zip").write_text("text")
    with pytest.raises(ImagesError, match=r"file\.zip: not a zip file, or a damaged one"):
        open_images(tmp_path / "file.zip")
    write_zip(tmp_path / "empty.zip", {"notes.txt": b"text", "x.png/": b""})
    with pytest.raises(ImagesError, match=r"empty\.zip: no images found"):
        open_images(tmp_path / "empty.zip")
    os.symlink("round.zip", tmp_path / "round.zip")
    with pytest.raises(ImagesError, match=r"round\.zip: cannot be opened: too many levels"):
        open_images(tmp_path / "round.zip")


def test_a_zip_needs_no_suffix_and_a_source_may_have_a_name(tmp_path):
    write_zip(tmp_path / "data", {"../outside.png": png()})
    source = open_images(str(tmp_path / "data"), "my reals")
    assert source.name == source.identity()["path"] == "my reals"
    assert source.identity()["kind"] == "zip" and source.identity()["candidates"] == 1
    assert source.load([0], 8).indices == [0]  # nothing is unpacked, ".." leads nowhere
    assert open_images(tmp_path / "data").name == str(tmp_path / "data")


def test_damaged_zips_never_raise_anything_else(tmp_path):
    rng = np.random.default_rng(2)
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for i, kind in enumerate(
            (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
        ):
            archive.writestr(f"{i}.png", png(), compress_type=kind)
    original = path.read_bytes()
    assert open_images(path).load(range(4), 8).indices == [0, 1, 2, 3]
    loaded = 0
    for _ in range(300):
        data = bytearray(original)
        for position in rng.integers(0, len(data), rng.integers(1, 6)):
            data[position] = rng.integers(0, 256)
        path.write_bytes(data)
        with contextlib.suppress(ImagesError):
            source = open_images(path)
            loaded += len(source.load(range(len(source)), 8).indices)
    assert loaded > 300  # damage to one member leaves the others


def test_encrypted_members_are_broken(tmp_path):
    path = tmp_path / "set.zip"
    write_zip(path, {"a.png": png()})
    data = bytearray(path.read_bytes())
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    assert open_images(path).load([0], 8).broken[0].reason == "encrypted zip member"


def test_a_member_that_claims_to_be_huge_is_not_unpacked(tmp_path):
    path = tmp_path / "set.zip"
    write_zip(path, {"a.png": png()})
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.index(b"PK\x01\x02") + 24, 2**31)
    path.write_bytes(data)
    assert open_images(path).load([0], 8).broken[0].reason == "larger than 512 MiB"


def test_many_threads_read_one_source(source_path):
    source = open_images(source_path)
    expected = source.load(range(3), 8).images
    keys = source.keys(range(3))
    with ThreadPoolExecutor(8) as threads:
        batches = list(threads.map(lambda _: source.load(range(3), 8).images, range(40)))
        found = list(threads.map(lambda _: source.keys(range(3)), range(40)))
    assert all(torch.equal(batch, expected) for batch in batches)
    assert all(k == keys for k in found)


def test_indices_may_repeat(source_path):
    batch = open_images(source_path).load([1, 1, 0], 8)
    assert batch.indices == [1, 1, 0] and batch.images[:, 0, 0, 0].tolist() == [1, 1, 0]
    assert open_images(source_path).load([], 8).images.shape == (0, 3, 8, 8)


def test_same_images_in_folder_and_zip_have_the_same_keys(tmp_path):
    write_zip(tmp_path / "set.zip", {"b.png": png((1, 1, 1)), "a.png": png()})
    (tmp_path / "set").mkdir()
    for name, data in (("b.png", png((1, 1, 1))), ("a.png", png())):
        (tmp_path / "set" / name).write_bytes(data)
    one, two = open_images(tmp_path / "set.zip"), open_images(tmp_path / "set")
    assert one.keys([0, 1]) == two.keys([0, 1])
    assert torch.equal(one.load([0, 1], 4).images, two.load([0, 1], 4).images)


def test_broken_sentences():
    assert describe_broken([]) == "No images were skipped."
    one = describe_broken([Broken("a.png", "empty file")])
    assert one == "1 image was skipped: a.png (empty file)."
    many = [Broken(f"{i}.png", "empty file") for i in range(9)] + [Broken("x.png", "not an image")]
    assert describe_broken(many) == (
        "10 images were skipped: 0.png, 1.png, 2.png and 6 more (empty file); x.png (not an image)."
    )
    assert name_broken(many, reasons=1, names=1) == "0.png and 8 more (empty file); and 1 more"


def test_resolution_is_the_most_common_short_side(tmp_path):
    for i, size in enumerate([(32, 40), (32, 32), (64, 48), (48, 48), (32, 99)]):
        (tmp_path / f"{i}.png").write_bytes(png(size=size))
    assert open_images(tmp_path).resolution == 32


def test_a_tie_of_resolutions_goes_to_the_smaller(tmp_path):
    for i, side in enumerate([64, 32, 64, 32, 48]):
        (tmp_path / f"{i}.png").write_bytes(png(size=(side, side)))
    (tmp_path / "9.png").write_bytes(b"text")
    assert open_images(tmp_path).resolution == 32


def test_resolution_looks_at_all_parts_of_a_large_set(tmp_path):
    small, large = png(size=(8, 8)), png(size=(16, 16))
    write_zip(
        tmp_path / "set.zip", {f"{i:03}.png": small if i < 200 else large for i in range(500)}
    )
    assert open_images(tmp_path / "set.zip").resolution == 16


def test_resolution_of_nothing_readable_is_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(b"text")
    with pytest.raises(ImagesError, match="none of 1 files"):
        _ = open_images(tmp_path).resolution


def test_a_file_is_what_it_was_when_it_was_first_read(tmp_path):
    first, other = png((1, 2, 3)), png((4, 5, 6))
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / name).write_bytes(first)
    os.symlink(tmp_path / "later", tmp_path / "d.png")
    source = open_images(tmp_path)
    keys = source.keys(range(4))
    assert keys[:3] == [digest_bytes(first)] * 3 and keys[3].startswith("unreadable:")
    (tmp_path / "b.png").write_bytes(other)
    (tmp_path / "c.png").unlink()
    (tmp_path / "later").write_bytes(other)
    for _ in range(2):
        batch = source.load(range(4), 8)
        assert batch.indices == [0]
        reasons = [batch.broken[i].reason for i in (1, 2, 3)]
        assert reasons[0] == "changed since it was first read"
        assert reasons[1] == reasons[2] == "cannot be read: no such file or directory"
        for name in ("b.png", "c.png"):  # they are not trusted again
            (tmp_path / name).write_bytes(first)
    assert source.keys([0]) == [digest_bytes(first)]
    assert all(key.startswith("unreadable:") for key in source.keys([1, 2, 3]))
    assert source.headers([1, 2, 3]) == [None] * 3
    assert open_images(tmp_path).keys([1, 2, 3]) == [digest_bytes(d) for d in (first, first, other)]
