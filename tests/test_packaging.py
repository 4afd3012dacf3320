"""The wheel: complete, and usable from an empty environment in another folder."""

import ast
import importlib.metadata
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest
from inputs import write_images

import probe

ROOT = Path(__file__).parents[1]


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def plain(name: str) -> str:
    """Return a distribution's name as package indices compare it."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^A-Za-z0-9._-]", name)[0]).lower()


def imported(folder: str) -> set[str]:
    """Return the top-level modules that a folder's files import, without ours and Python's."""
    found = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                found.add(str(node.module).partition(".")[0])
    beside = {p.stem for f in (folder, "examples") for p in (ROOT / f).iterdir()}
    return found - set(sys.stdlib_module_names) - beside - {"probe"}


def distributions(modules: set[str]) -> set[str]:
    """Return which distributions the modules come from."""
    known = importlib.metadata.packages_distributions()
    return {plain(known[module][0]) if module in known else module for module in modules}


def test_what_the_package_imports_is_declared_and_nothing_else():
    declared = {plain(name) for name in PROJECT["dependencies"]}
    optional = {"triton"}  # comes with PyTorch on Linux; plain PyTorch does the same
    for extra in ("remote", "parquet", "lmdb"):  # imported where an image source needs them
        optional |= {plain(name) for name in PROJECT["optional-dependencies"][extra]}
    assert distributions(imported("probe")) == declared | optional


@pytest.mark.parametrize("folder", ["scripts", "benchmarks", "experiments"])
def test_what_the_rest_imports_is_declared(folder):
    extras = PROJECT["optional-dependencies"].values()
    declared = {plain(name) for names in (PROJECT["dependencies"], *extras) for name in names}
    undeclared = distributions(imported(folder)) - declared
    assert not undeclared, f"{folder} imports {sorted(undeclared)}"


def test_the_version_is_the_same_everywhere():
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    assert probe.__version__ == PROJECT["version"]
    assert f"\nversion: {PROJECT['version']}\n" in citation
    top = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert PROJECT["version"].removesuffix(".dev0") == top[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out)]
    subprocess.run([*command, str(ROOT)], check=True, capture_output=True)
    (path,) = out.glob("*.whl")
    return path


def test_wheel_holds_code_bank_and_demo_and_nothing_top_level_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for name in ("modelbank.yaml", "demo/reals.zip", "demo/generator.safetensors", "py.typed"):
        assert f"probe/{name}" in names
    assert {name.split("/")[0] for name in names} == {
        "probe",
        f"gan_probe-{PROJECT['version']}.dist-info",
    }
    assert wheel.stat().st_size < 12e6


def test_rank_runs_from_the_wheel_in_another_folder(wheel, tmp_path):
    environment = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    python = environment / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*install, str(wheel)], check=True)
    # The dependencies are lent by path: a .pth file inside a lent folder is not read, so neither
    # this checkout nor an editable install can be what is imported.
    packages = next((environment / "lib").glob("python3*/site-packages"))
    (packages / "lent.pth").write_text(sysconfig.get_paths()["purelib"])
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    real, fake = (
        write_images(elsewhere / n, 20, seed=s, blue=b) for n, s, b in (("r", 1, 0), ("f", 2, 40))
    )
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}

    def run(*arguments):
        return subprocess.run(
            [str(environment / "bin" / "probe"), *arguments],
            cwd=elsewhere, env=clean, capture_output=True, text=True,
        )  # fmt: skip

    done = run("rank", "--real", real.name, "--gen", fake.name, "--offline", "--backbones",
               "random-resnet18#0,random-efficientnet-lite0#0")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "random-resnet18#0" in done.stdout
    listed = run("bank", "list")
    assert str(packages / "probe" / "modelbank.yaml") in listed.stderr
