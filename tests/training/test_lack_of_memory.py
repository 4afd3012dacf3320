"""Memory that is lacking, on a GPU or a CPU: one sentence that says what to make smaller."""

import json
import resource
import subprocess
import sys

import pytest
import torch

from probe.errors import ProbeError

LACKS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total…"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    MemoryError(),
]
WORDS = "with --batch 4 at --resolution 32. Choose a smaller --batch or a smaller --resolution."
TINY = ("--batch", "4", "--channel-base", "128", "--channel-max", "8", "--z-dim", "8", "--w-dim",
        "8", "--eval-num", "0", "--tick", "0.02", "--snap", "1", "--kimg", "0.04")  # fmt: skip


def failing(error):
    def step(*arguments, **keywords):
        raise error

    return step


@pytest.mark.parametrize("error", LACKS, ids=lambda e: type(e).__name__)
def test_train_and_its_dry_run_name_what_to_make_smaller(
    cli, reals, bank, tmp_path, monkeypatch, error
):
    command = ("train", "--real", reals, "--outdir", tmp_path / "runs", "--bank", bank, *TINY)
    for place, more in (("loop", ()), ("availability", ("--dry-run",))):
        monkeypatch.setattr(f"probe.training.{place}.train_step", failing(error))
        result = cli(*command, "--quiet", *more)
        *plan, said = result.err.splitlines()
        assert result.code == 1 and WORDS in said and "Out of memory on" in said
        assert bool(plan) == bool(more)  # a dry run prints it first


def test_what_a_run_has_written_stays(fit, monkeypatch):
    import probe.training.loop as loop

    step = loop.train_step

    def lacking(state, *arguments, **keywords):
        if state.images == 8:
            raise LACKS[0]
        return step(state, *arguments, **keywords)

    monkeypatch.setattr(loop, "train_step", lacking)
    with pytest.raises(ProbeError, match="Completed work is saved in .*00000-small") as found:
        fit(kimg=0.016, device="cpu")
    assert "--batch 4 at --resolution 16" in str(found.value)
    monkeypatch.setattr(loop, "train_step", step)
    folder, _ = fit(kimg=0.016, device="cpu")
    assert folder.name == "00000-small"


def test_other_errors_are_not_taken_for_it(fit, monkeypatch):
    monkeypatch.setattr("probe.training.loop.train_step", failing(RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        fit(kimg=0.008)


def test_doctor_makes_it_a_finding_and_goes_on(cli, reals, bank, monkeypatch):
    monkeypatch.setattr("probe.training.availability.train_step", failing(LACKS[0]))
    monkeypatch.setattr("probe.checks.cost.pooled_features", failing(MemoryError()))
    result = cli("doctor", "--real", reals, "--bank", bank, "--strategy", "none", "--json")
    assert result.code == 1, result.err
    findings = json.loads(result.out)["findings"]
    (found,) = [f for f in findings if f["level"] == "problem"]
    assert "--batch 32 at --resolution 32" in found["text"]
    assert any("colour: one image needs more memory" in f["text"] for f in findings)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on a process's memory")
def test_a_cpu_that_really_lacks_memory(reals, bank, tmp_path):
    command = [sys.executable, "-m", "probe", "train", "--real", reals, "--bank", bank, "--outdir",
               tmp_path / "runs", *TINY, "--batch", "65536", "--device", "cpu", "--dry-run",
               "--quiet"]  # fmt: skip
    limit = 8 * 2**30
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines()[-1].startswith("Error: Out of memory on cpu with --batch 65536")
    assert not (tmp_path / "runs").exists()
