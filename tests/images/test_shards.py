"""Tars: the index, the names, the labels, and what happens when one changes."""

import io
import os
import random
import shutil
import tarfile
import tracemalloc

import pytest
import torch
from inputs import tiny_generator, write_images
from packing import samples, tar_of
from pictures import png

from probe.errors import ImagesError, UsageError
from probe.features.pair import draw_orders
from probe.images.blob import LocalBlob
from probe.images.braces import MOST_PATHS, expand, has_braces
from probe.images.open import open_images
from probe.images.packed import PackedNames
from probe.images.places import short_name
from probe.images.tar import index_tar
from probe.streams import numpy_stream

FILES = {f"{i:04}.png": png((i, i, i)) for i in range(12)}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PROBE_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def members_of(path) -> dict[str, bytes]:
    """Return what our index reads."""
    blob = LocalBlob(path)
    index = index_tar(blob)
    return {
        index.names[i]: blob.read(int(index.starts[i]), int(index.sizes[i]))
        for i in range(index.images)
    }


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_those_that_tarfile_finds(form, tmp_path):
    rng = random.Random(form)
    names = [
        f"{'d' * rng.randint(1, 90)}/{rng.choice(['', 'ünï/', 'e' * 70 + '/'])}{i:05}.png"
        for i in range(200)
    ]
    if form != tarfile.USTAR_FORMAT:  # which has room for 256 bytes
        names += [f"{'long' * 60}/{i}.png" for i in range(3)]
    data = {name: rng.randbytes(rng.choice([0, 1, 511, 512, 513, 5000])) for name in names}
    path = tar_of(tmp_path / "a.tar", data, form)
    with tarfile.open(path) as archive:
        expected = {m.name: archive.extractfile(m).read() for m in archive}
    assert members_of(path) == expected == data


def test_huge_members_and_numbers_in_base_256_are_followed(tmp_path):
    path = tmp_path / "a.tar"
    huge = tarfile.TarInfo("huge.png")
    huge.size = 9 * 2**30  # more than octal digits can say
    after = tarfile.TarInfo("after.png")
    after.size = 3
    with path.open("wb") as file:  # sparse on disk
        file.write(huge.tobuf(tarfile.GNU_FORMAT))
        file.seek(512 + huge.size)
        file.write(after.tobuf() + b"abc".ljust(512, b"\0") + bytes(1024))
    index = index_tar(LocalBlob(path))
    assert list(index.names) == ["after.png", "huge.png"]
    assert index.starts[0] == 512 + huge.size + 512 and index.sizes.tolist() == [3, -4]


def test_shards_of_webdataset_itself(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    with webdataset.TarWriter(str(tmp_path / "a.tar")) as writer:
        for i, data in enumerate(FILES.values()):
            writer.write({"__key__": f"{i:06}", "png": data, "cls": i % 3, "json": {"a": 1}})
    source = open_images(tmp_path / "a.tar")
    assert source.captions([0, 11]) == ["000000.png", "000011.png"]
    assert source.labels == [i % 3 for i in range(12)]


def test_several_tars_are_one_set(tmp_path):
    names, shards = list(FILES), tmp_path / "shards"
    shards.mkdir()
    for shard in range(3):
        part = {name: FILES[name] for name in names[shard * 4 : shard * 4 + 4]}
        tar_of(shards / f"{shard:02}.tar", samples(part, [shard] * 4))
    (shards / "README.md").write_text("not an image")
    for place in (shards / "{00..02}.tar", shards, shards / "{00,01,02}.tar"):
        source = open_images(place)
        assert source.captions([0, 4, 11]) == [
            "00.tar/0000.png", "01.tar/0004.png", "02.tar/0011.png",
        ]  # fmt: skip
        assert source.labels == [0] * 4 + [1] * 4 + [2] * 4
        assert source.load(range(12), 8).images[:, 0, 0, 0].tolist() == list(range(12))
    with pytest.raises(ImagesError, match=r"2 of 5 files are missing: \S*03\.tar, \S*04\.tar"):
        open_images(shards / "{00..04}.tar")
    with pytest.raises(ImagesError, match=r"3 \.tar.* Name the folder of the \.tar files itself"):
        open_images(tmp_path)


def test_a_folder_with_images_beside_its_tars_is_a_folder(tmp_path):
    tar_of(tmp_path / "old.tar", FILES)
    (tmp_path / "a.png").write_bytes(png())
    source = open_images(tmp_path)
    assert len(source) == 1 and "1 .tar" in source.notes[0]


def test_the_tar_of_a_folder_keeps_its_labels(tmp_path):
    labels = b'{"labels": [["a.png", 4], ["b.png", 2]]}'
    data = {"set/b.png": png(), "set/a.png": png(), "set/dataset.json": labels, "set/.x.png": b""}
    source = open_images(tar_of(tmp_path / "a.tar", data))
    assert source.captions([0, 1]) == ["set/a.png", "set/b.png"] and source.labels == [4, 2]


@pytest.mark.parametrize(
    ("beside", "message"),
    [
        ({"0000.cls": b"3"}, "11 of 12 images have no usable label; 0001.png has no .cls"),
        ({"0000.cls": b"-1"}, "1 of 12 .* 0000.png has a .cls or .json beside it that holds no"),
        ({"0000.json": b'{"label": "cat"}'}, "0000.png has a .cls or .json"),
        ({"0000.json": b'{"label": 2'}, None),
        ({"0000.json": b"[" * 60_000}, None),
        ({"0000.json": b'{"width": 2}'}, None),
    ],
)
def test_labels_are_checked_when_they_are_needed(tmp_path, beside, message):
    source = open_images(tar_of(tmp_path / "a.tar", {**FILES, **beside}))
    assert len(source) == 12 and source.notes == []
    if message is None:
        assert source.labels is None
        return
    with pytest.raises(ImagesError, match=message):
        _ = source.labels


def test_an_index_is_made_once_and_again_for_a_changed_tar(tmp_path, cache, monkeypatch):
    path = tar_of(tmp_path / "a.tar", FILES)
    open_images(path)
    (stored,) = cache.glob("indexes/*/*.safetensors")
    with monkeypatch.context() as patch:
        patch.setattr("probe.images.shards.index_tar", lambda blob: pytest.fail("indexed twice"))
        assert len(open_images(path)) == 12
    stored.write_bytes(stored.read_bytes()[:-1])  # a damaged index is made again
    assert len(open_images(path)) == 12
    tar_of(path, {**FILES, "more.png": png()})
    assert len(open_images(path)) == 13


def test_a_tar_that_changes_in_use_is_noticed(tmp_path):
    path = tar_of(tmp_path / "a.tar", FILES)
    source = open_images(path)
    assert source.load([0], 8).indices == [0]
    status = os.stat(path)
    tar_of(path, dict(reversed(FILES.items())))
    assert source.load([1], 8).broken[1].reason == "a.tar changed while it was in use"
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # the index looks current
    assert "its tar changed after it was indexed" in open_images(path).load([0], 8).broken[0].reason


def test_members_that_are_no_files_are_named_with_the_reason(tmp_path):
    path = tar_of(tmp_path / "a.tar", FILES)
    with tarfile.open(path, "a") as archive:
        for name, kind in (("l.png", tarfile.SYMTYPE), ("h.png", tarfile.LNKTYPE),
                           ("d.png", tarfile.CHRTYPE), ("f.png", tarfile.FIFOTYPE),
                           ("x.png", tarfile.DIRTYPE)):  # fmt: skip
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    source = open_images(path)
    assert len(source) == 16
    reasons = {b.name: b.reason for b in source.load(range(16), 8).broken.values()}
    assert reasons == {
        "l.png": "link inside a tar, which is not followed; pack the file itself",
        "h.png": "link inside a tar, which is not followed; pack the file itself",
        "d.png": "not a regular file",
        "f.png": "not a regular file",
    }


def test_a_tar_cut_short_keeps_its_whole_members(tmp_path):
    path = tar_of(tmp_path / "a.tar", {f"{i}.png": png() for i in range(3)})
    data = path.read_bytes()
    path.write_bytes(data[: 2 * 1024 + 512 + 10])
    source = open_images(path)
    assert [b.reason for b in source.load(range(3), 8).broken.values()] == [
        "cut off at the end of the tar; copy or download the tar again"
    ]
    path.write_bytes(data[: 2 * 1024 + 100])
    with pytest.raises(ImagesError, match="a damaged tar: at byte 2048, a header is cut off"):
        open_images(path)


def test_compressed_and_other_files_are_named(tmp_path):
    for kind, tool in (("gz", "gunzip"), ("bz2", "bunzip2"), ("xz", "unxz")):
        for name in (f"{kind}.tar", f"a.tar.{kind}"):
            with tarfile.open(tmp_path / name, f"w:{kind}") as archive:
                archive.addfile(tarfile.TarInfo("a.png"), io.BytesIO())
            with pytest.raises(ImagesError, match=f"compressed with .*: {tool} "):
                open_images(tmp_path / name)
    (tmp_path / "text.tar").write_bytes(b"this is text" * 100)
    with pytest.raises(ImagesError, match="not a tar file"):
        open_images(tmp_path / "text.tar")
    (tmp_path / "empty.tar").write_bytes(bytes(1024))
    with pytest.raises(ImagesError, match="no images found"):
        open_images(tmp_path / "empty.tar")
    with pytest.raises(ImagesError, match=r"no such file or folder. Did you mean '.*text\.tar'"):
        open_images(tmp_path / "texd.tar")


def test_many_tars_are_indexed_in_processes(tmp_path):
    tar_of(tmp_path / "00.tar", FILES)
    for i in range(1, 20):
        shutil.copyfile(tmp_path / "00.tar", tmp_path / f"{i:02}.tar")
    source = open_images(tmp_path / "{00..19}.tar")
    assert len(source) == 240 and source.captions([239]) == ["19.tar/0011.png"]
    (tmp_path / "19.tar").write_bytes(b"x" * 2048)
    with pytest.raises(ImagesError, match=r"19\.tar: not a tar file"):
        open_images(tmp_path / "{00..19}.tar")


def test_braces_stand_for_paths_as_in_a_shell():
    assert expand("a/{08..11}.tar") == [f"a/{n}.tar" for n in ("08", "09", "10", "11")]
    assert expand("{8..10}-{a,b}") == ["8-a", "8-b", "9-a", "9-b", "10-a", "10-b"]
    assert expand("{2..0}") == ["2", "1", "0"] and expand("{x}{1..2}") == ["{x}1", "{x}2"]
    assert not has_braces("{x}") and has_braces("s3://b/{0..3}.tar") and not has_braces("a{1..b}")
    with pytest.raises(UsageError, match=f"more than {MOST_PATHS}"):
        expand("{0..999999999999}{0..999999999999}")


def test_a_checkpoint_named_tar_is_a_checkpoint(cli, bank, tmp_path):
    write_images(tmp_path / "reals", 20, seed=0)
    torch.save(tiny_generator().state_dict(), tmp_path / "model.pth.tar")
    (tmp_path / "junk.tar").write_bytes(b"\x80\x02}q\0.")
    for name, said in (("model.pth.tar", "model.pth.tar"), ("junk.tar", "junk.tar")):
        result = cli("rank", "--real", tmp_path / "reals", "--gen", tmp_path / name, "--bank", bank,
                     "--offline", "--backbones", "colour")  # fmt: skip
        assert "not a tar" not in result.err and (result.code == 0 or said in result.err)
    drawn = tar_of(tmp_path / "fakes.tar", {f"{i}.png": png((i, 2 * i, 3 * i)) for i in range(20)})
    result = cli("rank", "--real", tmp_path / "reals", "--gen", drawn, "--bank", bank,
                 "--offline", "--backbones", "colour")  # fmt: skip
    assert result.code == 0, result.err


def test_what_is_made_of_a_set_is_named_after_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    places = {
        "photos.zip": "photos", "a/my photos": "my photos", ".": tmp_path.name, "/": "images",
        "shards/{000..150}.tar": "000..150", "s3://bucket/set.tar": "set",
    }  # fmt: skip
    assert {place: short_name(place) for place in places} == places


def test_packed_names_are_found_and_read_back():
    names = sorted(
        {*(f"{i}/{i * 7919 % 1000}.png" for i in range(500)), "ü.png", "\udcff.png"},
        key=lambda name: name.encode("utf-8", "surrogateescape"),
    )
    packed = PackedNames.pack([n.encode("utf-8", "surrogateescape") for n in names])
    assert list(packed) == names and packed[-1] == names[-1] and packed[1:3] == names[1:3]
    assert [packed.find(name) for name in names] == list(range(len(names)))
    with pytest.raises(KeyError):
        packed.find("nothing.png")


def test_a_sample_of_many_takes_little_memory_and_keeps_its_order():
    tracemalloc.start()
    orders = draw_orders(range(1_000_000), range(1000), 0)
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()
    expected = numpy_stream(0, "subset", "fake").permutation(1000).tolist()
    assert list(orders["fake"]) == expected and list(orders["fake"][5:9]) == expected[5:9]
    assert all(type(index) is int for index in orders["real"][:10])


@pytest.mark.parametrize("count", [1, 20])
def test_a_first_opening_reports_its_bytes(tmp_path, count):
    """One tar is read by threads, twenty by processes."""
    (tmp_path / "set").mkdir()
    for number in range(count):
        tar_of(tmp_path / "set" / f"{number:02}.tar", FILES)
    place, events = tmp_path / "set", []
    open_images(place, on_event=events.append)
    total = sum(path.stat().st_size for path in place.iterdir())
    assert (events[0].done, events[-1].done) == (0, total)
    assert {(e.what, e.total) for e in events} == {(f"indexing {place}", total)}
    assert len(events) > count
    events.clear()
    open_images(place, on_event=events.append)
    assert events == []
