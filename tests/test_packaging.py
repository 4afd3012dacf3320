"""The wheel: complete, and usable from an empty environment in another folder."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from inputs import write_images

ROOT = Path(__file__).parents[1]


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
    assert {name.split("/")[0] for name in names} == {"probe", "gan_probe-0.1.0.dist-info"}
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
