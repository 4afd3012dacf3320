"""`probe rank` through the command line: truths, files, bad inputs."""

import csv
import html
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from inputs import ENTRY, tiny_generator, write_images
from PIL import Image

from probe.generators.files.snapshot import save_snapshot
from probe.probing.leaderboard import Leaderboard

ROOT = Path(__file__).parents[2]


@pytest.fixture
def rank(cli, bank):
    def run(real, gen, *arguments, format="json"):
        return cli(
            "rank", "--real", real, "--gen", gen, "--bank", bank, "--offline",
            "--format", format, *arguments,
        )  # fmt: skip

    return run


def board(result) -> Leaderboard:
    assert result.code == 0, result.err
    return Leaderboard.from_dict(json.loads(result.out))


def test_the_backbone_that_sees_the_difference_wins(rank, reals, fakes):
    found = board(rank(reals, fakes, "-k", "1"))
    assert found.winner.name == "colour" and found.winner.picked
    rows = {row.name: row for row in found.rows}
    assert rows["edges"].gap_high < 0 and rows["edges"].rank == 2
    assert rows["random"].role == "control" and rows["random"].rank is None
    assert rows["colour"].dim == 3 and rows["edges"].dim == 31
    assert any(row.role == "null" for row in found.rows)
    assert found.n_real == found.n_fake == 60 and found.resolution == 32


def test_identical_sets_give_no_winner(rank, tmp_path):
    one = write_images(tmp_path / "one", 60, seed=1)
    other = write_images(tmp_path / "other", 60, seed=3)
    found = board(rank(one, other))
    assert found.winner is None and not any(row.picked for row in found.rows)


def test_repeating_computes_nothing_and_prints_the_same(rank, reals, fakes, monkeypatch):
    first = rank(reals, fakes)
    monkeypatch.setattr(
        "probe.features.extract.load_backbone", lambda *a, **k: pytest.fail("was loaded")
    )
    fitted = "probe.probing.fit.evaluate"
    monkeypatch.setattr(fitted, lambda *a, **k: pytest.fail("was fitted"))
    assert rank(reals, fakes).out == first.out


def test_a_changed_digit_of_what_was_measured_is_put_right(rank, reals, fakes, tmp_path):
    first = board(rank(reals, fakes))
    paths = list((tmp_path / "cache").glob("features/*/facts.json"))
    for path in paths:
        text = path.read_text()
        changed = re.sub(r'("dim": )\d', lambda m: f"{m[1]}{8 if m[0][-1] == '9' else 9}", text)
        assert changed != text
        path.write_text(changed)
    again = board(rank(reals, fakes))
    for before, after in zip(first.rows, again.rows, strict=True):
        assert (before.name, before.dim, before.params) == (after.name, after.dim, after.params)
    assert len(paths) == 3


def test_generators_are_repeatable_and_seeded(rank, reals, checkpoint):
    first = board(rank(reals, checkpoint))
    assert first.config["fake"]["kind"] == "generator"
    other_seed = board(rank(reals, checkpoint, "--seed", "1"))
    truncated = board(rank(reals, checkpoint, "--trunc", "0.5"))
    digests = {b.config["fake"]["images_digest"] for b in (first, other_seed, truncated)}
    assert len(digests) == 3


@pytest.mark.parametrize("change", ["image", "resolution", "precision", "checkpoint", "entry"])
def test_a_changed_input_is_computed_again(rank, reals, checkpoint, bank, change, tmp_path):
    rank(reals, checkpoint)
    rows = len(list((tmp_path / "cache").rglob("features/*/*.safetensors")))
    arguments = []
    if change == "image":
        shutil.copy(reals / "001.png", reals / "000.png")
        shutil.copy(checkpoint, reals.parent / "new.safetensors")
        write_images(reals / "new", 1, seed=9)
    elif change == "resolution":
        arguments = ["--resolution", "16"]
    elif change == "precision":
        arguments = ["--precision", "bf16" if _default_is_fp32() else "fp32"]
    elif change == "checkpoint":
        save_snapshot(checkpoint, tiny_generator(seed=5), metadata={})
    else:
        bank.write_text(bank.read_text().replace("mean: [0.5, 0.5, 0.5]", "mean: [0.4, 0.5, 0.5]"))
    assert rank(reals, checkpoint, *arguments).code == 0
    assert len(list((tmp_path / "cache").rglob("features/*/*.safetensors"))) > rows


def _default_is_fp32() -> bool:
    import torch

    from probe.devices import choose_precision

    return choose_precision("auto", torch.device("cpu")) == "fp32"


def test_both_protocols_and_every_format(rank, reals, fakes, tmp_path):
    result = rank(reals, fakes, "--protocol", "both", "--out", tmp_path / "out")
    boards = json.loads(result.out)
    assert [b["protocol"] for b in boards] == ["fair", "paper"]
    assert json.loads((tmp_path / "out" / "leaderboard.json").read_text()) == boards
    rows = list(csv.DictReader(io.StringIO(rank(reals, fakes, format="csv").out)))
    assert rows[0]["name"] == "colour" and float(rows[0]["score"]) < 0
    table = rank(reals, fakes, format="table").out
    assert "colour *" in table and "score [95 %]" in table and "by accuracy" not in table
    table = rank(reals, fakes, "--protocol", "paper", format="table").out
    assert "order, ranks and gaps are by accuracy" in table
    accuracies = [row["accuracy"] for row in boards[1]["rows"] if row["rank"]]
    assert accuracies == sorted(accuracies, reverse=True)
    assert page(tmp_path / "out").count("Order, ranks and gaps are by accuracy.") == 1
    assert "| colour * |" in rank(reals, fakes, format="markdown").out
    scores = list(csv.DictReader((tmp_path / "out" / "scores.csv").open()))
    assert len(scores) == 2 * 3 * 120
    assert {s["class"] for s in scores} == {"real", "generated"}


def test_progress_goes_to_stderr_and_quiet_silences_it(rank, reals, fakes):
    loud, quiet = rank(reals, fakes), rank(reals, fakes, "--quiet")
    assert "60 real images" in loud.err and quiet.err == ""
    json.loads(loud.out)


def test_zip_of_fakes_and_broken_files_are_counted_and_named(rank, reals, fakes, tmp_path):
    (reals / "zz_text.png").write_bytes(b"not an image")
    (reals / "zz_empty.jpg").write_bytes(b"")
    archive = shutil.make_archive(str(tmp_path / "fakes_zip"), "zip", fakes)
    found = board(rank(reals, archive))
    assert found.n_real == 60
    (note,) = [n for n in found.notes if "skipped" in n]
    assert "2 images were skipped" in note and "zz_text.png (not an image)" in note
    strict = rank(reals, archive, "--strict")
    assert strict.code == 1 and "zz_" in strict.err and strict.out == ""


def test_encoding_shortcut_is_warned_of_and_matched(rank, reals, fakes, tmp_path):
    jpegs = tmp_path / "jpegs"
    jpegs.mkdir()
    for path in sorted(fakes.iterdir()):
        Image.open(path).save(jpegs / f"{path.stem}.jpg", quality=70)
    found = board(rank(reals, jpegs))
    assert found.audit[0]["property"] == "compression"
    assert "compression alone tells 100 %" in rank(reals, jpegs, format="table").out
    matched = board(rank(reals, jpegs, "--match-jpeg"))
    assert matched.config["jpeg_quality"] == 70
    assert any("both compressed as JPEG, quality 70" in n for n in matched.notes)


def test_a_missing_backbone_is_a_row_with_its_remedy(rank, reals, fakes, bank):
    """It decides the exit code only if it was asked for by its name."""
    with bank.open("a") as f:
        f.write(
            bank.read_text().split("- name: edges")[0].replace("name: colour", "name: gone")
            .replace("{file: colour.pt}", "{package: no-such-package-xyz, version: '1', file: w}")
        )  # fmt: skip
    for arguments, code in (((), 0), (("--backbones", "g*,colour"), 0),
                            (("--backbones", "gone,colour"), 3)):  # fmt: skip
        result = rank(reals, fakes, *arguments)
        assert result.code == code, arguments
        row = {r["name"]: r for r in json.loads(result.out)["rows"]}["gone"]
        assert row["status"] == "absent" and row["score"] is None
        assert row["remedy"] == "pip install --no-deps no-such-package-xyz==1"
        table = rank(reals, fakes, *arguments, format="table").out
        assert "pip install --no-deps" in table
        assert ("absent: gone: " in table) == (code == 3)


def test_weights_that_nobody_asked_for_are_one_line(cli, reals, fakes, bank):
    """Whatever comes with probe but is not on this machine is counted, not listed."""
    hub = "".join(
        ENTRY.format(name=f"far{i}").replace(f"{{file: far{i}.pt}}", f"{{hub: org/far{i}}}")
        .replace("source: torchscript", "source: timm").replace(f"model: far{i}", "model: vgg11")
        for i in range(14)
    )  # fmt: skip
    bank.write_text(bank.read_text() + hub)
    result = cli("rank", "--real", reals, "--gen", fakes, "--bank", bank, "--offline")
    assert result.code == 0, result.err
    assert "14 backbones need downloads: `probe bank fetch`" in result.out
    assert "far" not in result.out
    only = cli("rank", "--real", reals, "--gen", fakes, "--bank", bank, "--offline",
               "--backbones", "far*")  # fmt: skip
    assert only.code == 1 and "14 backbones need downloads" in only.err and "far" not in only.err
    train = cli("train", "--real", reals, "--bank", bank, "--offline", "--strategy", "fixed",
                "--k", "9", "--outdir", reals.parent / "runs")  # fmt: skip
    assert train.code == 2 and "14 backbones need downloads" in train.err
    assert "far" not in train.err


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ((), ["edges", "random"]),
        (("--controls", "2"), ["edges", "random", "random2"]),
        (("--controls", "0"), ["edges"]),
        (("--backbones", "random*,edges"), ["edges", "random", "random2"]),
    ],
)
def test_controls_are_few_and_come_last(rank, reals, fakes, bank, arguments, names):
    parts = bank.read_text().split("\n- ")
    control = parts.pop()
    second = control.replace("name: random", "name: random2").replace("random: 0", "random: 1")
    bank.write_text("\n- ".join(["", control, second, *parts[2:]]))  # the controls stand first
    result = rank(reals, fakes, *arguments)
    assert sorted(r.name for r in board(result).rows if r.role != "null") == names
    order = [line.split(":")[0].strip() for line in result.err.splitlines() if "  " in line[:2]]
    assert order[: len(names)] == names


def test_a_backbone_that_breaks_while_running_is_a_row(rank, reals, fakes, bank, monkeypatch):
    from probe.bank.base import Backbone

    pool = Backbone.pool

    def breaking(self, x):
        if self.name == "edges":
            raise RuntimeError("kernel exploded\nwith details")
        return pool(self, x)

    monkeypatch.setattr(Backbone, "pool", breaking)
    result = rank(reals, fakes)
    rows = {r["name"]: r for r in json.loads(result.out)["rows"]}
    assert result.code == 3
    assert rows["edges"]["status"] == "failed"
    assert rows["edges"]["reason"] == "RuntimeError: kernel exploded"
    assert rows["colour"]["rank"] == 1


def test_out_of_memory_halves_the_batch(rank, reals, fakes, monkeypatch):
    from probe.bank.base import Backbone

    sizes, pool = [], Backbone.pool

    def hungry(self, x):
        sizes.append(len(x))
        if len(x) > 2:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
        return pool(self, x)

    monkeypatch.setattr(Backbone, "pool", hungry)
    found = board(rank(reals, fakes, "--backbones", "colour,edges"))
    assert found.winner.name == "colour" and {16, 8, 4, 2} <= set(sizes)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--num", "8"], 2, ["--num", "16"]),
        (["--protocol", "fiar"], 2, ["--protocol", "fair"]),
        (["--precision", "fp8"], 2, ["--precision"]),
        (["--device", "cuda:9"], 2, ["--device"]),
        (["--backbones", "colr"], 2, ["colr", "Did you mean 'colour'"]),
        (["--match-jpeg=maybe"], 2, ["maybe"]),
        (["--bogus"], 2, ["--bogus"]),
        (["--trunc", "0.5"], 2, ["--trunc"]),
    ],
)
def test_wrong_usage_fails_before_any_work(rank, reals, fakes, tmp_path, arguments, code, words):
    result = rank(reals, fakes, *arguments)
    assert result.code == code and all(word in result.err for word in words), result.err
    assert result.out == "" and not (tmp_path / "cache").exists()
    assert "Traceback" not in result.err


def test_unusable_inputs_are_refused_in_one_sentence(rank, cli, reals, fakes, tmp_path, bank):
    few = write_images(tmp_path / "few", 10, seed=0)
    (tmp_path / "empty").mkdir()
    (tmp_path / "page.pkl").write_text("<!DOCTYPE html><html>not found</html>")
    (tmp_path / "empty.pkl").write_bytes(b"")
    archive = shutil.make_archive(str(tmp_path / "cut"), "zip", fakes)
    behind = b"\x80\x02cos\nabort\n(tR." + Path(archive).read_bytes()
    (tmp_path / "zip-behind.pkl").write_bytes(behind)
    Path(archive).write_bytes(Path(archive).read_bytes()[:-30])
    broken = tmp_path / "broken.yaml"
    broken.write_text(bank.read_text().replace("input: 32", "inptu: 32", 1))
    cases = [
        (reals, few, "10 usable images are too few"),
        (few, fakes, "10 usable images are too few"),
        (tmp_path / "nowhere", fakes, "no such file or folder"),
        (tmp_path / "empty", fakes, "no images found"),
        (reals, tmp_path / "nowhere.pkl", "No such file"),
        (reals, tmp_path / "page.pkl", "web page"),
        (reals, tmp_path / "empty.pkl", "empty"),
        (reals, "x" * 300, "File name too long"),
        (reals, tmp_path / "zip-behind.pkl", "os.abort"),
        (reals, tmp_path / "cut.zip", "not a zip file, or a damaged one"),
    ]
    for real, gen, words in cases:
        result = rank(real, gen)
        assert result.code == 1 and words in result.err, (words, result.err)
        assert result.out == "" and "Traceback" not in result.err
    result = cli("rank", "--real", reals, "--gen", fakes, "--bank", broken)
    assert result.code == 1
    assert "broken.yaml:6" in result.err and "Did you mean 'input'" in result.err


def test_conditional_generators_need_labels_or_a_class(rank, reals, tmp_path):
    path = tmp_path / "classes.safetensors"
    save_snapshot(path, tiny_generator(c_dim=3), metadata={})
    result = rank(reals, path)
    assert result.code == 2 and "--class" in result.err
    assert rank(reals, path, "--class", "3").code == 2
    assert board(rank(reals, path, "--class", "2")).n_fake == 60
    labels = [[p.name, i % 3] for i, p in enumerate(sorted(reals.glob("*.png")))]
    (reals / "dataset.json").write_text(json.dumps({"labels": labels}))
    assert board(rank(reals, path)).n_fake == 60


def test_killed_at_any_moment_and_repeated_gives_the_same(tmp_path, reals, fakes, bank):
    command = [
        sys.executable, str(ROOT / "cli.py"), "rank", "--real", str(reals), "--gen", str(fakes),
        "--bank", str(bank), "--offline", "--format", "json",
    ]  # fmt: skip

    def environment(name):
        return {**os.environ, "PROBE_CACHE_DIR": str(tmp_path / name)}

    whole = subprocess.run(command, env=environment("whole"), capture_output=True, check=True)
    started = subprocess.Popen(
        command, env=environment("killed"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while not list((tmp_path / "killed").rglob("*.safetensors")) and started.poll() is None:
        time.sleep(0.005)
    started.send_signal(signal.SIGKILL)
    started.wait()
    again = subprocess.run(command, env=environment("killed"), capture_output=True, check=True)
    first, second = json.loads(whole.stdout), json.loads(again.stdout)
    for row in (*first["rows"], *second["rows"]):
        row["images_per_second"] = None  # the one measured number
    assert first == second


def test_terminated_with_a_sentence_and_its_exit_code(tmp_path, reals, fakes, bank):
    command = [
        sys.executable, "-m", "probe", "rank", "--real", str(reals), "--gen", str(fakes),
        "--bank", str(bank), "--offline",
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    process.stderr.readline()
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert process.returncode in (143, 0)  # 0: it was faster than the signal
    if process.returncode == 143:
        assert b"run the same command to resume" in err and b"Traceback" not in err


def warnings(found) -> str:
    return " ".join(note for note in found.notes if note.startswith("Warning"))


def test_fakes_among_the_reals_are_counted_and_named(rank, reals, fakes, tmp_path):
    """The folder of fakes lies below that of the reals: half of the reals are fakes."""
    clean = board(rank(reals, fakes))
    assert not warnings(clean)
    shutil.copytree(fakes, reals / "generated")
    found = board(rank(reals, fakes, "--out", tmp_path / "out"))
    scores = {row.name: row.score for row in found.rows}
    assert scores["colour"] < clean.rows[0].score - 0.1
    said = re.search(r"(\d+) of 60 real and (\d+) of 60 generated images are in both", str(found))
    assert said[1] == said[2] and 20 < int(said[1]) < 40
    assert re.search(r"\(generated/\d+\.png = \d+\.png, ", warnings(found))
    assert "More images" not in " ".join(found.notes)
    for text in (rank(reals, fakes, format="table").out, page(tmp_path / "out")):
        assert warnings(found) in text
    assert json.loads((tmp_path / "out" / "leaderboard.json").read_text())["notes"] == found.notes


def page(folder) -> str:
    return html.unescape((folder / "report.html").read_text("utf-8"))


def test_sets_that_are_the_same_are_refused(rank, reals, tmp_path):
    again = shutil.copytree(reals, tmp_path / "again")
    (again / "000.png").rename(again / "zzz.png")
    for gen in (reals, again):
        result = rank(reals, gen)
        assert result.code == 1 and result.out == ""
        assert (
            f"{reals}: leaving out copies and images of the other set leaves 0 of 60" in result.err
        )
        assert "60 of 60 real and 60 of 60 generated images are in both sets" in result.err


def copied(folder, source, names, times):
    """Make a folder of some images, each several times."""
    folder.mkdir()
    for name in names:
        for i in range(times):
            shutil.copy(source / name, folder / f"{i:02d}-{name}")
    return folder


def test_a_few_images_copied_often_are_refused(rank, reals, fakes, tmp_path):
    two = copied(tmp_path / "two", reals, ("000.png", "001.png"), 20)
    others = copied(tmp_path / "others", fakes, ("000.png", "001.png"), 20)
    result = rank(two, others)
    assert (
        result.code == 1
        and "two: leaving out copies and images of the other set leaves 2 of 40" in result.err
    )
    assert (
        "38 of 40 real images are copies" in result.err and "00-000.png = 01-000.png" in result.err
    )
    result = rank(reals, others)
    assert result.code == 1 and "set leaves 2 of 40 images" in result.err
    assert "The generator repeats itself" in result.err


def test_copies_are_no_more_images_than_their_originals(rank, tmp_path):
    """Of sets that differ in nothing, each of 20 images copied five times gives no winner."""
    sets = []
    for seed in (1, 3):
        plain = write_images(tmp_path / f"plain{seed}", 20, seed=seed)
        names = [path.name for path in plain.iterdir()]
        sets.append(copied(tmp_path / f"set{seed}", plain, names, 5))
    for protocol in ("fair", "paper"):
        found = board(rank(*sets, "--protocol", protocol))
        assert found.winner is None and not any(row.picked for row in found.rows)
        assert all(row.accuracy < 0.7 for row in found.rows if row.accuracy is not None)
        assert "80 of 100 real images are copies" in warnings(found)
        assert not any(row.role == "null" for row in found.rows)  # 20 images are too few for it


def test_the_null_row_keeps_copies_on_one_side(rank, fakes, tmp_path):
    plain = write_images(tmp_path / "plain", 40, seed=1)
    twice = copied(tmp_path / "twice", plain, [path.name for path in plain.iterdir()], 2)
    found = board(rank(twice, write_images(tmp_path / "many", 80, seed=2, blue=40)))
    (null,) = (row for row in found.rows if row.role == "null")
    assert null.accuracy < 0.7 and not null.above_chance


def test_near_duplicates_count_as_copies_when_asked(rank, fakes, tmp_path):
    plain = write_images(tmp_path / "plain", 30, seed=1)
    for path in sorted(plain.iterdir()):
        image = Image.open(path)
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(plain / f"m{path.name}")
    plain_run = board(rank(plain, fakes))
    assert not warnings(plain_run)
    found = board(rank(plain, fakes, "--near-duplicates"))
    assert "30 of 60 real images are copies of others in their set or look like" in warnings(found)
    assert "000.png ~ m000.png" in warnings(found) and found.config["options"]["near_duplicates"]
    colour = {row.name: row for row in found.rows}["colour"]
    assert colour.score != {row.name: row for row in plain_run.rows}["colour"].score
    # Without any, the option changes no score.
    one = write_images(tmp_path / "one", 40, seed=5)
    rows = [board(rank(one, fakes, *flag)).rows for flag in ((), ("--near-duplicates",))]
    assert [r.score for r in rows[0]] == [r.score for r in rows[1]]


def test_a_generator_whose_images_are_all_alike_is_refused_when_asked(rank, reals, tmp_path):
    path = tmp_path / "same.safetensors"
    save_snapshot(path, tiny_generator(), metadata={})
    arguments = ("--trunc", "0", "--noise", "const", "--near-duplicates")
    result = rank(reals, path, *arguments)
    assert result.code == 1 and "leaves 1 of 60 images" in result.err
    assert "seed 0 ~ seed 1" in result.err
