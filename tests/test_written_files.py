"""Files: written whole with the user's own mode, under any name."""

import json
import os
import stat
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from probe.errors import ProbeError
from probe.files import atomic_path, utf8_path, write_json, write_text

STRAY = os.fsdecode(b"caf\xe9")


@pytest.fixture
def stray(tmp_path) -> Path:
    """A folder whose name is not UTF-8."""
    try:
        (tmp_path / STRAY).mkdir()
    except OSError:
        pytest.skip("this file system takes names in UTF-8 alone")
    return tmp_path / STRAY


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_the_mode_is_the_users_and_their_umask_stays(tmp_path, mask, monkeypatch):
    """Other threads make files while one is written: the umask is the whole process's."""
    before = os.umask(mask)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(os, "umask", lambda mask: pytest.fail("the umask was changed"))
            write_text(tmp_path / "a.txt", "text")
            with atomic_path(tmp_path / "a.safetensors") as temporary:
                save_file({"a": torch.ones(1)}, temporary)  # replaces it by a file of its own
    finally:
        assert os.umask(before) == mask
    for path in tmp_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask, path


def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(ZeroDivisionError), atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_bytes(b"half")
        raise ZeroDivisionError
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text("utf-8") == "old"


@pytest.mark.parametrize("place", ["file/x", "file/x/y", "x" * 300])
def test_where_nothing_can_be_written_is_named(tmp_path, place):
    (tmp_path / "file").touch()
    with pytest.raises(ProbeError, match="Cannot write"):
        write_text(tmp_path / place, "text")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_names_that_are_not_utf8_come_back_from_json(tmp_path):
    record = {STRAY: f"/data/{STRAY}.png", "naïve": "≥ 😀"}
    write_json(tmp_path / "a.json", record)
    assert json.loads((tmp_path / "a.json").read_text("utf-8")) == record
    text = (tmp_path / "a.json").read_text("utf-8")
    assert "naïve" in text and "\\udce9" in text
    write_text(tmp_path / "a.txt", STRAY)
    assert (tmp_path / "a.txt").read_text("utf-8") == "caf\\udce9"


def test_libraries_write_and_read_under_any_name(stray):
    tensors = {"x": torch.arange(4.0)}
    for name in ("plain.safetensors", f"{STRAY}.safetensors", "naïve.safetensors"):
        path = stray / name
        with atomic_path(path) as temporary:
            save_file(tensors, temporary)
        with utf8_path(path) as known:
            assert known.suffix == ".safetensors" and str(known).encode()
            assert torch.equal(load_file(known)["x"], tensors["x"])
        assert not known.exists()
    assert len(list(stray.iterdir())) == 3


def test_an_ordinary_path_stays_as_it_is(tmp_path):
    with utf8_path(tmp_path / "naïve" / "x") as known:
        assert known == tmp_path / "naïve" / "x"
    assert json.loads(json.dumps(str(known))) == str(known)
