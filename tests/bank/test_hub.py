"""A model hub that fails in its many ways: the real huggingface_hub against a server of ours."""

import hashlib
import http.server
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from probe.bank.spec import BackboneSpec, Weights
from probe.bank.weights import download
from probe.bank.weights.find import find_weights
from probe.errors import BackboneUnavailable

BODY = bytes(range(256)) * 40
COMMIT = "0123456789abcdef0123456789abcdef01234567"


BANK = """
- name: {name}
  source: timm
  model: test_resnet
  weights: {{hub: org/{name}}}
  input: 32
  mean: [0.5, 0.5, 0.5]
  std: [0.5, 0.5, 0.5]
  task: none
  data: none
  license: none
"""


def entry(name: str) -> BackboneSpec:
    return BackboneSpec(
        name=name, source="timm", model="test_resnet", weights=Weights(hub=f"org/{name}"), input=32,
        mean=(0.5,) * 3, std=(0.5,) * 3, task="t", data="d", license="l",
    )  # fmt: skip


class Hub(http.server.BaseHTTPRequestHandler):
    """A hub where the name of a repository says what is wrong with it."""

    protocol_version = "HTTP/1.1"
    timeout = 5

    def do_HEAD(self):
        self.answer(head=True)

    def do_GET(self):
        self.answer(head=False)

    def answer(self, *, head: bool):
        repository = self.path.split("/")[2] if self.path.count("/") > 2 else ""
        path = self.path
        codes = {"gated": 401, "forbidden": 403, "limited": 429, "busy": 503}
        if "//" in path or not path.startswith(("/org/", "/cdn/")):
            return self.say(404, {"X-Error-Code": "EntryNotFound"})
        if repository in codes and not self.headers.get("Authorization"):
            gated = {"X-Error-Code": "GatedRepo"} if repository == "gated" else {}
            return self.say(codes[repository], gated | {"Retry-After": "3600"})
        if repository == "gone":
            return self.say(404, {"X-Error-Code": "RepoNotFound"})
        if repository == "renamed":
            return self.say(307, {"Location": path.replace("renamed", "good")})
        facts = {
            "X-Repo-Commit": COMMIT,
            "ETag": f'"{hashlib.md5(repository.encode()).hexdigest()}"',
        }
        if repository in ("stored", "dead") and path.startswith("/org/"):
            address = f"http://127.0.0.1:{self.server.server_address[1]}/cdn/stored/file"
            if repository == "dead":
                address = f"http://127.0.0.1:{self.server.closed_port}/cdn/file"
            linked = {"X-Linked-Size": str(len(BODY)), "X-Linked-Etag": facts["ETag"]}
            return self.say(302, facts | linked | {"Location": address})
        if repository == "slow":
            self.server.never.wait(2)
        if repository == "silent" and not head:
            self.close_connection = True
            return None
        body = BODY
        if repository == "liar" and not head:
            body = BODY[:-100]
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").rstrip("-"))
        if start >= len(body) > 0:
            return self.say(416, {"Content-Range": f"bytes */{len(body)}"})
        body = body[start:]
        return self.say(206 if start else 200, facts, body, head=head, cut=repository == "cut")

    def say(self, code, headers, body=b"", *, head=False, cut=False):
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if not head:
            self.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            self.close_connection = True

    def log_message(self, *args):
        pass


@pytest.fixture
def hub(monkeypatch):
    """The address of a hub; huggingface_hub waits for nothing between its attempts."""
    monkeypatch.setattr(download, "_unreachable", {})
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with (
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server,
        socket.socket() as closed,
    ):
        closed.bind(("127.0.0.1", 0))  # and nobody listens
        server.closed_port, server.never = closed.getsockname()[1], threading.Event()
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        monkeypatch.setenv("HF_ENDPOINT", address)
        yield address
        server.never.set()
        server.shutdown()


FAILURES = {
    "gated": r"\(401\): it is gated or private, or does not exist; accept its licence at "
    r"http://127.*/org/gated, set HF_TOKEN to a token .* probe bank fetch gated",
    "forbidden": r"\(403\).*accept its licence at .*/org/forbidden, set HF_TOKEN",
    "limited": r"no more requests for now \(429\); wait some minutes, then probe bank fetch",
    "busy": r"503.*; probe bank fetch busy",
    "gone": r"has no model\.safetensors of org/gone \(404\); correct hub: of the entry",
    "cut": r"did not send them \(.*(10240|5120 more|disconnected).*; probe bank fetch cut",
    "liar": r"should be of size 10240 but has size 10140.*; probe bank fetch liar",
    "silent": r"did not send them \(.*; probe bank fetch silent",
    "dead": r"did not send them \(.*; probe bank fetch dead",
    "slow": r"did not send them \(.*timed out.*; probe bank fetch slow",
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_file_that_fails_has_its_own_reason_and_harms_no_other(hub, name, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT_SECONDS", 0.3)
    with pytest.raises(BackboneUnavailable, match=FAILURES[name]):
        find_weights(entry(name), offline=False)
    assert not download._unreachable  # the hub does answer
    with pytest.raises(BackboneUnavailable, match=FAILURES["gone"]):
        find_weights(entry("gone"), offline=False)
    monkeypatch.setattr(download, "TIMEOUT_SECONDS", 10)
    for other in ("good", "renamed", "stored"):  # at home, elsewhere there, on another host
        assert find_weights(entry(other), offline=False).read_bytes() == BODY
    # What failed left nothing that is taken for whole.
    with pytest.raises(BackboneUnavailable, match="not on this machine; probe bank fetch"):
        find_weights(entry(name), offline=True)


def test_a_limit_is_not_waited_for(hub, monkeypatch):
    """The server asks for an hour, and huggingface_hub would give it one, five times over."""
    waited = []
    monkeypatch.setattr(time, "sleep", waited.append)
    with pytest.raises(BackboneUnavailable, match="429"):
        find_weights(entry("limited"), offline=False)
    assert sum(waited) < 60


def test_a_token_opens_what_is_gated(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert find_weights(entry("gated"), offline=False).read_bytes() == BODY


@pytest.mark.parametrize("end", ["", "/", "//"])
def test_the_address_of_the_hub_may_end_in_a_slash(hub, end, tmp_path):
    """Read by huggingface_hub when it is imported, so in a process of its own."""
    bank = tmp_path / "bank.yaml"
    bank.write_text("".join(BANK.format(name=name) for name in ("good", "stored")), "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "probe", "bank", "fetch", "--bank", str(bank)],
        env=os.environ | {"HF_ENDPOINT": hub + end}, capture_output=True, text=True,
        encoding="utf-8",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("model.safetensors") == 2


def test_a_hub_without_a_connection_is_given_up_and_only_that(hub, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1/")
    before = time.monotonic()
    for name in ("good", "stored"):
        with pytest.raises(BackboneUnavailable) as caught:
            find_weights(entry(name), offline=False)
        assert "127.0.0.1:1 cannot be reached" in str(caught.value)
        assert "refused" in str(caught.value)
        assert caught.value.remedy == f"probe bank fetch {name}"
    assert time.monotonic() - before < 5 and list(download._unreachable) == ["127.0.0.1:1"]
    monkeypatch.setenv("HF_ENDPOINT", hub)
    assert find_weights(entry("good"), offline=False).read_bytes() == BODY


def test_a_cache_that_cannot_be_written_is_named(hub, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "file" / "hub"))
    with pytest.raises(BackboneUnavailable, match=r"file.*cannot be written .*HF_HUB_CACHE"):
        find_weights(entry("good"), offline=False)
    assert not download._unreachable


def test_fetch_brings_what_is_healthy_among_what_is_not(hub, cli, tmp_path):
    names = ["limited", "good", "liar", "stored", "gated", "renamed", "gone"]
    bank = tmp_path / "bank.yaml"
    bank.write_text("".join(BANK.format(name=name) for name in names), "utf-8")
    done = cli("bank", "fetch", "--bank", bank)
    rows = {line.split()[0]: line.split()[1] for line in done.out.splitlines()[1:]}
    assert done.code == 3 and "Traceback" not in done.err
    assert {name for name, state in rows.items() if state == "fetched"} == {
        "good", "stored", "renamed"
    }  # fmt: skip
    assert {name for name, state in rows.items() if state == "failed"} == {
        "limited", "liar", "gated", "gone"
    }  # fmt: skip
