"""`probe metrics` through the command line, and what a generator was trained against."""

import csv
import io
import json
import shutil

import numpy as np
import pytest
from inputs import tiny_generator, write_images

import probe
from probe.features.store import FeatureSpace
from probe.generators.files.lineage import trained_against
from probe.generators.files.snapshot import save_snapshot
from probe.metrics.frechet import FrechetReference
from probe.metrics.kernel import kernel_distance
from probe.metrics.prdc import neighbourhoods


@pytest.fixture
def judged(bank):
    """The bank with `colour` as its evaluator."""
    colour, edges, rest = bank.read_text().partition("\n- name: edges")
    bank.write_text(f"{colour}  role: evaluator\n{edges}{rest}")
    return bank


@pytest.fixture
def metrics(cli, judged):
    def run(real, gen, *arguments, format="json"):
        return cli(
            "metrics", "--real", real, "--gen", gen, "--bank", judged, "--offline",
            "--format", format, *arguments,
        )  # fmt: skip

    return run


def rows(result, code=0) -> dict:
    assert result.code == code, result.err
    return {row["name"]: row for row in json.loads(result.out)["rows"]}


def means(folder):
    """What `colour` sees: each channel's mean of pixels normalised to [-1, 1]."""
    from PIL import Image

    images = [np.asarray(Image.open(p), dtype=np.float64) for p in sorted(folder.iterdir())]
    return np.stack([(i / 255 - 0.5).mean(axis=(0, 1)) / 0.5 for i in images])


def test_the_numbers_are_those_of_the_features(metrics, reals, fakes):
    result = metrics(reals, fakes, "--precision", "fp32")
    (row,) = rows(result).values()
    real, fake = means(reals), means(fakes)
    assert row["name"] == "colour" and row["role"] == "evaluator" and row["dim"] == 3
    assert row["frechet"] == pytest.approx(FrechetReference(real).distance(fake), rel=1e-4)
    assert row["kernel"] == pytest.approx(kernel_distance(real, fake, seed=0).value, rel=1e-3)
    assert row["kernel_low"] < row["kernel"] < row["kernel_high"]
    near = neighbourhoods(real, fake)
    for name in ("precision", "recall", "density", "coverage"):
        assert row[name] == pytest.approx(getattr(near, name), abs=0.02)
    assert json.loads(result.out)["n_real"] == 60
    assert row["trained_against"] is None


def test_after_a_ranking_nothing_is_extracted_and_repeating_computes_nothing(
    cli, metrics, reals, checkpoint, judged, monkeypatch
):
    options = ("--bank", judged, "--offline", "--num", "40", "--seed", "3")
    assert cli("rank", "--real", reals, "--gen", checkpoint, *options).code == 0
    monkeypatch.setattr(
        "probe.features.extract.load_backbone", lambda *a, **k: pytest.fail("loaded")
    )
    arguments = ("--num", "40", "--seed", "3", "--backbones", "colour,edges,random")
    first = metrics(reals, checkpoint, *arguments)
    assert list(rows(first)) == ["colour", "edges", "random"]
    monkeypatch.setattr(FeatureSpace, "read", lambda *a: pytest.fail("was read"))
    assert metrics(reals, checkpoint, *arguments).out == first.out


def test_equal_sets_are_near_and_others_far_in_what_a_backbone_sees(metrics, fakes, tmp_path):
    one, other = (write_images(tmp_path / str(i), 60, seed=i) for i in (5, 6))
    near = rows(metrics(one, other, "--backbones", "colour,edges"))
    far = rows(metrics(one, fakes, "--backbones", "colour,edges"))
    assert near["colour"]["kernel_low"] < 0 < far["colour"]["kernel_low"]
    assert far["colour"]["frechet"] > 10 * near["colour"]["frechet"]
    assert far["edges"]["frechet"] < 10 * near["edges"]["frechet"]
    assert rows(metrics(one, one))["colour"]["frechet"] == pytest.approx(0, abs=1e-12)


def test_numbers_of_each_class_and_every_format(metrics, reals, checkpoint):
    found = json.loads(metrics(reals, checkpoint, "--num", "50", "--num-gen", "80").out)
    assert (found["n_real"], found["n_fake"]) == (50, 80)
    assert any("equal numbers" in note for note in found["notes"])
    table = metrics(reals, checkpoint, format="table").out
    assert "colour" in table and "kernel x 1000 [95 %]" in table
    assert "| colour |" in metrics(reals, checkpoint, format="markdown").out
    (row,) = csv.DictReader(io.StringIO(metrics(reals, checkpoint, format="csv").out))
    assert float(row["frechet"]) > 0 and row["n_real"] == "60"


def test_broken_images_are_skipped_in_both_sets_and_named(metrics, reals, fakes):
    (reals / "zz.png").write_bytes(b"no image")
    (reals / "003.png").write_bytes(b"no image either")
    found = json.loads(metrics(reals, fakes).out)
    assert found["n_real"] == found["n_fake"] == 59
    assert any("2 images were skipped" in note for note in found["notes"])
    strict = metrics(reals, fakes, "--strict")
    assert strict.code == 1 and strict.out == ""


def copied(folder, source, count, times):
    """Make a folder of the first images of another one, each several times."""
    folder.mkdir()
    for path in sorted(source.iterdir())[:count]:
        for i in range(times):
            shutil.copy(path, folder / f"{i}-{path.name}")
    return folder


def test_copies_are_counted_and_named(metrics, reals, fakes, tmp_path):
    for path in sorted(fakes.iterdir())[:10]:
        shutil.copy(path, reals / f"fake-{path.name}")
    thrice = copied(tmp_path / "thrice", fakes, 20, 3)
    both, own = json.loads(metrics(reals, thrice, "--num", "70", "--num-gen", "60").out)["notes"][
        :2
    ]
    assert both.startswith("Warning: 10 of 70 real and 30 of 60 generated images are in both sets")
    assert "fake-000.png = 0-000.png" in both
    assert own.startswith("Warning: 40 of 60 generated images are copies of others in their set")
    assert "which leaves 20." in own
    clean = json.loads(metrics(fakes, write_images(tmp_path / "new", 60, seed=9)).out)
    assert not any("Warning" in note for note in clean["notes"])


def test_a_set_may_be_measured_against_itself_and_its_copies_have_density_one(metrics, reals):
    result = metrics(reals, reals, "--precision", "fp32")
    (row,) = rows(result).values()
    assert [row[n] for n in ("precision", "recall", "density", "coverage")] == [1, 1, 1, 1]
    assert "60 of 60 real and 60 of 60 generated" in json.loads(result.out)["notes"][0]


def test_two_images_copied_often_are_refused(metrics, reals, fakes, tmp_path):
    two = copied(tmp_path / "two", fakes, 2, 20)
    for real, gen in ((reals, two), (two, reals)):
        result = metrics(real, gen)
        assert result.code == 1 and result.out == ""
        assert f"{two}: leaving out copies leaves 2 of 40 images; at least 16" in result.err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--num", "3"], 2, "--num: must be a whole number from 16 to"),
        (["--num-gen", "3"], 2, "--num-gen: must be a whole number from 16 to"),
        (["--backbones", "color"], 2, "Did you mean 'colour'?"),
        (["--precision", "fp8"], 2, "fp8"),
        (["--trunc", "0.5"], 2, "holds finished images"),
    ],
)
def test_wrong_usage_is_said(metrics, reals, fakes, arguments, code, words):
    result = metrics(reals, fakes, *arguments)
    assert result.code == code and words in result.err and result.out == ""


def test_few_images_and_a_bank_without_evaluator_are_said(cli, bank, reals, tmp_path):
    few = write_images(tmp_path / "few", 9, seed=4)
    arguments = ["metrics", "--real", reals, "--gen", few, "--bank", bank]
    assert "no entry with role: evaluator" in cli(*arguments).err
    result = cli(*arguments, "--backbones", "colour")
    assert result.code == 1 and f"{few}: 9 usable images are too few" in result.err


def test_canonical_fid_says_what_to_get_and_where_to_put_it(metrics, reals, fakes, tmp_path):
    result = metrics(reals, fakes, "--fid")
    found = rows(result, code=3)
    assert found["colour"]["status"] == "ok" and found["inception-fid"]["status"] == "absent"
    place = tmp_path / "torch" / "hub" / "checkpoints" / "pt_inception-2015-12-05-6726825d.pth"
    assert str(place) in found["inception-fid"]["remedy"]
    place.parent.mkdir(parents=True)
    place.write_bytes(b"something else")
    found = rows(metrics(reals, fakes, "--fid"), code=3)
    assert "is not the file" in found["inception-fid"]["reason"]


def test_a_backbone_that_was_trained_against_is_warned_of(metrics, reals, tmp_path):
    """By the snapshot's own record, and by the run's where the snapshot has none."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "training_options.json").write_text("{}")
    best = run / "network-snapshot-best.safetensors"
    save_snapshot(best, tiny_generator(), metadata={"discriminators": ["gan", "edges"]})
    (run / "selection-stage1.json").write_text('{"added": ["colour"]}')
    (run / "selection-stage2.json").write_text('{"added": [')
    assert trained_against(run) == trained_against(best) == {"gan", "edges"}
    found = json.loads(metrics(reals, run, "--backbones", "colour,edges").out)
    assert [row["trained_against"] for row in found["rows"]] == [False, True]
    (warning,) = [note for note in found["notes"] if note.startswith("Warning")]
    assert "discriminator on edges" in warning
    save_snapshot(best, tiny_generator(), metadata={})
    assert trained_against(run) == {"colour"}
    assert trained_against(reals) is None and trained_against(tmp_path / "none") is None


def test_python_gives_records_and_frames(reals, fakes, judged):
    found = probe.measure(reals, fakes, bank=judged, options=probe.MeasureOptions(num=50))
    frame = found.to_frame()
    assert frame.loc[0, "frechet"] == found["colour"].frechet > 0
    assert frame.loc[0, "n_fake"] == 50
    with pytest.raises(KeyError):
        found["nothing"]
