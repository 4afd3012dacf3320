"""A cache that cannot be used: the sentence names it and PROBE_CACHE_DIR, not the bank."""

import contextlib
import json
import os
import resource
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest

from probe.errors import CacheError
from probe.features.store import FeatureStore
from probe.files import cache_root


@pytest.fixture
def rank(cli, bank, reals, fakes):
    return lambda: cli("rank", "--real", reals, "--gen", fakes, "--bank", bank, "--offline",
                       "--format", "json")  # fmt: skip


@pytest.fixture
def mounted(tmp_path):
    """Return what mounts a small file system of its own, with options as of mount(8)."""
    folder = tmp_path / "mounted"
    folder.mkdir()

    def mount(options: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("mounting takes root")
        return folder

    yield mount
    subprocess.run(["umount", str(folder)], capture_output=True)


def blames_the_cache(result, folder) -> bool:
    one = result.err.strip().splitlines()[-1]
    return (
        result.code == 1
        and one.startswith(f"Error: The cache {folder} cannot be used: ")
        and "PROBE_CACHE_DIR" in one
        and "backbone" not in one.removeprefix(f"Error: The cache {folder}")
        and "Traceback" not in result.err
    )


@pytest.mark.parametrize("place", ["/dev/null", "/dev/null/x", "file", "file/below/it"])
def test_what_is_no_folder(cli, rank, monkeypatch, tmp_path, place):
    (tmp_path / "file").write_bytes(b"mine")
    folder = tmp_path / place
    monkeypatch.setenv("PROBE_CACHE_DIR", str(folder))
    assert blames_the_cache(rank(), folder)
    for command in ("ls", "verify"):
        assert blames_the_cache(cli("cache", command), folder)
    assert (tmp_path / "file").read_bytes() == b"mine"


def test_a_tilde_is_the_home(rank, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PROBE_CACHE_DIR", "~/kept")
    assert rank().code == 0
    assert (tmp_path / "home/kept/features").is_dir() and not (tmp_path / "~").exists()
    monkeypatch.setenv("PROBE_CACHE_DIR", "~nobody_of_that_name/kept")
    result = rank()
    assert result.code == 1 and "PROBE_CACHE_DIR: '~nobody_of_that_name/kept'" in result.err


def test_a_full_cache_ends_the_ranking_which_then_goes_on(cli, rank, monkeypatch, mounted):
    folder = mounted("size=48k")  # room for two of three backbones
    monkeypatch.setenv("PROBE_CACHE_DIR", str(folder))
    result = rank()
    assert blames_the_cache(result, folder) and "No space left" in result.err
    kept = {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}
    assert kept and not list(folder.rglob(".*"))  # what is finished, and nothing half written
    subprocess.run(["mount", "-o", "remount,size=4m", str(folder)], check=True)
    assert rank().code == 0
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
    assert cli("cache", "verify").code == 0


def test_a_read_only_cache_gives_what_it_has(cli, rank, monkeypatch, mounted, reals):
    folder = mounted("size=4m")
    monkeypatch.setenv("PROBE_CACHE_DIR", str(folder))
    first = rank()
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    again = rank()
    assert again.code == 0
    assert json.loads(again.out)["rows"] == json.loads(first.out)["rows"]
    next(iter(reals.iterdir())).unlink()
    result = rank()
    assert blames_the_cache(result, folder) and "Read-only file system" in result.err
    assert cli("cache", "ls").code == 0


def test_a_limit_on_file_sizes(rank):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        result = rank()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert blames_the_cache(result, cache_root()) and "File too large" in result.err


@contextlib.contextmanager
def somebody_else():
    """Be a user without rights, where one may change that."""
    if os.geteuid() == 0:
        os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(0)
    else:
        yield


def test_a_cache_of_somebody_else(monkeypatch):
    with tempfile.TemporaryDirectory() as top:  # pytest's own folders are closed to others
        folder = Path(top) / "theirs"
        monkeypatch.setenv("PROBE_CACHE_DIR", str(folder))
        store = FeatureStore(cache_root())
        rows = np.zeros((1, 2), np.float32)
        store.space({"a": 1}).write(["k"], rows)
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        Path(top).chmod(0o755)
        try:
            with somebody_else():
                assert store.space({"a": 1}).missing(["k"]) == []  # it may be read
                with pytest.raises(CacheError, match="theirs cannot be used: Permission denied"):
                    store.space({"a": 1}).write(["l"], rows)
                with pytest.raises(CacheError, match="PROBE_CACHE_DIR"):
                    store.remember({"b": 1}, {"x": rows})
        finally:
            for path in (folder, *(p for p in folder.rglob("*") if p.is_dir())):
                path.chmod(0o755)
