"""Training runs that are killed with SIGKILL come to the same end as one that is not."""

import json
import random
import shutil
import time
from pathlib import Path

import pytest
import torch
from attack.victim import renames_in, start
from inputs import write_images, write_judged_bank
from runs import differences

# One backbone joins; every stage has two snapshots.
OPTIONS = (
    "--strategy", "fixed", "--k", "1", "--backbones", "grid,colour",
    "--stage-kimg", "0.016,0.016", "--batch", "4", "--tick", "0.008", "--snap", "1",
    "--eval-num", "16", "--rank-num", "40", "--channel-base", "128", "--channel-max", "8",
    "--z-dim", "8", "--w-dim", "8", "--precision", "fp32", "--device", "cpu", "--offline",
    "--save-every", "0.000001s",  # at every step
)  # fmt: skip
TIMES = ("timestamp", "total_time")


class Runs:
    """The same training, again and again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.real = write_images(folder / "reals", 40, seed=3, size=16)
        self.bank = write_judged_bank(folder)
        self.whole = self.finish(folder / "whole")  # everything is imported and cached from here on
        started = time.monotonic()
        again = self.finish(folder / "again")
        self.seconds = time.monotonic() - started
        self.assert_same(again)
        self.targets = renames_in(self.log(again))

    def start(self, outdir: Path, **killed):
        arguments = ["--real", self.real, "--outdir", outdir, "--bank", self.bank, *OPTIONS]
        return start(["train", *arguments], self.log(outdir), **killed)

    def log(self, outdir: Path) -> Path:
        return outdir.with_suffix(".log")

    def finish(self, outdir: Path) -> Path:
        """Repeat the command until it ends by itself, which is once."""
        process = self.start(outdir)
        process.join(timeout=300)
        assert process.exitcode == 0, self.log(outdir).read_text()
        return outdir

    def assert_same(self, outdir: Path) -> None:
        """Compare a run that was killed with the whole one, bit for bit."""
        assert [p.name for p in outdir.iterdir()] == ["00000-reals"]
        one, other = self.whole / "00000-reals", outdir / "00000-reals"
        assert names(one) == names(other)
        for name in ("training-state-latest.pt", "training-state-previous.pt"):
            states = [torch.load(folder / name, weights_only=True) for folder in (one, other)]
            assert differences(*states) == [], name
        for path in sorted(one.glob("*.safetensors")):
            assert path.read_bytes() == (other / path.name).read_bytes(), path.name
        for path in sorted(one.glob("*.jsonl")):
            assert numbers(path) == numbers(other / path.name), path.name
        for path in sorted(one.glob("selection-stage*.json")):
            pair = [json.loads((folder / path.name).read_text()) for folder in (one, other)]
            assert pair[0]["added"] == pair[1]["added"], path.name


def names(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir() if not p.name.startswith("events.out")}


def is_finished(outdir: Path) -> bool:
    return any(json.loads(p.read_text())["finished"] for p in outdir.glob("*/progress.json"))


def numbers(path: Path) -> list[dict]:
    """Return a log's records without the times."""
    records = [json.loads(line) for line in path.read_text().splitlines()]
    return [
        {k: v for k, v in r.items() if k not in TIMES and not k.startswith("Timing/")}
        for r in records
    ]


@pytest.fixture(scope="module")
def runs(tmp_path_factory, request):
    patch = pytest.MonkeyPatch()
    folder = tmp_path_factory.mktemp("kills")
    patch.setenv("PROBE_CACHE_DIR", str(folder / "cache"))
    patch.setenv("OMP_NUM_THREADS", "1")
    yield Runs(folder)
    patch.undo()


@pytest.fixture(autouse=True)
def own_cache():
    """All runs of this file share the cache of the first."""


def test_a_run_that_is_killed_at_any_moment_comes_to_the_same_end(runs, rounds, tally, tmp_path):
    rng = random.Random(0)
    killed = 0
    for n in range(rounds(1, 25)):
        outdir = tmp_path / f"parts{n}"
        for _ in range(rng.randint(2, 4)):
            process = runs.start(outdir)
            process.join(timeout=rng.uniform(0, runs.seconds))
            process.kill()
            process.join()
            killed += process.exitcode != 0
            if process.exitcode == 0 or is_finished(outdir):  # the kill came too late
                break
        else:
            runs.finish(outdir)
        runs.assert_same(outdir)
        shutil.rmtree(outdir)
    tally("kills at a random moment, gone on from bit for bit", killed)


def test_a_run_in_slices_comes_to_the_same_end(runs, rounds, tally, tmp_path):
    """A queue ends each slice with SIGTERM; every slice in which a step is done gets further."""
    rng = random.Random(2)
    for n in range(rounds(1, 10)):
        outdir = tmp_path / f"slices{n}"
        state = outdir / "00000-reals" / "training-state-latest.pt"
        images, slices = 0, 0
        while not is_finished(outdir):
            process = runs.start(outdir)
            for _ in range(rng.randint(1, 3)):  # steps, at each of which the state is written
                before = written(state)
                while process.is_alive() and written(state) == before:
                    time.sleep(0.005)
            process.terminate()
            process.join(timeout=120)
            assert process.exitcode in (0, 143), runs.log(outdir).read_text()
            now = torch.load(state, weights_only=True)["images"]
            assert now >= images
            images, slices = now, slices + 1
            assert slices < 20, "no progress"
        assert slices > 2
        runs.assert_same(outdir)
        shutil.rmtree(outdir)
        tally("slices ended by SIGTERM, gone on from bit for bit", slices)


def written(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:  # between two renames
        return 0


def test_a_run_that_is_killed_at_a_rename_comes_to_the_same_end(runs, rounds, tally, tmp_path):
    """Before it and after it, which is between two of them: what is on disk is never half.

    Only after the last one is the run finished.
    """
    assert len(runs.targets) > 30
    assert runs.targets[-1].endswith("progress.json")
    cases = [(n, after) for n in range(len(runs.targets)) for after in (False, True)][:-1]
    pages = [case for case in cases if runs.targets[case[0]].endswith("report.html")]
    states = [case for case in cases if "training-state" in runs.targets[case[0]]]
    assert len(states) > 15  # two renames each time, and before and after both
    rng = random.Random(1)
    few = [cases[0], rng.choice(states), *pages, rng.choice(cases)]  # the first file, too
    for n, after in rounds(few, cases):
        outdir = tmp_path / f"renamed{n}{after}"
        process = runs.start(outdir, renames=n, after=after)
        process.join(timeout=300)
        assert process.exitcode == -9
        runs.finish(outdir)
        runs.assert_same(outdir)
        shutil.rmtree(outdir)
        tally("kills at a rename, gone on from bit for bit")
