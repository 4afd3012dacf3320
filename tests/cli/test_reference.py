"""`probe reference`, and the file in place of real images."""

import json

import numpy as np
import pytest
import torch
from inputs import ENTRY, Mixed, write_images
from PIL import Image
from safetensors.numpy import load_file
from servers import serving

import probe
from probe.errors import ImagesError
from probe.features import reference as module
from probe.features.reference import load_reference
from probe.features.store import FEATURES


@pytest.fixture
def common(bank):
    return ("--bank", bank, "--offline", "--precision", "fp32")


@pytest.fixture
def kept(cli, reals, common, tmp_path):
    """Return a reference of a sample of 50 of 60 reals, made by the command."""

    def make(*arguments, out="ref.safetensors", code=0):
        done = cli("reference", reals, "--out", tmp_path / out, *common, *arguments)
        assert done.code == code, done.err
        return tmp_path / out

    return make


def records(cli, verb, real, gen, *arguments, code=0):
    done = cli(verb, "--real", real, "--gen", gen, "--format", "json", *arguments)
    assert done.code == code, done.err
    return json.loads(done.out)


def scores(board):
    return {row["name"]: row["score"] for row in board["rows"]}


@pytest.mark.parametrize(("seed", "num"), [(0, 50), (4, 30)])
def test_a_ranking_has_the_scores_that_it_has_with_the_images(
    cli, kept, reals, checkpoint, common, monkeypatch, tmp_path, seed, num
):
    options = (*common, "--seed", seed, "--num", num, "--resolution", 32)
    plain = records(cli, "rank", reals, checkpoint, *options)
    path = kept("--seed", seed, "--num", 50, "--resolution", 32)
    monkeypatch.setenv("PROBE_CACHE_DIR", str(tmp_path / "elsewhere"))
    reals.rename(tmp_path / "away")
    board = records(cli, "rank", path, checkpoint, *options)
    assert scores(board) == pytest.approx(scores(plain), abs=1e-5)
    assert board["n_real"] == num
    assert any("not the images: how the sets are encoded was not" in n for n in board["notes"])
    for folder in (tmp_path / "elsewhere" / FEATURES).iterdir():
        rows = sum(len(load_file(path)["keys"]) for path in folder.glob("*.safetensors"))
        assert rows == num  # of the fakes alone


def test_copies_and_names_are_those_of_the_images(cli, kept, reals, fakes, common):
    for path in sorted(fakes.iterdir())[:3]:
        (reals / f"copy-{path.name}").write_bytes(path.read_bytes())
    plain = records(cli, "rank", reals, fakes, *common)
    board = records(cli, "rank", kept(), fakes, *common)
    (warning,) = [n for n in plain["notes"] if n.startswith("Warning: 3 of 60 real")]
    assert "copy-000.png = 000.png" in warning and warning in board["notes"]


def test_distances_use_the_moments_of_all_images(cli, kept, reals, fakes, common, tmp_path):
    (reals / "broken.png").write_bytes(b"no image")
    options = (*common, "--backbones", "colour,edges,random", "--num-gen", 40)
    plain = records(cli, "metrics", reals, fakes, *options, "--num", 61)
    path = kept("--num", 30)
    found = records(cli, "metrics", path, fakes, *options)
    for one, other in zip(found["rows"], plain["rows"], strict=True):
        assert one["frechet"] == pytest.approx(other["frechet"], rel=1e-9)
    assert found["n_real"] == 30 and plain["n_real"] == 60
    assert any("moments of all 60 images that" in note for note in found["notes"])
    whole = records(cli, "metrics", kept(out="all.safetensors"), fakes, *options)
    for name in ("kernel", "kernel_low", "recall", "coverage"):
        assert [r[name] for r in whole["rows"]] == [r[name] for r in plain["rows"]], name
    itself = records(cli, "metrics", path, reals, *options)
    assert itself["rows"][0]["frechet"] < found["rows"][0]["frechet"] / 10


def test_a_page_has_no_pictures_of_reals_and_says_how_to_repeat_it(
    cli, kept, checkpoint, common, tmp_path
):
    path, out = kept(), tmp_path / "out"
    done = cli("rank", "--real", path, "--gen", checkpoint, *common, "--out", out)
    assert done.code == 0 and "no pictures of the reals are shown" in done.out.replace("\n", " ")
    page = (out / "report.html").read_text()
    assert "no pictures of the reals are shown" in page
    assert f"--real {path}" in page and "data:image/webp" in page


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--match-jpeg",), "--match-jpeg needs the real images"),
        (("--near-duplicates",), "--near-duplicates needs the real images"),
        (("--resolution", 16), "Add --resolution 32, or make the reference with --resolution 16"),
    ],
)
def test_what_needs_the_images_is_refused(cli, kept, fakes, common, options, words):
    done = cli("rank", "--real", kept(), "--gen", fakes, *common, *options)
    assert done.code == 2 and words in done.err


@pytest.mark.parametrize("verb", ["train", "doctor", "features"])
def test_other_commands_say_that_they_need_the_images(cli, kept, tmp_path, verb):
    path = kept()
    arguments = (path,) if verb == "features" else ("--real", path)
    done = cli(verb, *arguments)
    assert done.code == 2 and "needs the images themselves" in done.err


def test_a_mismatch_names_the_backbone_and_what_differs(cli, kept, fakes, bank, tmp_path):
    path = kept()
    torch.jit.script(Mixed()).save(str(tmp_path / "edges.pt"))
    torch.jit.script(Mixed()).save(str(tmp_path / "mixed.pt"))
    text = bank.read_text().replace("[0.5, 0.5, 0.5]", "[0.4, 0.5, 0.5]", 1)
    bank.write_text(text + ENTRY.format(name="mixed"))
    options = ("--bank", bank, "--offline", "--precision", "fp32")
    board = records(cli, "rank", path, fakes, *options, code=3)
    reasons = {row["name"]: row["reason"] for row in board["rows"]}
    assert f"{path} was made with other input (mean)" in reasons["colour"]
    assert f"{path} was made with other weights (" in reasons["edges"]
    assert reasons["mixed"] == f"{path} has no features of it"
    assert scores(board)["random"] is not None
    options = ("--bank", bank, "--offline", "--precision", "bf16", "--backbones", "random")
    done = cli("rank", "--real", path, "--gen", fakes, *options)
    assert done.code == 1 and "other precision (fp32, here bf16); run it with --precision fp32" in (
        done.err
    )


def test_other_versions_are_a_note_and_another_network_is_refused(
    cli, kept, fakes, common, monkeypatch
):
    from probe.bank import sources

    path, common = kept(), (*common, "--backbones", "colour,edges")
    version = sources.metadata.version
    monkeypatch.setattr(sources.metadata, "version", lambda name: version(name) + ".post1")
    board = records(cli, "rank", path, fakes, *common)
    assert any("The versions differ from those that" in note for note in board["notes"])
    monkeypatch.setattr(sources.metadata, "version", lambda name: version(name) + ".post2")
    monkeypatch.setattr("probe.features.extract.fingerprint", lambda backbone: (1.0, 2.0) * 4)
    done = cli("rank", "--real", path, "--gen", fakes, *common)
    assert done.code == 1 and "a library computes it in another way here than where" in done.err


def test_labels_go_along(kept, reals):
    labels = [[f"{i:03d}.png", i % 3] for i in range(60)]
    (reals / "dataset.json").write_text(json.dumps({"labels": labels}))
    reference = load_reference(kept("--num", 20))
    assert reference.labels == [int(name[:3]) % 3 for name in reference.names]


def test_python_makes_and_reads_it(reals, fakes, bank, tmp_path):
    out = tmp_path / "ref.safetensors"
    found = probe.reference(reals, out, bank=bank, backbones="colour", offline=True)
    assert found.exit_code == 0 and found.rows[0].images == 60
    measured = probe.measure(out, fakes, bank=bank, backbones="colour", offline=True)
    assert measured["colour"].frechet > 0
    images = [np.asarray(Image.open(p)) for p in sorted(reals.iterdir())]
    stacked = np.stack(images).transpose(0, 3, 1, 2)
    again = probe.reference(stacked, out, bank=bank, backbones="colour", offline=True)
    assert again.images == 60


def test_inspect_describes_it(cli, kept):
    done = cli("inspect", kept("--num", 20))
    assert done.code == 0
    for words in ("60", "20", "colour", "edges", "random", probe.__version__):
        assert words in done.out


def test_too_few_images_and_wrong_names_are_refused(cli, tmp_path, common, reals):
    few = write_images(tmp_path / "few", 9, seed=3)
    done = cli("reference", few, "--out", tmp_path / "few.safetensors", *common)
    assert done.code == 1 and "9 usable images are too few" in done.err
    done = cli("reference", reals, "--out", tmp_path / "ref.npz", *common)
    assert done.code == 2 and "is a .safetensors file" in done.err


def test_what_is_no_reference_is_refused(cli, checkpoint, fakes, kept, common, tmp_path):
    def refused(path):
        done = cli("rank", "--real", path, "--gen", fakes, *common)
        assert done.code == 1 and str(path) in done.err, done.err
        return done.err

    assert "is not a reference of real images" in refused(checkpoint)
    assert "Did you mean" in refused(kept().with_name("rf.safetensors"))
    whole = kept()
    whole.write_bytes(whole.read_bytes()[:-9])
    assert "cannot be read" in refused(whole)


def test_another_format_is_refused(kept, monkeypatch):
    path = kept()
    monkeypatch.setattr(module, "VERSION", 2)
    with pytest.raises(ImagesError, match="is a reference of format 1; this version of probe"):
        load_reference(path)


def test_a_reference_at_a_url_is_a_reference(cli, kept, fakes, common, tmp_path, monkeypatch):
    pytest.importorskip("aiohttp")
    path, folder = kept("--num", 50), tmp_path / "served"
    folder.mkdir()
    path.rename(folder / "ref.safetensors")
    options = (*common, "--backbones", "colour,edges")
    plain = records(cli, "rank", folder / "ref.safetensors", fakes, *options)
    monkeypatch.setenv("PROBE_CACHE_DIR", str(tmp_path / "elsewhere"))
    online = tuple(word for word in options if word != "--offline")
    with serving(folder) as server:
        url = f"{server.url}/ref.safetensors"
        board = records(cli, "rank", url, fakes, *online)
        measured = records(cli, "metrics", url, fakes, *online)
        described = cli("inspect", url)
    assert scores(board) == scores(plain) and board["config"]["real"]["path"] == url
    assert measured["n_real"] == 50
    assert described.code == 0 and url in described.out and "colour" in described.out
    assert scores(records(cli, "rank", url, fakes, *options)) == scores(plain)  # --offline
    listed = cli("cache", "ls")
    assert "1 copies of references" in listed.out and cli("cache", "verify").code == 0
    monkeypatch.setenv("PROBE_CACHE_DIR", str(tmp_path / "empty"))
    done = cli("rank", "--real", url, "--gen", fakes, *options)
    assert done.code == 1 and "the cache has no copy of it" in done.err
    for verb in ("train", "doctor"):
        done = cli(verb, "--real", url)
        assert done.code == 2 and "needs the images themselves" in done.err
