"""Data sets on the Hugging Face hub: the real HfFileSystem against a server of ours."""

import hashlib
import http.server
import json
import os
import re
import subprocess
import sys
import threading
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from inputs import photo, write_images
from packing import tar_of, write_parquet
from pictures import encode, png

from probe.errors import ImagesError
from probe.images import remote
from probe.images.open import open_images
from probe.images.places import is_repository
from probe.images.recent import Recent

pytest.importorskip("aiohttp")
fsspec = pytest.importorskip("fsspec")
COMMIT = "0123456789abcdef0123456789abcdef01234567"
API = re.compile(r"/api/datasets/(\w+/[\w.]+)(?:/(revision|tree)/(\w+)(?:/(.*))?)?")
FILE = re.compile(r"/datasets/(\w+/[\w.]+)/resolve/(\w+)/(.*)")


class Hub(http.server.BaseHTTPRequestHandler):
    """Serves folders owner/name as data sets, on the branches main and next."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        url = urlsplit(self.path)
        path = unquote(url.path)
        self.server.requests.append((path, self.headers.get("Range")))
        if (found := API.fullmatch(path)) is not None:
            self.answer_api(*found.groups(), recursive="recursive=true" in url.query.lower())
        elif (found := FILE.fullmatch(path)) is not None:
            self.answer_file(*found.groups())
        else:
            self.fail("EntryNotFound")

    do_HEAD = do_GET

    def answer_api(self, name, what, revision, below, *, recursive):
        folder = self.server.folder / name
        if not folder.is_dir():
            self.fail("RepoNotFound")
        elif revision not in (None, "main", "next"):
            self.fail("RevisionNotFound")
        elif what == "tree":
            self.list_files(folder, folder / (below or ""), recursive)
        else:
            self.send(json.dumps({"id": name, "sha": COMMIT, "siblings": []}).encode())

    def list_files(self, folder, top, recursive):
        if not top.is_dir():
            self.fail("EntryNotFound")
            return
        rows = []
        for path in sorted(top.rglob("*") if recursive else top.iterdir()):
            is_file = path.is_file()
            data = path.read_bytes() if is_file else b""
            rows.append({
                "type": "file" if is_file else "directory",
                "path": path.relative_to(folder).as_posix(),
                "oid": hashlib.sha1(data).hexdigest(), "size": len(data),
            })  # fmt: skip
        self.send(json.dumps(rows).encode())

    def answer_file(self, name, revision, below):
        path = self.server.folder / name / below
        if not path.is_file():
            self.fail("EntryNotFound")
            return
        span = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        data = path.read_bytes()
        self.send(data[int(span[1]) : int(span[2]) + 1] if span else data, 206 if span else 200)

    def send(self, data, status=200):
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def fail(self, code):
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setenv("PROBE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "WAITS", (0.01,))
    monkeypatch.setattr(remote, "_RECENT", Recent(2**20, len))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.daemon_threads = True
    server.folder, server.requests = tmp_path / "hub", []
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    # What HF_ENDPOINT does, which huggingface_hub reads when it is imported.
    monkeypatch.setitem(fsspec.config.conf, "hf", {"endpoint": server.url, "token": False})
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    return {f"{i:03}.jpg": encode(photo(rng), "JPEG") for i in range(24)}


def digests(files):
    return [hashlib.sha256(data).hexdigest() for data in files.values()]


def dataset(hub, files, name="team/photos"):
    """Write a data set as `push_to_hub` does, with a picture for its page."""
    folder = hub.folder / name
    (folder / "data").mkdir(parents=True)
    (folder / "README.md").write_text("# Photos")
    (folder / ".gitattributes").write_text("*.parquet filter=lfs")
    (folder / "preview.png").write_bytes(png())
    names, half = list(files), len(files) // 2
    for part, chosen in enumerate((names[:half], names[half:])):
        path = folder / "data" / f"train-{part:05}-of-00002.parquet"
        write_parquet(path, {name: files[name] for name in chosen}, [part] * half)
    return folder


@pytest.mark.parametrize("end", ["", "/", "@next", "/data", "/data/train-00000-of-00002.parquet"])
def test_parquet_files_are_the_images(hub, files, end):
    pytest.importorskip("pyarrow")
    dataset(hub, files)
    source = open_images(f"hf://datasets/team/photos{end}")
    count = 12 if end.endswith(".parquet") else 24
    assert source.keys(range(len(source))) == digests(files)[:count]
    if count == 24:
        assert source.labels == [0] * 12 + [1] * 12


def test_tars_are_the_images(hub, files):
    folder = hub.folder / "team" / "photos.v2"
    folder.mkdir(parents=True)
    (folder / "README.md").write_text("# Photos")
    names = list(files)
    for part in range(2):
        chosen = {name: files[name] for name in names[part * 12 : part * 12 + 12]}
        tar_of(folder / f"{part:05}.tar", chosen)
    url = "hf://datasets/team/photos.v2"
    for place in (url, f"{url}/{{00000..00001}}.tar"):
        assert open_images(place).keys(range(24)) == digests(files)


def test_a_folder_of_images_is_one(hub, files):
    folder = hub.folder / "team" / "plain" / "train"
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    source = open_images("hf://datasets/team/plain")
    assert source.keys(range(24)) == digests(files)
    assert source.captions([0]) == ["train/000.jpg"]


def test_an_image_is_read_without_what_follows_it(hub, files):
    noise = {f"{i:03}.bmp": encode(photo(np.random.default_rng(i), 256), "BMP") for i in range(20)}
    (hub.folder / "team" / "noise").mkdir(parents=True)
    tar_of(hub.folder / "team" / "noise" / "a.tar", noise)
    source = open_images("hf://datasets/team/noise")
    source.keys([3, 17])
    hub.requests.clear()
    source.keys([4, 9])
    spans = [span.removeprefix("bytes=").split("-") for _, span in hub.requests if span]
    assert len(spans) == 2 and all(int(b) - int(a) < 200_000 for a, b in spans)


def test_what_is_not_there_is_one_sentence(hub):
    folder = hub.folder / "team" / "text"
    folder.mkdir(parents=True)
    (folder / "README.md").write_text("# Words")
    (folder / "words.csv").write_text("a,b")
    for url, words in (
        ("hf://datasets/team/text", "no images found among 2 files"),
        ("hf://datasets/team/nothing", "no such file or folder. Check the address, and set HF_TOK"),
        ("hf://datasets/team/text@never", "no such file or folder"),
        ("hf://datasets/team/text/train", "no such file or folder|no images found"),
    ):
        with pytest.raises(ImagesError, match=words) as refused:
            open_images(url)
        assert str(refused.value).startswith(url) and "\n" not in str(refused.value)


def test_which_urls_are_repositories():
    yes = ("", "/", "@main", "@refs/convert/parquet", "@refs%2Fconvert%2Fparquet", ".v1")
    no = ("/data", "@main/data", "/a.tar")
    assert all(is_repository(f"hf://datasets/team/photos{end}") for end in yes)
    assert not any(is_repository(f"hf://datasets/team/photos{end}") for end in no)
    assert not is_repository("hf://team/photos") and not is_repository("datasets/team/photos")


def test_ranking_takes_it_by_hf_endpoint(hub, files, bank, tmp_path):
    pytest.importorskip("pyarrow")
    dataset(hub, files)
    fakes = write_images(tmp_path / "fakes", 24, seed=5, blue=60)
    done = subprocess.run(
        [
            sys.executable, "-m", "probe", "rank", "--real", "hf://datasets/team/photos",
            "--gen", fakes, "--bank", bank, "--backbones", "colour,edges", "--offline",
            "--format", "json",
        ],
        env={**os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_TELEMETRY": "1"},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    board = json.loads(done.stdout)
    assert board["n_real"] == 24 and {row["status"] for row in board["rows"]} == {"ok"}
