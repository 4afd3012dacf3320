"""Triton's kernels: right in its interpreter, and they compile for a GPU, without one."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed"
)


def in_another_process(*arguments, **environment):
    result = subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, **environment},
        cwd=HERE.parent,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-5000:]
    return result.stdout


def test_kernels_compute_what_plain_torch_does():
    out = in_another_process(
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        HERE / "kernel_cases.py",
        TRITON_INTERPRET="1",
    )
    assert "skipped" not in out


def test_kernels_compile_for_a_gpu(tmp_path):
    found = in_another_process(HERE / "compile_kernels.py", TRITON_CACHE_DIR=str(tmp_path))
    assert int(found.split()[0]) > 20


def test_ordinary_work_on_a_cpu_imports_no_triton():
    code = """if True:
        import sys, torch
        from inputs import tiny_generator
        tiny_generator()(torch.randn(1, 16))
        assert "triton" not in sys.modules
    """
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    subprocess.run([sys.executable, "-c", code], env=environment, cwd=HERE.parent, check=True)
