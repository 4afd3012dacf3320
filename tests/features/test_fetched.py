"""References at URLs: fetched once, again if they change, and never half."""

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from probe.errors import ImagesError
from probe.features import fetched
from probe.features.fetched import fetch_reference
from probe.features.reference import About, Kept, load_reference, pack, save_reference
from probe.features.store import REFERENCES, digest_keys
from probe.images import remote

fsspec = pytest.importorskip("fsspec")
pytest.importorskip("aiohttp")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PROBE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "WAITS", (0.01, 0.01))
    return tmp_path / "cache"


def write(path: Path, seed: int = 0, version: int = 1) -> Path:
    rng = np.random.default_rng(seed)
    keys = [f"{seed}-{i}" for i in range(20)]
    about = About(
        version=version, probe="0", source="photos", images=20, sample=20,
        sample_digest=digest_keys(keys), seed=0, resolution=32,
        backbones={"colour": Kept(space={}, facts={"dim": 100}, images=20)},
    )  # fmt: skip
    tensors = {
        "keys": pack(keys),
        "names": pack(keys),
        "features.colour": rng.standard_normal((20, 100)).astype(np.float32),
        "mean.colour": np.zeros(100),
        "scatter.colour": np.eye(9, 100),
    }
    save_reference(path, about, tensors)
    return path


def fetch(url: str, *, offline: bool = False, tell: Callable = lambda event: None) -> Path:
    return fetch_reference(url, offline=offline, on_event=tell)


@pytest.mark.parametrize("at", ["http", "query", "memory"])
def test_a_copy_is_fetched_once_and_has_the_bytes(server, at):
    path = write(server.folder / "ref.safetensors")
    url = f"{server.url}/ref.safetensors" + ("?download=true" if at == "query" else "")
    if at == "memory":
        url = "memory://team/ref.safetensors"
        fsspec.filesystem("memory").pipe("/team/ref.safetensors", path.read_bytes())
    events: list = []
    copy = fetch(url, tell=events.append)
    assert copy.read_bytes() == path.read_bytes()
    size = path.stat().st_size
    assert {(e.what, e.total) for e in events} == {(f"downloading {url}", size)}
    assert (events[0].done, events[-1].done) == (0, size)
    events.clear()
    assert fetch(url, tell=events.append) == copy and events == []


def test_a_changed_one_is_fetched_again_and_the_old_copy_stays(server):
    path, url = write(server.folder / "ref.safetensors"), f"{server.url}/ref.safetensors"
    first = fetch(url)
    write(path, seed=1)
    second = fetch(url)
    assert load_reference(second).keys[0] == "1-0"
    assert load_reference(first).keys[0] == "0-0"  # a ranking may be reading it
    assert fetch(url, offline=True) == second
    write(path, seed=0)
    assert fetch(url) == first and fetch(url, offline=True) == first


def test_offline_the_copy_is_enough_and_without_one_it_is_said(server):
    write(server.folder / "ref.safetensors")
    url = f"{server.url}/ref.safetensors"
    with pytest.raises(ImagesError, match="no copy of it, and --offline forbids.*once without"):
        fetch(url, offline=True)
    assert server.requests == []
    copy = fetch(url)
    server.requests.clear()
    assert fetch(url, offline=True) == copy and server.requests == []


def test_an_unreachable_server_and_a_copy(server, monkeypatch):
    write(server.folder / "ref.safetensors")
    url = f"{server.url}/ref.safetensors"
    fetch(url)
    server.failures = 100
    with pytest.raises(ImagesError, match="answered 500.* The cache has a copy: --offline"):
        fetch(url)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{free.getsockname()[1]}/ref.safetensors"
    with pytest.raises(ImagesError, match="cannot be opened.*Check its address") as refused:
        fetch(nowhere)
    assert "--offline" not in str(refused.value)


@pytest.fixture
def interrupted(server, monkeypatch):
    """A reference and its URL, of which 3 000 bytes came before the server failed."""
    path, url = write(server.folder / "ref.safetensors"), f"{server.url}/ref.safetensors"
    monkeypatch.setattr(fetched, "PIECE", 1000)

    def breaks(event):
        if event.done >= 3000:
            server.failures = 100

    with pytest.raises(ImagesError, match="answered 500"):
        fetch(url, tell=breaks)
    server.failures = 0
    return path, url


def test_an_interrupted_download_goes_on_where_it_stopped(interrupted, server, cache):
    path, url = interrupted
    (partial,) = cache.glob(f"{REFERENCES}/*/.*.partial")
    assert partial.stat().st_size == 3000
    server.requests.clear()
    assert fetch(url).read_bytes() == path.read_bytes()
    spans = [span for method, _, span in server.requests if method == "GET" and span]
    assert "bytes=3000-3999" in spans and "bytes=2000-2999" not in spans
    assert not list(cache.glob(f"{REFERENCES}/*/.*.partial"))


def test_what_another_version_left_is_not_joined(interrupted):
    path, url = interrupted
    write(path, seed=1)
    assert fetch(url).read_bytes() == path.read_bytes()


def test_one_that_changes_during_the_download_is_refused(server, cache, monkeypatch):
    path, url = write(server.folder / "ref.safetensors"), f"{server.url}/ref.safetensors"
    monkeypatch.setattr(fetched, "PIECE", 1000)

    def changes(event):
        if event.done == 3000:
            write(path, seed=1)

    with pytest.raises(ImagesError, match="changed while it was downloaded. Run the command again"):
        fetch(url, tell=changes)
    assert not list(cache.glob(f"{REFERENCES}/*/*"))[1:]  # the lock alone
    assert fetch(url).read_bytes() == path.read_bytes()


def page(path: Path) -> None:
    path.write_text("<html>Sign in</html>")


def cut(path: Path) -> None:
    data = write(path).read_bytes()
    path.write_bytes(data[:-9])


def flip(path: Path) -> None:
    data = bytearray(write(path).read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "no such file or folder"),
        (page, "is a web page, not a file"),
        (cut, "cannot be read .* take a whole copy"),
        (flip, "is not what was written. Make it again"),
        (lambda path: write(path, version=2), "is a reference of format 2; this version"),
        (lambda path: path.write_bytes(b""), "cannot be read"),
        (lambda path: path.write_bytes(bytes(5000)), "cannot be read"),
    ],
)
def test_what_is_wrong_is_one_sentence_and_nothing_is_kept(server, cache, make, words):
    make(server.folder / "ref.safetensors")
    url = f"{server.url}/ref.safetensors"
    with pytest.raises(ImagesError, match=words) as refused:
        fetch(url)
    assert str(refused.value).startswith(url) and "\n" not in str(refused.value)
    assert not [p for p in cache.glob(f"{REFERENCES}/*/*") if p.name != ".lock"]


def test_a_damaged_note_of_the_copy_is_no_copy(server, cache):
    write(server.folder / "ref.safetensors")
    url = f"{server.url}/ref.safetensors"
    copy = fetch(url)
    (note,) = cache.glob(f"{REFERENCES}/*/copy.json")
    note.write_text(json.dumps({"url": url, "mark": "", "file": "../../x"})[:-4])
    assert fetch(url) == copy
    os.unlink(copy)
    assert fetch(url) == copy and copy.exists()
