"""Several processes on one machine and on two "nodes": what they do, and how they end."""

import contextlib
import json
import os
import random
import re
import subprocess
import sys
import time

import psutil
import pytest
from runs import saved

TINY = ("--tick", "0.02", "--channel-base", "128", "--channel-max", "8", "--z-dim", "8", "--w-dim",
        "8", "--eval-num", "0", "--device", "cpu", "--precision", "fp32")  # fmt: skip
PROBE = (sys.executable, "-m", "probe")


def train(reals, outdir, *more):
    return ["train", "--real", str(reals), "--outdir", str(outdir), *TINY, *more]


def environment(**variables):
    return {**os.environ, "OMP_NUM_THREADS": "1", **variables}


def start(arguments, **variables):
    return subprocess.Popen(
        [*PROBE, *map(str, arguments)],
        env=environment(**variables), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def on_two_nodes(arguments):
    """Run a command under two torchrun agents that meet on this machine."""
    port = random.randint(20_000, 45_000)
    agent = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node",
             "1", "--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id",
             f"{port}", "-m", "probe", *map(str, arguments)]  # fmt: skip
    nodes = [
        subprocess.Popen(
            agent, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    said = [node.communicate(timeout=300) for node in nodes]
    return [node.returncode for node in nodes], said


def test_two_nodes_train_one_run(reals, tmp_path):
    codes, said = on_two_nodes(
        train(reals, tmp_path / "runs", "--batch", "4", "--snap", "1", "--kimg", "0.02")
    )
    assert codes == [0, 0], said
    assert sum(out.count("network-snapshot") for out, _ in said) == 1
    folder = tmp_path / "runs" / "00000-reals"
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]
    assert json.loads((folder / "training_options.json").read_text())["processes"] == 2
    assert saved(folder)["images"] == 20


def test_two_nodes_rank_together(reals, fakes, bank, cli):
    arguments = ("rank", "--real", reals, "--gen", fakes, "--bank", bank, "--format", "csv",
                 "--precision", "fp32", "--device", "cpu", "--offline")  # fmt: skip
    codes, said = on_two_nodes(arguments)
    assert codes == [0, 0], said
    (table,) = [out for out, _ in said if out]
    alone = cli(*arguments).out  # from the features that the two have stored
    names = [[line.split(",")[0] for line in text.splitlines()] for text in (table, alone)]
    assert names[0] == names[1] and len(names[0]) > 3


@pytest.fixture
def pair(reals, tmp_path):
    """Two processes that train for long and have saved a state."""
    outdir = tmp_path / "runs"
    process = start(
        train(reals, outdir, "--batch", "4", "--snap", "1000", "--kimg", "40", "--gpus", "2",
              "--save-every", "0.5s")
    )  # fmt: skip
    state = outdir / "00000-reals" / "training-state-latest.pt"
    deadline = time.monotonic() + 120
    while not state.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    workers = psutil.Process(process.pid).children()
    assert state.exists() and len(workers) == 2
    yield process, workers, state.parent
    for left in (process, *workers):
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            left.kill()


def test_a_signal_to_the_launcher_saves_the_state_of_all(pair):
    process, _, folder = pair
    process.terminate()
    _, err = process.communicate(timeout=120)
    assert process.returncode == 143
    assert "Traceback" not in err and err.count("Stopped by SIG") == 1
    assert err.count("run the same command to resume") == 1
    kimg = float(re.search(r"Stopped by SIGTERM at kimg (\S+),", err)[1])
    assert saved(folder)["images"] == round(kimg * 1000)


def test_a_killed_process_ends_the_others_in_a_sentence(pair):
    process, workers, folder = pair
    workers[1].kill()
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1 and "Traceback" not in err
    assert "Process 1 of 2 was killed (SIGKILL)" in err
    assert saved(folder)["images"] > 0


def test_the_default_batch_divides_and_another_is_refused_once(reals, tmp_path):
    more = ("--gpus", "3", "--kimg", "0.02", "--p", "0.2")  # torchrun has flags that begin so
    done = start(train(reals, tmp_path / "runs", *more))
    _, err = done.communicate(timeout=300)
    assert done.returncode == 0, err
    record = json.loads((tmp_path / "runs/00000-reals/training_options.json").read_text())
    assert record["processes"] == 3 and record["options"]["batch"] == 24
    refused = start(train(reals, tmp_path / "other", *more, "--batch", "8"))
    _, err = refused.communicate(timeout=300)
    assert refused.returncode == 2
    assert err.strip() == "Error: --batch: 8 does not divide over 3 processes."


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE is 2, but RANK and MASTER_ADDR and MASTER_PORT are not"),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "2"}, "SLURM started 2 tasks"),
    ],
)
def test_an_environment_that_would_start_several_runs_is_refused(
    cli, reals, tmp_path, monkeypatch, variables, words
):
    for name in ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    result = cli(*train(reals, tmp_path / "runs", "--kimg", "0.02"))
    assert result.code == 2 and words in result.err and "Traceback" not in result.err
    assert not (tmp_path / "runs").exists()
