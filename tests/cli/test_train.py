"""`probe train` through the command line: a run, its files, its end."""

import json

import torch
from inputs import write_images

TINY = ("--kimg", "0.04", "--batch", "4", "--tick", "0.02", "--snap", "1", "--channel-base", "128",
        "--channel-max", "8", "--z-dim", "8", "--w-dim", "8")  # fmt: skip


def test_a_run_its_files_and_its_rank(cli, reals, bank, tmp_path):
    (reals / "broken.png").write_bytes(b"text")
    result = cli("train", "--real", reals, "--outdir", tmp_path / "runs", *TINY)
    assert result.code == 0, result.err
    folder = tmp_path / "runs" / "00000-reals"
    snapshot = folder / "network-snapshot-000000.safetensors"
    assert result.out.strip() == str(snapshot)
    names = {p.name for p in folder.iterdir()}
    assert {"training_options.json", "log.txt", "stats.jsonl", "reals.png"} <= names
    assert "broken.png (not an image)" in (folder / "log.txt").read_text()
    options = json.loads((folder / "training_options.json").read_text())
    assert options["options"]["kimg"] == 0.04 and options["resolution"] == 32
    stats = [json.loads(line) for line in (folder / "stats.jsonl").read_text().splitlines()]
    assert [round(s["Progress/kimg"]["mean"], 3) for s in stats] == [0.02, 0.04]
    state = torch.load(folder / "training-state-latest.pt", weights_only=True)
    assert state["images"] == 40
    ranked = cli("rank", "--real", reals, "--gen", snapshot, "--bank", bank, "--format", "json")
    assert ranked.code == 0, ranked.err


def test_runs_are_numbered_and_resumed(cli, reals, tmp_path):
    runs = tmp_path / "runs"
    for number in range(2):
        assert cli("train", "--real", reals, "--outdir", runs, *TINY).code == 0
        assert (runs / f"{number:05d}-reals").is_dir()
    longer = [*TINY, "--kimg", "0.06"]
    again = cli(
        "train", "--real", reals, "--outdir", runs, "--resume", runs / "00001-reals", *longer
    )
    assert again.code == 0, again.err
    assert len(list(runs.iterdir())) == 2
    other = cli("train", "--real", reals, "--resume", runs / "00001-reals", *TINY, "--lr", "0.1")
    assert other.code == 1 and "other images or options" in other.err
    gone = cli("train", "--real", reals, "--outdir", runs, "--resume", runs / "gone", *TINY)
    assert gone.code == 2 and "--resume" in gone.err


def test_impossible_training_is_refused(cli, reals, tmp_path):
    few = write_images(tmp_path / "few", 8, seed=0)
    odd = write_images(tmp_path / "odd", 20, seed=0, size=48)
    for real, arguments, code, words in [
        (few, (), 1, "too few to train on"),
        (odd, (), 2, "--resolution"),
        (reals, ("--batch", "6"), 2, "--batch"),
        (reals, ("--strategy", "magic"), 2, "magic"),
    ]:
        result = cli("train", "--real", real, "--outdir", tmp_path / "runs", *TINY, *arguments)
        assert result.code == code and words in result.err, result.err
    assert not (tmp_path / "runs").exists()
