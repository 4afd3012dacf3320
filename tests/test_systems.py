"""Other systems: what Windows and macOS lack is asked for and never needed."""

import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch

from probe import devices
from probe.bank.weights import rename
from probe.files import lock

ROOT = Path(__file__).parents[1]
# psutil is imported first: its part for Linux needs `resource` itself.
WITHOUT = """
import sys
import psutil

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name in ("fcntl", "resource"):
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)

for name in ("fcntl", "resource"):
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Hidden())

import importlib, pkgutil
import probe
for module in pkgutil.walk_packages(probe.__path__, "probe."):
    if module.name != "probe.__main__":
        importlib.import_module(module.name)
from probe.cli import main
sys.argv = ["probe", *sys.argv[1:]]
main()
"""


def without_unix(*arguments: object) -> subprocess.CompletedProcess:
    """Import every module and run a command with `fcntl` and `resource` hidden."""
    return subprocess.run(
        [sys.executable, "-c", WITHOUT, *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, encoding="utf-8",
    )  # fmt: skip


def test_every_module_and_a_ranking_do_without_fcntl_and_resource(cli, reals, fakes, bank):
    arguments = ["rank", "--real", reals, "--gen", fakes, "--bank", bank, "--quiet"]
    arguments += ["--format", "csv"]
    done = without_unix(*arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout == cli(*arguments).out


def test_a_training_run_is_locked_and_measured_without_fcntl_and_resource(reals, tmp_path, bank):
    arguments = ["train", "--real", reals, "--outdir", tmp_path / "runs", "--bank", bank]
    arguments += ["--resolution", 16, "--strategy", "none", "--kimg", 0.016, "--batch", 8]
    arguments += ["--channel-base", 256, "--channel-max", 8, "--eval-num", 0, "--quiet"]
    done = without_unix(*arguments)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).exists()


def test_a_lock_has_one_holder_at_a_time(tmp_path):
    first = lock(tmp_path / ".lock")
    assert first is not None and lock(tmp_path / ".lock") is None
    code = (
        "import sys; from pathlib import Path; from probe.files import lock\n"
        "sys.exit(lock(Path(sys.argv[1])) is None)"
    )
    other = [sys.executable, "-c", code, str(tmp_path / ".lock")]
    assert subprocess.run(other, cwd=ROOT).returncode == 1
    first.release()
    assert subprocess.run(other, cwd=ROOT).returncode == 0


def test_the_peak_is_at_least_what_is_used_now(monkeypatch):
    block = torch.ones(2**26)  # 256 MiB
    used = psutil.Process().memory_info().rss / 2**30
    assert used * 0.9 <= devices.peak_gib(torch.device("cpu")) < 64
    monkeypatch.setitem(sys.modules, "resource", None)
    assert devices.peak_gib(torch.device("cpu")) == pytest.approx(used, rel=0.1)
    del block


def test_a_key_map_without_end_is_stopped_by_the_clock_too(monkeypatch):
    monkeypatch.setattr(rename, "resource", None)
    monkeypatch.setattr(rename, "SECONDS", 0.5)
    assert rename.rename(["a"], [("a", "b")]) == ["b"]
    with pytest.raises(rename.TooCostly):
        rename.rename(["a" * 40 + "b"], [("(a+)+$", "x")])
