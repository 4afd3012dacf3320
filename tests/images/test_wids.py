"""Lists of tars as widsindex writes them: the same set as the tars."""

import json
from pathlib import Path

import pytest
from inputs import write_images
from packing import pack, samples, tar_of
from pictures import png
from servers import serving

from probe.errors import ImagesError
from probe.images.open import open_images
from probe.images.wids import read_listing

FILES = {f"{i:04}.png": png((i, i, i)) for i in range(12)}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PROBE_CACHE_DIR", str(tmp_path / "cache"))


def listing(path: Path, shards: list, **more) -> Path:
    """Write a list with every attribute that widsindex 0.2.100 writes."""
    shardlist = [
        {"url": str(url), "md5sum": "0" * 32, "nsamples": count, "filesize": 10240}
        for url, count in shards
    ]
    record = {"__kind__": "wids-shard-index-v1", "wids_version": 1, "shardlist": shardlist}
    path.write_text(json.dumps({**record, "name": "photos", **more}, indent=2))
    return path


@pytest.fixture
def tars(tmp_path) -> Path:
    pack(FILES, "shards", tmp_path / "set")
    return tmp_path / "set"


def shards(folder: str = "", counts=(4, 4, 4)) -> list:
    return [(f"{folder}{number:05}.tar", count) for number, count in enumerate(counts)]


def test_a_list_is_the_set_of_its_tars(tars):
    path = listing(tars / "index.json", shards())
    source, plain = open_images(path), open_images(tars / "{00000..00002}.tar")
    assert list(source.names) == list(plain.names) and source.notes == []
    assert source.keys(range(12)) == plain.keys(range(12))
    assert source.marks(range(12)) == plain.marks(range(12))


def test_its_order_counts(tars):
    source = open_images(listing(tars / "index.json", shards()[::-1]))
    assert source.captions([0, 11]) == ["00002.tar/0008.png", "00000.tar/0003.png"]


@pytest.mark.parametrize("how", ["absolute", "below", "above", "base"])
def test_where_paths_lead(tars, tmp_path, how):
    if how == "absolute":
        path = listing(tmp_path / "index.json", shards(f"{tars}/"))
    elif how == "below":
        path = listing(tmp_path / "index.json", shards("set/"))
    elif how == "above":
        (tars / "lists").mkdir()
        path = listing(tars / "lists" / "index.json", shards("../"))
    else:
        path = listing(tmp_path / "index.json", shards(), base="set")
    assert open_images(path).keys([0, 11]) == open_images(tars / "{00000..00002}.tar").keys([0, 11])


@pytest.mark.parametrize("how", ["relative", "from the root", "absolute"])
def test_a_list_at_a_url(tars, how):
    pytest.importorskip("aiohttp")
    plain = open_images(tars / "{00000..00002}.tar")
    with serving(tars.parent) as server:
        folder = {"relative": "", "from the root": "/set/", "absolute": f"{server.url}/set/"}[how]
        listing(tars / "index.json", shards(folder))
        source = open_images(f"{server.url}/set/index.json")
        assert source.keys(range(12)) == plain.keys(range(12))
        here = open_images(listing(tars.parent / "here.json", shards(f"{server.url}/set/")))
        assert list(here.names) == list(plain.names)
        with pytest.raises(ImagesError, match="1 of 4 files are missing.*Correct the list"):
            more = [*shards(folder), (f"{folder}9.tar", 4)]
            listing(tars / "more.json", more)
            open_images(f"{server.url}/set/more.json")


def test_counts_that_are_wrong_are_said_and_the_tars_count(tars):
    path = listing(tars / "index.json", shards(counts=(4, 5, 3)))
    source = open_images(path)
    (note,) = source.notes
    assert len(source) == 12 and note.startswith(f"{path}: wrong sample counts for 2 of 3 tars")
    assert f"{tars}/00001.tar: 5 listed, 4 with an image found" in note


def test_samples_of_several_images_are_samples(tmp_path):
    members = {f"{i}.{side}.png": png() for i in range(3) for side in ("left", "right")}
    tar_of(tmp_path / "a.tar", members)
    source = open_images(listing(tmp_path / "index.json", [("a.tar", 3)]))
    assert len(source) == 6 and source.notes == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is damaged .not JSON.*Pass a list of tars"),
        ('{"labels": []}', "is damaged .'wids_version' is missing"),
        ('{"wids_version": 1, "shardlist": [{"url": "a.tar"}]}', "'shardlist.0.nsamples' is miss"),
        ('{"wids_version": 2, "shardlist": []}', "is a list of version 2, and version 1 is read"),
        ('{"wids_version": 1, "shardlist": []}', "names no tars"),
        ('{"wids_version": 1, "shardlist": [], "datasets": [{}]}', "names other lists"),
        (
            '{"wids_version": 1, "shardlist": [{"url": "a.tar", "nsamples": 1}, '
            '{"url": "a.tar", "nsamples": 1}]}',
            "names a tar twice",
        ),
        (
            '{"wids_version": 1, "shardlist": [{"url": "a.tar", "nsamples": 1}]}',
            "1 of 1 files are miss",
        ),
        ("[" * 100_000, "is damaged"),
    ],
)
def test_what_is_no_list_is_said(tmp_path, text, words):
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(ImagesError, match=words) as refused:
        open_images(tmp_path / "index.json")
    assert str(refused.value).startswith(str(tmp_path / "index.json"))


def test_webdataset_resolves_it_in_the_same_way(tars, tmp_path):
    specs = pytest.importorskip("wids.wids_specs", reason="webdataset up to 0.2 has wids")
    for urls in (shards(), shards("../set/"), shards(f"{tars}/")):
        path = str(listing(tars / "index.json", urls))
        theirs = specs.load_dsdesc_and_resolve(path, base=specs.urldir(path))
        found = [(Path(s["url"]).resolve(), s["nsamples"]) for s in theirs["shardlist"]]
        ours = [(Path(tar).resolve(), count) for tar, count in read_listing(path).items()]
        assert ours == found


def test_scores_are_those_of_the_tars(cli, bank, tmp_path):
    reals = write_images(tmp_path / "reals", 24, seed=0)
    fakes = write_images(tmp_path / "fakes", 24, seed=5, blue=60)
    tars = tmp_path / "set"
    pack({p.name: p.read_bytes() for p in sorted(reals.iterdir())}, "shards", tars)
    found = []
    for real in (tars / "{00000..00002}.tar", listing(tars / "i.json", shards(counts=(8, 8, 8)))):
        result = cli(
            "rank", "--real", real, "--gen", fakes, "--bank", bank, "--offline",
            "--backbones", "colour,edges", "--format", "json",
        )  # fmt: skip
        assert result.code == 0, result.err
        found.append({row["name"]: row["score"] for row in json.loads(result.out)["rows"]})
    assert found[0] == found[1]


def test_labels_are_those_of_the_tars(tmp_path):
    tar_of(tmp_path / "a.tar", samples(FILES, [i % 3 for i in range(12)]))
    source = open_images(listing(tmp_path / "index.json", [("a.tar", 12)]))
    assert source.labels == [i % 3 for i in range(12)]
