"""`probe doctor`: it names what was broken on purpose, and nothing in a sound folder."""

import json
import shlex
import shutil

import numpy as np
import pytest
from inputs import photo, tiny_generator, write_images
from PIL import Image

from probe.generators.files.snapshot import save_snapshot


@pytest.fixture
def doctor(cli, bank):
    def run(real, *arguments):
        result = cli("doctor", "--real", real, "--bank", bank, "--json", *arguments)
        assert result.out, result.err
        return result.code, json.loads(result.out)

    return run


def lines(found, *levels) -> str:
    return "\n".join(f["text"] for f in found["findings"] if not levels or f["level"] in levels)


def test_a_sound_folder_has_nothing_wrong(doctor, tmp_path):
    real = write_images(tmp_path / "sound", 120, seed=0)
    code, found = doctor(real)
    assert code == 0
    assert lines(found, "warning", "problem") == ""
    text = lines(found)
    assert "120 images." in text and "All are 32x32 px." in text
    assert "backbones are here: colour, edges, random" in text
    assert "A ranking of 120 images of each class takes about" in text
    assert "Training by strategy progressive for" in text and "edges +" in text
    assert "--batch 32: preset small32" in text


def test_the_commands_it_ends_with_are_valid(doctor, cli, tmp_path):
    real = write_images(tmp_path / "my images", 40, seed=0)
    gen = tmp_path / "G.safetensors"
    save_snapshot(gen, tiny_generator(), metadata={})
    _, found = doctor(real, "--gen", gen)
    rank, train = (shlex.split(command)[1:] for command in found["commands"])
    assert cli(*rank, "--out", tmp_path / "out", "--offline").code == 0
    planned = cli(*train, "--dry-run", "--offline", "--channel-base", "128", "--batch", "4")
    assert planned.code == 0, planned.err


def test_what_is_broken_is_named(doctor, tmp_path):
    real = write_images(tmp_path / "odd", 60, seed=0)
    rng = np.random.default_rng(5)
    (real / "broken.png").write_bytes((real / "000.png").read_bytes()[:100])
    (real / "text.jpg").write_text("no image")
    shutil.copy(real / "001.png", real / "copy.png")
    Image.open(real / "002.png").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(real / "flip.png")
    Image.open(real / "003.png").resize((48, 48)).save(real / "larger.png")
    photo(rng, 16).save(real / "small.png")
    photo(rng, 128).crop((0, 0, 128, 32)).save(real / "long.png")
    photo(rng).convert("L").save(real / "grey.png")
    photo(rng).convert("CMYK").save(real / "print.jpg")
    Image.new("RGB", (32, 32), "teal").save(real / "flat.png")
    code, found = doctor(real, "--no-measure")
    assert code == 0
    by_words = {
        "2 of 70 files cannot be read": {"broken.png", "text.jpg"},
        "Copies of other files, byte by byte": {"copy.png"},
        "smaller than 32 px": {"small.png"},
        "wice as long as wide": {"long.png"},
        "of a single colour": {"flat.png"},
    }
    for words, names in by_words.items():
        (finding,) = [f for f in found["findings"] if words in f["text"]]
        assert names == set(finding["names"]) & names and finding["advice"], words
    (alike,) = [f for f in found["findings"] if "look like another" in f["text"]]
    pairs = " ".join(alike["names"])
    assert "002.png ~ flip.png" in pairs and "003.png ~ larger.png" in pairs
    assert "copy.png" not in pairs, "a copy byte by byte is named once"
    assert "1 CMYK, 1 grey" in lines(found)


def test_leaks_between_the_sets_are_found(doctor, tmp_path):
    real = write_images(tmp_path / "real", 60, seed=0)
    fake = write_images(tmp_path / "fake", 60, seed=1)
    assert "No image is in both sets." in lines(
        doctor(real, "--gen", fake, "--no-measure")[1], "ok"
    )
    for name in ("000.png", "001.png"):
        shutil.copy(real / name, fake / f"leak{name}")
    code, found = doctor(real, "--gen", fake, "--no-measure")
    assert code == 1
    assert "2 files in both sets: 000.png = leak000.png" in lines(found, "problem")
    for path in fake.glob("leak*"):
        path.unlink()
    Image.open(real / "002.png").save(fake / "again.jpg", quality=97)
    code, found = doctor(real, "--gen", fake, "--no-measure")
    assert code == 0 and "again.jpg is 002.png" in lines(found, "warning")
    (fake / "again.jpg").unlink()
    shutil.copy(fake / "003.png", fake / "twice.png")
    Image.open(fake / "004.png").save(fake / "nearly.jpg", quality=97)
    code, found = doctor(real, "--gen", fake, "--no-measure")
    said = lines(found, "warning")
    assert (
        code == 0 and "Copies of other generated images, byte by byte: 1. 003.png = twice" in said
    )
    assert "of the generated images look like another one" in said and "004.png ~ nearly" in said


def test_too_few_images_and_no_weights_are_problems(doctor, cli, tmp_path):
    few = write_images(tmp_path / "few", 9, seed=0)
    code, found = doctor(few, "--no-measure")
    assert code == 1 and "9 images are too few" in lines(found, "problem")
    lone = tmp_path / "lone.yaml"
    lone.write_text("""
- {name: gone, source: torchscript, model: m, weights: {file: gone.pt}, input: 32,
   mean: [0, 0, 0], std: [1, 1, 1], task: none, data: none, license: none}
""")
    real = write_images(tmp_path / "real", 30, seed=0)
    result = cli("doctor", "--real", real, "--bank", lone)
    assert result.code == 1 and "✗ problem: No backbone of the bank can run here" in result.out
    assert "gone.pt does not exist" in result.out
    assert cli("doctor", "--real", tmp_path / "nowhere").code == 1


def test_a_ranking_is_looked_at(doctor, cli, bank, reals, fakes, tmp_path):
    out = tmp_path / "ranking"
    cli("rank", "--real", reals, "--gen", fakes, "--bank", bank, "--offline", "--out", out)
    text = lines(doctor(reals, "--run", out, "--no-measure")[1])
    assert "colour tells them apart best" in text
    assert "backbones are here" in text and "--batch 32" in text
    assert "takes about" not in text, "nothing was measured"
    other = write_images(tmp_path / "other", 30, seed=4)
    assert f"images in {reals}, not those in {other}" in lines(
        doctor(other, "--run", out, "--no-measure")[1], "warning"
    )
    code = cli("doctor", "--real", reals, "--no-measure", "--run", reals)
    assert code.code == 1 and "holds no run" in code.err


def test_a_sick_training_run_is_diagnosed(doctor, reals, tmp_path):
    run = tmp_path / "00000-reals"
    run.mkdir()
    (run / "training_options.json").write_text(json.dumps({"real": {"path": str(reals)}}))
    assert "no saved state yet" in lines(doctor(reals, "--run", run, "--no-measure")[1])
    (run / "progress.json").write_text(
        json.dumps({"kimg": 60.0, "total_kimg": 100.0, "finished": False})
    )
    stats = {"Progress/augment": 0.3, "Progress/augment/edges": 0.93}
    (run / "stats.jsonl").write_text(json.dumps({k: {"mean": v} for k, v in stats.items()}) + "\n{")
    right = {"Accuracy/D/train": 0.98, "Accuracy/D/holdout": 0.4, "Accuracy/D/fake": 0.9,
             "Accuracy/edges/train": 1.0, "Accuracy/edges/holdout": 0.97,
             "Accuracy/edges/fake": 1.0}  # fmt: skip
    (run / "metric-accuracy.jsonl").write_text(json.dumps({"results": right}) + "\n")
    name = "frechet-judge"
    (run / f"metric-{name}.jsonl").write_text(
        "".join(
            json.dumps({"metric": name, "kimg": 10.0 * i, "results": {name: d}}) + "\n"
            for i, d in enumerate([90, 50, 55, 60, 70], start=1)
        )
    )
    text = lines(doctor(reals, "--run", run, "--no-measure")[1], "warning", "note")
    for words in ("60 of 100 kimg", "augmentation of edges is at p = 0.93",
                  "98% of the training images and on 40%", "on edges is right on everything",
                  "least 50.0 at 20 kimg; the 3 snapshots since are worse"):  # fmt: skip
        assert words in text, words


def test_nothing_is_written(doctor, reals, tmp_path):
    before = sorted(p for p in tmp_path.rglob("*") if p.is_file())
    doctor(reals)
    assert sorted(p for p in tmp_path.rglob("*") if p.is_file()) == before


def test_the_terminal_shows_levels_and_advice(cli, reals, bank):
    result = cli("doctor", "--real", reals, "--bank", bank, "--strategy", "none")
    assert result.code == 0
    assert "! warning: 60 images: scores will have wide intervals" in result.out
    assert "strategy none" in result.out and "$ probe rank --real" in result.out
