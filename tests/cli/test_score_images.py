"""`probe score`: new images through the probes that a ranking left."""

import csv
import io
import json
import shutil

import numpy as np
import pytest
from inputs import Colour, write_bank, write_images
from PIL import Image

import probe


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A ranking of reals against fakes that `colour` tells apart and `edges` does not."""
    folder = tmp_path_factory.mktemp("made")
    write_images(folder / "reals", 60, seed=1)
    write_images(folder / "fakes", 60, seed=2, blue=40)
    write_bank(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROBE_CACHE_DIR", str(folder / "cache"))
        probe.rank(
            folder / "reals", folder / "fakes", bank=folder / "bank.yaml", out=folder / "run"
        )
    return folder


@pytest.fixture(autouse=True)
def place(made, tmp_path):
    """Give every test a copy of its own, features included."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)


@pytest.fixture
def reals(tmp_path):
    return tmp_path / "reals"


@pytest.fixture
def fakes(tmp_path):
    return tmp_path / "fakes"


@pytest.fixture
def bank(tmp_path):
    return tmp_path / "bank.yaml"


@pytest.fixture
def run(tmp_path):
    return tmp_path / "run"


@pytest.fixture
def score(cli, bank, run):
    def call(*images, format="json", run=run, options=()):
        return cli(
            "score", *images, "--run", run, "--bank", bank, "--offline", "--format", format,
            *options,
        )  # fmt: skip

    return call


def record(result, code=0):
    assert result.code == code, result.err
    return json.loads(result.out)


def probabilities(found, name):
    return np.array([image["probabilities"][name] for image in found["images"]])


def test_new_images_get_probabilities_that_are_right(score, tmp_path):
    new = write_images(tmp_path / "real", 40, seed=11)
    made = write_images(tmp_path / "made", 40, seed=12, blue=40)
    real, fake = record(score(new)), record(score(made))
    p_real, p_fake = probabilities(real, "colour"), probabilities(fake, "colour")
    assert p_real.mean() < 0.35 and p_fake.mean() > 0.65
    assert list(real["images"][0]["probabilities"]) == ["colour", "edges"]  # and no control
    promised = {b["name"]: b for b in fake["backbones"]}["colour"]
    missed = (p_fake <= 0.5).mean()
    low, high = (promised["false_negative_rate"][k] for k in ("low", "high"))
    assert low - 0.1 <= missed <= high + 0.1 and promised["false_negative_rate"]["count"] == 60
    assert "know nothing" in real["valid_for"] and "/fakes among reals like" in real["valid_for"]
    assert any("edges did not tell" in note for note in real["notes"])


def test_probabilities_are_calibrated(score, tmp_path):
    """The mean log-probability on new images is about the one that the ranking promised."""
    new = write_images(tmp_path / "real", 200, seed=21)
    made = write_images(tmp_path / "made", 200, seed=22, blue=40)
    real = record(score(new, options=["--backbones", "colour"]))
    fake = record(score(made, options=["--backbones", "colour"]))
    loss = np.log(1 - probabilities(real, "colour")).mean() / 2
    loss += np.log(probabilities(fake, "colour")).mean() / 2
    assert loss == pytest.approx(real["backbones"][0]["run_score"], abs=0.1)


def test_images_of_the_ranking_get_their_held_out_scores(score, run, fakes):
    found = record(score(fakes))
    assert all(image["in_run"] for image in found["images"])
    assert "60 of 60 images were in the ranking" in " ".join(found["notes"])
    held_out = {
        row["image"]: float(row["logit"])
        for row in csv.DictReader((run / "scores.csv").open())
        if row["backbone"] == "colour" and row["class"] == "generated"
    }
    for image in found["images"]:
        assert image["logits"]["colour"] == pytest.approx(held_out[image["image"]], abs=1e-5)


def test_error_rates_count_copies_once(cli, score, bank, reals, fakes, tmp_path):
    for path in sorted(fakes.iterdir())[:20]:
        shutil.copy(path, fakes / f"again-{path.name}")
    write_images(reals / "more", 20, seed=3)
    run = tmp_path / "copies"
    arguments = ["--real", reals, "--gen", fakes, "--bank", bank, "--offline", "--quiet"]
    assert cli("rank", *arguments, "--out", run).code == 0
    kept = json.loads((run / "probes.json").read_text())["probes"]["colour"]
    found = record(score(fakes, run=run, options=["--backbones", "colour"]))
    (colour,) = found["backbones"]
    for rates in (kept, colour):
        assert rates["false_negative_rate"]["count"] == 60
        assert rates["false_positive_rate"]["count"] == 80
    assert colour["false_negative_rate"] == kept["false_negative_rate"]
    logits = {image["image"]: image["logits"]["colour"] for image in found["images"]}
    assert logits["again-003.png"] == logits["003.png"]


def test_a_folder_a_zip_and_files_say_the_same(score, tmp_path):
    new = write_images(tmp_path / "new ü", 5, seed=31)
    archive = shutil.make_archive(str(tmp_path / "new"), "zip", new)
    files = sorted(new.iterdir())
    folder = probabilities(record(score(new)), "colour")
    np.testing.assert_array_equal(probabilities(record(score(archive)), "colour"), folder)
    found = record(score(*files))
    np.testing.assert_array_equal(probabilities(found, "colour"), folder)
    assert [image["image"] for image in found["images"]] == [str(path) for path in files]
    one = record(score(files[2]))
    assert probabilities(one, "colour")[0] == pytest.approx(folder[2])


def test_images_take_the_rankings_path(cli, score, bank, reals, fakes, tmp_path):
    """Resolution and JPEG matching of the run: what they wipe out makes no difference."""
    jpegs = tmp_path / "jpegs"
    jpegs.mkdir()
    for path in sorted(fakes.iterdir()):
        Image.open(path).save(jpegs / f"{path.stem}.jpg", quality=40)
    arguments = ["--real", reals, "--gen", jpegs, "--bank", bank, "--offline", "--quiet"]
    options = ["--match-jpeg", "--resolution", "16", "--precision", "fp32"]
    assert cli("rank", *arguments, *options, "--out", tmp_path / "jpeg_run").code == 0
    kept = json.loads((tmp_path / "jpeg_run" / "probes.json").read_text())
    assert kept["jpeg_quality"] == 40 and kept["resolution"] == 16
    assert all(p["space"]["precision"] == "fp32" for p in kept["probes"].values())
    new = write_images(tmp_path / "new", 6, seed=41, blue=40)
    found = record(score(new, run=tmp_path / "jpeg_run"))
    from probe.images.jpeg import JpegMatched
    from probe.images.open import open_images

    pixels = JpegMatched(open_images(new), 40).load(range(6), 16).images.numpy()
    # `colour` sees the mean of normalised pixels after a resize to 32, which keeps the mean nearly.
    means = (pixels / 255 - 0.5).mean(axis=(2, 3)) / 0.5
    from probe.scoring.probes import load_probes

    fitted = load_probes(tmp_path / "jpeg_run").probes["colour"]
    expected = means @ fitted.weights + fitted.intercept
    logits = [image["logits"]["colour"] for image in found["images"]]
    np.testing.assert_allclose(logits, expected, atol=0.05 * np.abs(fitted.weights).sum())


def test_the_threshold_is_stated_with_its_error_rates(score, run, tmp_path):
    new = write_images(tmp_path / "new", 8, seed=51, blue=40)
    rates = []
    for threshold in ("0.2", "0.5", "0.9"):
        found = record(score(new, options=["--threshold", threshold, "--backbones", "colour"]))
        assert found["threshold"] == float(threshold)
        (colour,) = found["backbones"]
        rates.append(
            (colour["false_positive_rate"]["value"], colour["false_negative_rate"]["value"])
        )
    assert rates[0][0] > rates[1][0] > rates[2][0] and rates[0][1] < rates[1][1] < rates[2][1]
    kept = json.loads((run / "probes.json").read_text())["probes"]["colour"]
    assert rates[1][0] == kept["false_positive_rate"]["value"]


def test_tables_and_csv_say_what_holds(score, tmp_path):
    new = write_images(tmp_path / "new", 3, seed=61, blue=40)
    table = score(new, format="table")
    assert "000.png" in table.out and "held-out reals generated" in table.out
    assert "know nothing" in table.out and table.code == 0
    result = score(new, format="csv")
    rows = list(csv.DictReader(io.StringIO(result.out)))
    assert len(rows) == 6 and {row["backbone"] for row in rows} == {"colour", "edges"}
    assert 0 < float(rows[0]["probability"]) < 1 and float(rows[0]["false_positive_rate"]) < 0.5
    assert "know nothing" in result.err


def test_broken_images_are_named_and_counted(score, tmp_path):
    new = write_images(tmp_path / "new", 3, seed=71)
    (new / "zz.png").write_bytes(b"no image")
    found = record(score(new), code=3)
    assert len(found["images"]) == 3
    assert found["broken"] == [{"name": "zz.png", "reason": "not an image"}]
    alone = score(new / "zz.png")
    assert alone.code == 1 and "no image can be read" in alone.err and alone.out == ""


def test_a_backbone_with_other_weights_is_refused(score, bank, tmp_path):
    import torch

    new = write_images(tmp_path / "new", 3, seed=81)

    torch.jit.script(Colour()).save(str(tmp_path / "edges.pt"))
    found = record(score(new), code=3)
    status = {b["name"]: b for b in found["backbones"]}
    assert status["colour"]["status"] == "ok" and status["edges"]["status"] == "changed"
    assert "weights changed since the ranking" in status["edges"]["reason"]
    assert list(found["images"][0]["probabilities"]) == ["colour"]
    bank.write_text(bank.read_text().replace("name: colour", "name: color"))
    result = score(new)
    assert result.code == 1 and "has no such entry" in result.err and result.out == ""


def test_another_preprocessing_is_refused(score, bank, tmp_path):
    new = write_images(tmp_path / "new", 3, seed=82)
    bank.write_text(bank.read_text().replace("mean: [0.5, 0.5, 0.5]", "mean: [0.4, 0.5, 0.5]"))
    assert "its input changed since the ranking" in score(new).err


def test_damaged_probes_are_refused_in_a_sentence(score, run, tmp_path):
    new = write_images(tmp_path / "new", 3, seed=91)
    whole, tensors = run / "probes.json", run / "probes.safetensors"
    text, data = whole.read_text(), tensors.read_bytes()
    good = json.loads(text)
    for broken in (
        "",
        "[]",
        "{}",
        text[: len(text) // 2],
        json.dumps({**good, "schema_version": 99}),
        json.dumps({**good, "resolution": 10**9}),
        json.dumps({**good, "n_real": 3}),
        json.dumps({**good, "probes": {"colour": {}}}),
        json.dumps({**good, "probes": {}}),
    ):
        whole.write_text(broken)
        result = score(new)
        assert result.code == 1 and "ank again" in result.err and str(run) in result.err
        assert result.err.count("\n") == 1 and result.out == ""
    whole.write_text(text)
    tensors.write_bytes(data[:-1] + b"\1")
    assert "is not the file" in score(new).err
    tensors.unlink()
    assert score(new).code == 1
    nowhere = score(new, run=tmp_path / "nowhere")
    assert nowhere.code == 1 and "probe rank --real" in nowhere.err
    assert "holds no probes.json" in score(new, run=new).err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--threshold", "1"], "--threshold: must lie between 0 and 1"),
        (["--threshold", "nan"], "--threshold"),
        (["--backbones", "color"], "Did you mean 'colour'?"),
    ],
)
def test_wrong_usage_is_said(score, fakes, options, words):
    result = score(fakes, options=options)
    assert result.code == 2 and words in result.err and result.out == ""


def test_odd_paths_are_said(score, fakes, tmp_path):
    assert "no such file or folder" in score(tmp_path / "nothing").err
    both = score(fakes, fakes / "000.png")
    assert both.code == 2 and "give one folder, zip, tar" in both.err


def test_python_gives_records_and_frames(run, bank, fakes, tmp_path):
    new = write_images(tmp_path / "new", 4, seed=95)
    found = probe.score(new, run, bank=bank, backbones=["colour", "random"])
    frame = found.to_frame()
    assert len(frame) == 8 and frame["probability"].between(0, 1).all()
    assert list(frame.query("backbone == 'colour'")["image"]) == found.images
    paths = sorted(new.iterdir())
    same = probe.score(paths, run, bank=bank, backbones=["colour"]).backbones[0].probabilities
    np.testing.assert_array_equal(same, found.backbones[0].probabilities)


def test_nothing_is_fitted_when_a_ranking_is_repeated_with_out(
    cli, bank, reals, fakes, run, tmp_path, monkeypatch
):
    fitted = "probe.probing.fit.evaluate"
    monkeypatch.setattr(fitted, lambda *a, **k: pytest.fail("was fitted"))
    arguments = ["--real", reals, "--gen", fakes, "--bank", bank, "--offline", "--quiet"]
    assert cli("rank", *arguments, "--out", tmp_path / "again").code == 0
    tensors = "probes.safetensors"
    assert (tmp_path / "again" / tensors).read_bytes() == (run / tensors).read_bytes()
