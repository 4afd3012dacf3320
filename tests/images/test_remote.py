"""Images at URLs: the same as on this machine, by range requests, with faults named."""

import builtins
import json
import socket

import numpy as np
import pytest
from inputs import photo, write_images
from packing import pack, tar_of
from pictures import encode, png
from servers import serving

from probe.errors import ImagesError
from probe.images import remote
from probe.images.open import open_images
from probe.images.recent import Recent

fsspec = pytest.importorskip("fsspec")
pytest.importorskip("aiohttp")


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    return {f"{i:03}.jpg": encode(photo(rng), "JPEG") for i in range(24)}


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    monkeypatch.setenv("PROBE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "WAITS", (0.01, 0.01))
    monkeypatch.setattr(remote, "_RECENT", Recent(2**20, len))


KINDS = ("folder", "zip", "tar", "shards", "parquet")


@pytest.mark.parametrize("how", KINDS)
@pytest.mark.parametrize("at", ["http", "memory"])
def test_a_set_elsewhere_is_the_set_here(files, how, at, server):
    if how == "parquet":
        pytest.importorskip("pyarrow")
    here = pack(files, how, server.folder / how)
    url = here.replace(str(server.folder), server.url)
    if at == "memory":
        system = fsspec.filesystem("memory")
        for path in (server.folder / how).iterdir():
            system.pipe(f"/{how}/{path.name}", path.read_bytes())
        url = here.replace(str(server.folder), "memory:/")
        assert url.startswith("memory://")
    source, local = open_images(url), open_images(here)
    assert list(source.names) == list(local.names)
    assert source.keys(range(24)) == local.keys(range(24))
    assert source.load([5, 3], 32).images.equal(local.load([5, 3], 32).images)


def test_a_numpy_file_elsewhere(server):
    images = np.random.default_rng(0).integers(0, 256, (9, 16, 16, 3), dtype=np.uint8)
    np.savez(server.folder / "a.npz", images)
    source, local = open_images(f"{server.url}/a.npz"), open_images(server.folder / "a.npz")
    assert source.keys(range(9)) == local.keys(range(9))


def test_only_what_is_needed_is_asked_for_and_once(files, server):
    noise = {f"{i:03}.bmp": encode(photo(np.random.default_rng(i), 256), "BMP") for i in range(40)}
    pack(noise, "zip", server.folder / "zip")
    source = open_images(f"{server.url}/zip/set.zip")
    source.keys([3, 30])
    assert all(span for command, _, span in server.requests if command == "GET")
    server.requests.clear()
    source.keys([4, 31])
    source.load([4, 31], 32)
    spans = [span.removeprefix("bytes=").split("-") for _, _, span in server.requests]
    assert len(spans) == 2 and all(int(b) - int(a) < 200_000 for a, b in spans)


def test_an_index_of_tars_elsewhere_is_made_once(files, server):
    pack(files, "shards", server.folder / "shards")
    url = f"{server.url}/shards/{{00000..00002}}.tar"
    open_images(url)
    server.requests.clear()
    open_images(url)._survey  # noqa: B018
    asked = {(command, span) for command, _, span in server.requests}
    assert ("GET", "bytes=0-1048575") not in asked
    tar_of(server.folder / "shards" / "00001.tar", {"new.jpg": files["000.jpg"]})
    assert len(open_images(url)) == 17


def test_ranking_and_scoring_take_urls_and_braces(cli, bank, files, server, tmp_path):
    pack(files, "shards", server.folder / "real")
    write_images(tmp_path / "fakes", 24, seed=5, blue=60)
    fakes = {p.name: p.read_bytes() for p in sorted((tmp_path / "fakes").iterdir())}
    pack(fakes, "zip", server.folder / "fake")
    real, gen = f"{server.url}/real/{{00000..00002}}.tar", f"{server.url}/fake/set.zip"
    out = tmp_path / "out"
    common = ("--bank", bank, "--offline", "--backbones", "colour,edges")
    result = cli("rank", "--real", real, "--gen", gen, *common, "--out", out, "--format", "json")
    assert result.code == 0, result.err
    assert json.loads(result.out)["n_real"] == 24
    scored = cli("score", gen, "--run", out, "--bank", bank, "--offline", "--format", "json")
    assert scored.code == 0, scored.err
    measured = cli("metrics", "--real", real, "--gen", gen, *common)
    assert measured.code == 0, measured.err
    checked = cli("doctor", "--real", real, "--gen", gen, "--bank", bank, "--no-measure")
    assert "24 images" in checked.out, checked.err


def test_a_server_that_fails_for_a_moment_is_asked_again(files, server, monkeypatch):
    monkeypatch.setattr(remote, "_RECENT", Recent(0, len))
    pack(files, "tar", server.folder / "tar")
    source = open_images(f"{server.url}/tar/set.tar")
    server.failures = 2
    assert source.load([0], 32).indices == [0]
    server.failures = 100
    assert (
        source.load([1], 32).broken[1].reason.startswith("cannot be read: the server answered 500")
    )
    with pytest.raises(ImagesError, match="the server answered 500.*Check its address"):
        open_images(f"{server.url}/tar/set.tar")


def test_a_server_without_range_requests_is_named(files, tmp_path):
    pack(files, "tar", tmp_path / "tar")
    with (
        serving(tmp_path, ranges=False) as server,
        pytest.raises(ImagesError, match="whole files only, without range requests"),
    ):
        open_images(f"{server.url}/tar/set.tar")


def test_missing_places_are_named(files, server):
    for place in ("a.tar", "a.zip", "a.npz", "folder", "{0..3}.tar"):
        with pytest.raises(ImagesError, match="no such file or folder|4 of 4 files are missing"):
            open_images(f"{server.url}/{place}")
    with pytest.raises(ImagesError, match="no such file"):
        open_images("memory://nothing/here.tar")


def test_a_file_is_never_taken_for_a_folder(server):
    (server.folder / "large.bin").write_bytes(bytes(1000))
    with pytest.raises(ImagesError, match="not a folder, zip"):
        open_images(f"{server.url}/large.bin")
    assert server.requests == []
    (server.folder / "v1.0").mkdir()
    (server.folder / "v1.0" / "a.png").write_bytes(png())
    assert len(open_images(f"{server.url}/v1.0/")) == 1


def test_a_server_that_is_not_there(monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/a.tar"
    with pytest.raises(ImagesError, match="cannot be opened: .*connect.*Check its address"):
        open_images(url)


def test_what_to_install_is_said(monkeypatch):
    with pytest.raises(ImagesError, match=r"s3:// needs a package: pip install s3fs"):
        open_images("s3://bucket/{00..10}.tar")
    with pytest.raises(ImagesError, match="Protocol not known"):
        open_images("nonsense://a/b.tar")
    real_import = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith(("fsspec", "pyarrow", "lmdb")):
            raise ModuleNotFoundError(f"No module named '{name}'")
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImagesError, match=r'pip install "gan-probe\[remote\]"'):
        open_images("https://127.0.0.1/a.tar")


def test_a_checkpoint_at_a_url_is_refused(cli, bank, tmp_path):
    reals = write_images(tmp_path / "reals", 20, seed=0)
    result = cli("rank", "--real", reals, "--gen", "https://127.0.0.1/G.pkl", "--bank", bank)
    assert result.code == 1 and "checkpoints are read from this machine" in result.err
