"""Fixtures: image folders, a bank of scripted backbones, a checkpoint, the command line."""

import sys
from collections import Counter
from pathlib import Path

import pytest
from inputs import tiny_generator, write_bank, write_images
from servers import serving

from probe.generators.files.snapshot import save_snapshot


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="the long form of tests/attack")
    parser.addoption("--write-golden", action="store_true", help="record what the verbs write now")


def pytest_terminal_summary(terminalreporter):
    """Print what tests/attack counted."""
    totals = Counter()
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            if name == "tally":
                outcome, number = value
                totals[outcome] += number
    if totals:
        terminalreporter.section("attacks")
        for outcome, number in sorted(totals.items()):
            terminalreporter.write_line(f"{number:8d}  {outcome}")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Give every test a cache of its own and no way to a hub."""
    monkeypatch.setenv("PROBE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


@pytest.fixture
def reals(tmp_path) -> Path:
    return write_images(tmp_path / "reals", 60, seed=1)


@pytest.fixture
def fakes(tmp_path) -> Path:
    """Images that differ from the reals in blue alone."""
    return write_images(tmp_path / "fakes", 60, seed=2, blue=40)


@pytest.fixture
def bank(tmp_path) -> Path:
    return write_bank(tmp_path)


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    path = tmp_path / "tiny.safetensors"
    save_snapshot(path, tiny_generator(), metadata={"kimg": 1.5})
    return path


class Result:
    """What a command left behind."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def cli(capsys, monkeypatch):
    """Run the command line in this process, through its own `main`."""
    from probe.cli import main

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["probe", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(bool(end.code))
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return run


@pytest.fixture
def server(tmp_path):
    """A web server of the folder `server.folder`."""
    folder = tmp_path / "served"
    folder.mkdir()
    with serving(folder) as started:
        started.folder = folder
        yield started
