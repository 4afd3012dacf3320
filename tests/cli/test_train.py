"""`probe train` through the command line: a run, its files, its end, its refusals."""

import json
import os
import re
import resource
import shlex
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch
from inputs import ENTRY, write_images, write_judged_bank
from runs import differences, saved

from probe.bank.file import load_bank
from probe.bank.weights.find import find_weights
from probe.bundled import DEMO_REALS
from probe.errors import BackboneUnavailable

TINY = ("--batch", "4", "--tick", "0.02", "--snap", "1", "--channel-base", "128",
        "--channel-max", "8", "--z-dim", "8", "--w-dim", "8", "--eval-num", "0")  # fmt: skip
SHORT = (*TINY, "--kimg", "0.04")


def test_a_run_its_files_and_its_rank(cli, reals, bank, tmp_path):
    (reals / "broken.png").write_bytes(b"text")
    result = cli("train", "--real", reals, "--outdir", tmp_path / "runs", "--bank", bank, *SHORT)
    assert result.code == 0, result.err
    folder = tmp_path / "runs" / "00000-reals"
    snapshot = folder / "network-snapshot-000000_040.safetensors"
    assert result.out.strip() == str(snapshot)
    names = {p.name for p in folder.iterdir()}
    assert {"training_options.json", "log.txt", "stats.jsonl", "reals.png"} <= names
    log = (folder / "log.txt").read_text()
    assert "broken.png (not an image)" in log and "preset small32" in log
    assert "Time in steps: " in log and "left" in log
    options = json.loads((folder / "training_options.json").read_text())
    assert options["options"]["kimg"] == 0.04 and options["resolution"] == 32
    stats = [json.loads(line) for line in (folder / "stats.jsonl").read_text().splitlines()]
    assert [round(s["Progress/kimg"]["mean"], 3) for s in stats] == [0.02, 0.04]
    assert saved(folder)["images"] == 40
    inspected = cli("inspect", folder)
    assert str(snapshot) in inspected.out and "0.04" in inspected.out
    drawn = cli("generate", "--gen", folder, "--seeds", "0-1", "--outdir", tmp_path / "drawn")
    assert drawn.code == 0, drawn.err
    ranked = cli("rank", "--real", reals, "--gen", snapshot, "--bank", bank, "--format", "json")
    assert ranked.code == 0, ranked.err


@pytest.mark.parametrize("more", [(), ("--quiet",)])
def test_dry_run_says_what_it_would_cost_and_writes_nothing(cli, reals, bank, tmp_path, more):
    result = cli("train", "--real", reals, "--outdir", tmp_path / "runs", "--bank", bank,
                 "--strategy", "progressive", "--k", "2", "--dry-run", *SHORT, *more)  # fmt: skip
    assert result.code == 0, result.err
    assert result.out == ""
    for words in ("60 training images at 32 px", "Strategy progressive, k 2", "s/kimg with colour",
                  "s/kimg with edges", "memory", "Nothing was written"):  # fmt: skip
        assert words in result.err
    assert not (tmp_path / "runs").exists() and not (tmp_path / "cache").exists()


def test_hours_advise_what_fits_and_the_command_for_it(cli, reals, tmp_path):
    """On the cost that was measured, the advice fits the hours, and its command is a valid one."""
    bank = write_judged_bank(tmp_path)
    common = ("train", "--real", reals, "--outdir", tmp_path / "runs", "--bank", bank, "--strategy",
              "progressive", "--k=2", *TINY[:-1], "32")  # fmt: skip
    result = cli(*common, "--hours", "0.5", "--stage-kimg", "100,400,100")
    assert result.code == 0, result.err
    found = re.search(r"0\.5 h here are about (\S+) kimg, stages ending at (.*)\. That", result.err)
    kimg, ends = float(found[1]), [float(end) for end in found[2].split(", ")]
    assert ends == pytest.approx([kimg / 6, kimg * 5 / 6, kimg], rel=0.01)
    own, *each = (float(s) for s in re.findall(r"(\d+\.\d) s/kimg", result.err))
    dearest = own + sum(sorted(each)[-2:])
    assert 0.5 * 3600 / dearest * 0.5 < kimg <= 0.5 * 3600 / own
    command = shlex.split(result.err.splitlines()[-1])
    assert command[-2:] == ["--kimg", found[1]]
    assert not {"--hours", "--stage-kimg", "--dry-run"} & set(command)
    assert cli(*command[1:], "--dry-run").code == 0
    assert not (tmp_path / "runs").exists()
    assert cli(*common, "--hours", "1e-9").err.count("are too few") == 1


def test_a_plain_gan_measures_no_backbone(cli, reals, bank, tmp_path):
    result = cli("train", "--real", reals, "--outdir", tmp_path / "runs", "--bank", bank,
                 "--dry-run", *SHORT)  # fmt: skip
    assert result.code == 0 and "for the GAN alone" in result.err
    assert "colour" not in result.err and "s/kimg with" not in result.err


def test_impossible_training_is_refused_before_anything_is_written(cli, reals, bank, tmp_path):
    few = write_images(tmp_path / "few", 8, seed=0)
    odd = write_images(tmp_path / "odd", 20, seed=0, size=48)
    mixed = write_images(tmp_path / "mixed", 20, seed=0)
    write_images(tmp_path / "mixed" / "large", 1, seed=1, size=64)
    lone = tmp_path / "lone.yaml"
    lone.write_text(bank.read_text() + ENTRY.format(name="gone"))
    for real, arguments, code, words in [
        (few, (), 1, "too few to train on"),
        (reals, ("--holdout", "50"), 1, "beside 50 held out"),
        (odd, (), 2, "--resolution"),
        (mixed, (), 2, "are of 2 sizes"),
        (reals, ("--batch", "6"), 2, "--batch"),
        (reals, ("--strategy", "magic"), 2, "magic"),
        (reals, ("--cond",), 2, "dataset.json"),
        (reals, ("--strategy", "fixed", "--k", "3"), 2, "3 backbones are wanted and 2"),
        (reals, ("--strategy", "fixed", "--k", "3", "--bank", lone), 2, "gone.pt"),
        (reals, ("--strategy", "fixed", "--k", "1", "--eval-num", "64"), 2, "role: evaluator"),
        (reals, ("--backbones", "colr"), 2, "colour"),
        (reals, ("--init", bank), 1, "its format is not recognised"),
        (reals, ("--resume", "latest"), 2, "has a training state"),
        (reals, ("--stage-kimg", "1,2"), 2, "--stage-kimg"),
    ]:
        result = cli("train", "--real", real, "--outdir", tmp_path / "runs", "--bank", bank,
                     *TINY, "--tick", "1", *arguments)  # fmt: skip
        assert result.code == code and words in result.err, (arguments, result.err)
    assert not (tmp_path / "runs").exists()


def test_a_conditional_run_ranks_by_the_reals_classes(cli, bank, tmp_path):
    reals = write_images(tmp_path / "reals", 40, seed=1)
    labels = [[p.name, i % 3] for i, p in enumerate(sorted(reals.iterdir()))]
    (reals / "dataset.json").write_text(json.dumps({"labels": labels}))
    result = cli("train", "--real", reals, "--outdir", tmp_path / "runs", "--bank", bank,
                 "--cond", "--strategy", "progressive", "--k", "1", *TINY,
                 "--stage-kimg", "0.02,0.02", "--holdout", "4")  # fmt: skip
    assert result.code == 0, result.err
    state = saved(tmp_path / "runs" / "00000-reals")
    assert state["generator"]["mapping.embed.weight"].shape[1] == 3
    (name,) = (n for n in state["members"] if n != "D")
    assert any("embed" in key for key in state["members"][name]["network"])
    ranked = cli("rank", "--real", reals, "--gen", result.out.strip(), "--bank", bank)
    assert ranked.code == 0, ranked.err


def packaged(*names: str) -> bool:
    """Return whether the weights of these entries are installed."""
    try:
        for spec in load_bank(Path(__file__).parents[2] / "modelbank.yaml").select(names):
            find_weights(spec, offline=True)
    except BackboneUnavailable:
        return False
    return True


def command(real: Path, outdir: Path, *more: str) -> list[str]:
    return [
        sys.executable, "-m", "probe", "train", "--real", str(real), "--outdir", str(outdir),
        "--strategy", "progressive", "--k", "2", "--backbones", "mobilenetv2,efficientnet-lite0",
        "--stage-kimg", "0.016,0.016,0.016", "--batch", "4", "--tick", "0.008", "--snap", "1",
        "--eval-num", "32", "--rank-num", "64", "--channel-base", "256", "--channel-max", "16",
        "--z-dim", "16", "--w-dim", "16", "--precision", "fp32", "--device", "cpu", "--offline",
        *more,
    ]  # fmt: skip


def kill_at(arguments: list[str], folder: Path, images: int) -> None:
    """Start a run and kill it with SIGKILL once its statistics pass a number of images."""
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    stats = folder / "00000-reals" / "stats.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if stats.exists() and stats.read_text().count("\n") * 8 >= images:
            break
        time.sleep(0.02)
    assert process.poll() is None, "it ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_real_backbones_and_kill_9_in_every_stage(tmp_path):
    """On real weights: stages, leaderboards, snapshots, and a killed run equal to a whole one."""
    if not packaged("mobilenetv2", "efficientnet-lite0", "efficientnet-lite2"):
        pytest.skip("the packaged weights are not installed")
    reals = tmp_path / "reals"
    with zipfile.ZipFile(DEMO_REALS) as archive:
        archive.extractall(reals, archive.namelist()[:64])
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    done = subprocess.run(command(reals, whole), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for images in (8, 24, 40):
        kill_at(command(reals, parts), parts, images)
    done = subprocess.run(command(reals, parts), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    one, other = whole / "00000-reals", parts / "00000-reals"
    assert sorted(p.name for p in parts.iterdir()) == ["00000-reals"]
    assert differences(saved(one), saved(other)) == []
    members = list(saved(one)["members"])
    assert members[0] == "D" and len(members) == 3
    for folder in (one, other):
        names = {p.name for p in folder.iterdir()}
        assert {"selection-stage1.json", "selection-stage2.json", "stats.jsonl",
                "metric-frechet-efficientnet-lite2.jsonl"} <= names  # fmt: skip
        assert (folder / "stats.jsonl").read_text().count("\n") == 6
    best = "network-snapshot-best.safetensors"
    assert (one / best).read_bytes() == (other / best).read_bytes()


def run_processes(count: int, arguments: list[object]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone",
                f"--nproc-per-node={count}", "-m", "probe"]  # fmt: skip
    command = (launcher if count > 1 else [sys.executable, "-m", "probe"]) + [*map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_two_processes_train_the_same_weights_as_one(reals, tmp_path):
    """Eight steps, every regulariser in several of them.

    Later on, a unit that is all but zero falls on the other side by rounding, and the runs part.
    """
    weights = {}
    for count in (1, 2):
        outdir = tmp_path / f"runs{count}"
        done = run_processes(
            count,
            ["train", "--real", reals, "--outdir", outdir, "--precision", "fp32", *TINY,
             "--device", "cpu", "--batch", "8", "--kimg", "0.064", "--tick", "0.064",
             "--pl-weight", "2", "--r1-interval", "3", "--style-mixing", "0.9", "--aug-p", "0.5"],
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("network-snapshot") == 1
        state = saved(outdir / "00000-reals")
        networks = (state["generator"], state["average"], state["members"]["D"]["network"])
        weights[count] = {(i, k): v for i, n in enumerate(networks) for k, v in n.items()}
    assert weights[1].keys() == weights[2].keys()
    for name, value in weights[1].items():
        difference = (value - weights[2][name]).abs().max().item()
        assert difference < 1e-5, (name, difference)


def value(cell: str) -> float | str:
    try:
        return float(cell)
    except ValueError:
        return cell


def test_ranking_by_two_processes_gives_the_same_table(reals, fakes, bank, tmp_path, monkeypatch):
    tables = []
    for count in (1, 2):
        monkeypatch.setenv("PROBE_CACHE_DIR", str(tmp_path / f"cache{count}"))
        done = run_processes(
            count,
            ["rank", "--real", reals, "--gen", fakes, "--bank", bank, "--format", "csv",
             "--precision", "fp32", "--device", "cpu", "--offline"],
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        lines = [line.split(",") for line in done.stdout.splitlines()]
        speed = lines[0].index("images_per_second")
        tables.append([[v for i, v in enumerate(line) if i != speed] for line in lines])
    assert len(tables[0]) > 3
    assert len(tables[0]) == len(tables[1])
    for one, two in zip(*tables, strict=True):
        # A processor may sum in another order where a batch is smaller: numbers agree, not bits.
        for a, b in zip(map(value, one), map(value, two), strict=True):
            assert a == (pytest.approx(b, abs=1e-6) if isinstance(b, float) else b)


def test_a_full_disk_is_one_sentence_and_loses_nothing(reals, tmp_path):
    """A limit on the size of files stands for the disk."""
    arguments = [sys.executable, "-m", "probe", "train", "--real", str(reals), "--outdir",
                 str(tmp_path / "runs"), *SHORT, "--precision", "fp32", "--device",
                 "cpu"]  # fmt: skip
    limit = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))}
    done = subprocess.run(arguments, capture_output=True, text=True, **limit)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert "Cannot write" in done.stderr and "Free some space" in done.stderr
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == ["00000-reals"]
    names = [p.name for p in (tmp_path / "runs" / "00000-reals").iterdir()]
    assert "training-state-latest.pt" in names
    assert not any(name.startswith(".") and name != ".lock" for name in names)
    whole = tmp_path / "whole"
    subprocess.run([*arguments, "--outdir", str(whole)], check=True, capture_output=True)
    assert differences(saved(whole / "00000-reals"), saved(tmp_path / "runs/00000-reals")) == []


def test_sigterm_leaves_a_run_that_goes_on(reals, tmp_path):
    arguments = [sys.executable, "-m", "probe", "train", "--real", str(reals), "--outdir",
                 str(tmp_path / "runs"), *TINY, "--kimg", "40", "--precision", "fp32"]  # fmt: skip
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
    state = tmp_path / "runs/00000-reals/training-state-latest.pt"
    deadline = time.monotonic() + 120
    while not state.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.terminate()
    _, err = process.communicate()
    assert process.returncode == 143 and "run the same command to resume" in err
    assert torch.load(state, weights_only=True)["images"] >= 20
