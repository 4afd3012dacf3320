"""Damaged files of a run: put right, or one sentence; never a traceback, and nothing lost."""

import json
import random
import re
import shutil
from pathlib import Path

import pytest
from inputs import write_images, write_judged_bank

import probe
from probe.errors import ProbeError
from probe.run_files import STATE_FILE
from probe.stored import LARGEST
from probe.training.state_file import read_state

CONFIG = {
    "strategy": "fixed", "k": 1, "stage_kimg": "0.008,0.008", "batch": 4, "channel_base": 128,
    "channel_max": 8, "z_dim": 8, "w_dim": 8, "eval_num": 16, "rank_num": 40, "tick": 0.008,
    "snap": 1, "holdout": 4, "track_probes": True,
}  # fmt: skip
FLAGS = [
    part
    for name, value in CONFIG.items()
    for part in ([f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)]))
]
WRONG = ("x", "", None, True, -1, 0, 7, 1e308, -1e308, 10**30, [], {}, ["x"], {"x": 1},
         float("nan"), float("inf"))  # fmt: skip
TRAINING = ("training_options.json", "progress.json", "stats.jsonl", "probes.jsonl",
            "metric-accuracy.jsonl", "metric-frechet-mixed.jsonl", "metric-kernel-mixed.jsonl",
            "selection-stage1.json")  # fmt: skip
RANKING = ("leaderboard.json", "probes.json", "scores.csv")


class Made:
    """A training run, a ranking, and what they were made of."""

    def __init__(self, folder: Path) -> None:
        self.real = write_images(folder / "reals", 40, seed=3, size=16)
        self.fake = write_images(folder / "fakes", 40, seed=4, size=16, blue=40)
        self.bank = write_judged_bank(folder)
        common = {"bank": self.bank, "device": "cpu"}
        snapshot = probe.train(
            self.real, outdir=folder / "runs", config=probe.TrainConfig(**CONFIG),
            precision="fp32", **common,
        )  # fmt: skip
        self.trained, self.ranked = snapshot.parent, folder / "ranking"
        probe.rank(self.real, self.fake, out=self.ranked, backbones=["colour", "edges"], **common)

    def commands(self, run: Path) -> list[tuple[object, ...]]:
        """Return every command that reads a training run's directory or a ranking's folder."""
        given = ("--bank", self.bank, "--device", "cpu")
        doctor = ("doctor", "--real", self.real, "--run", run, "--no-measure", *given)
        if (run / "network-snapshot-best.safetensors").exists():
            return [
                ("report", run),
                doctor,
                ("inspect", run),
                ("generate", "--gen", run, "--seeds", "0", "--grid", run / "grid.png"),
                ("metrics", "--real", self.real, "--gen", run, "--backbones", "colour", "--num",
                 "16", "--offline", *given),
                ("train", "--real", self.real, "--outdir", run.parent, "--resume", run, "--offline",
                 "--precision", "fp32", *FLAGS, *given),
                ("train", "--real", self.real, "--outdir", run.parent, "--offline", "--precision",
                 "fp32", *FLAGS, *given),
            ]  # fmt: skip
        return [("report", run), doctor, ("score", self.fake / "000.png", "--run", run, *given)]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    folder = tmp_path_factory.mktemp("made")
    patch.setenv("PROBE_CACHE_DIR", str(folder / "cache"))
    yield Made(folder)
    patch.undo()


@pytest.fixture(autouse=True)
def own_cache():
    """All tests of this file share a cache."""


def places(value, path=()):
    """Yield the path to every value in a record."""
    if path:
        yield path
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*path, key))


def changed(rng: random.Random, text: str) -> str:
    """Return a record with one value that is wrong or gone."""
    record = json.loads(text)
    *way, last = rng.choice(list(places(record)))
    holder = record
    for key in way:
        holder = holder[key]
    if rng.random() < 0.3:
        del holder[last]
    else:
        holder[last] = rng.choice(WRONG)
    return json.dumps(record)


def damage(rng: random.Random, path: Path) -> str:
    """Damage a file, and return how."""
    text = path.read_text()
    kind = rng.choice(("value", "value", "value", "value", "cut", "digit", "digits", "brackets",
                       "bytes", "huge", "empty"))  # fmt: skip
    if kind == "value" and path.suffix == ".json":
        path.write_text(changed(rng, text))
    elif kind == "value" and path.suffix == ".jsonl":
        lines = text.splitlines()
        n = rng.randrange(len(lines))
        lines[n] = changed(rng, lines[n])
        path.write_text("\n".join(lines) + "\n")
    elif kind in ("value", "digit"):
        at = rng.choice([m.start() for m in re.finditer(r"\d", text)])
        path.write_text(text[:at] + rng.choice("0123456789") + text[at + 1 :])
    elif kind == "cut":
        path.write_text(text[: rng.randrange(len(text))])
    elif kind == "digits":
        path.write_text(re.sub(r"\d+", "9" * 5000, text, count=rng.randint(1, 3)))
    elif kind == "brackets":
        path.write_text("[" * 100_000)
    elif kind == "bytes":
        data = bytearray(text.encode())
        data[rng.randrange(len(data))] = 0xFF
        path.write_bytes(data)
    elif kind == "huge":
        with path.open("r+b") as file:
            file.truncate(LARGEST + 1)
    else:
        path.write_text("")
    return kind


@pytest.mark.parametrize("files", [TRAINING, RANKING], ids=["training", "ranking"])
def test_damaged_records(made, cli, rounds, tally, tmp_path, files):
    source = made.trained if files == TRAINING else made.ranked
    rng = random.Random(5)
    for n in range(rounds(8, 250)):
        outdir = tmp_path / f"{n}"
        run = shutil.copytree(source, outdir / source.name)
        path = run / rng.choice(files)
        kind = damage(rng, path)
        commands = made.commands(run)
        for arguments in rounds(rng.sample(commands, 3), commands):
            result = cli(*arguments)
            what = (n, path.name, kind, arguments[0], result.err[-2000:])
            assert result.code in (0, 1, 2, 3), what
            errors = [line for line in result.err.splitlines() if line.startswith("Error: ")]
            assert len(errors) == (result.code in (1, 2) and arguments[0] != "doctor"), what
            assert not errors or result.err.endswith(errors[-1] + "\n"), what
            tally(f"damaged records, {'refused' if errors else 'put right or left out'}")
        shutil.rmtree(outdir)


def test_flipped_bits_of_a_state(made, rounds, tally, tmp_path):
    run = shutil.copytree(made.trained, tmp_path / "run")
    path = run / STATE_FILE
    whole = path.read_bytes()
    before = read_state(run).record["images"]
    rng = random.Random(6)
    for _ in range(rounds(60, 5000)):
        data = bytearray(whole)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        found = read_state(run)
        assert found.damaged is not None and found.record["images"] < before
        tally("flipped bits of a training state, noticed")


def test_flipped_bits_of_both_states(made, rounds, tally, tmp_path):
    run = shutil.copytree(made.trained, tmp_path / "run")
    rng = random.Random(7)
    paths = sorted(run.glob("training-state-*.pt"))
    whole = [path.read_bytes() for path in paths]
    assert len(paths) == 2
    for _ in range(rounds(20, 500)):
        for path, data in zip(paths, whole):
            flipped = bytearray(data)
            flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            path.write_bytes(flipped)
        with pytest.raises(ProbeError) as error:
            read_state(run)
        assert all(str(path) in str(error.value) for path in paths)
        tally("flipped bits of both states, refused")
