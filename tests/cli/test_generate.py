"""`probe generate` through the command line, and run directories as generators."""

import json
import zipfile

import numpy as np
import pytest
import torch
from inputs import tiny_generator
from PIL import Image

from probe.generators.base import to_uint8
from probe.generators.files.snapshot import save_snapshot
from probe.streams import stream_keys


@pytest.fixture
def conditional(tmp_path):
    path = tmp_path / "classes.safetensors"
    save_snapshot(path, tiny_generator(c_dim=3), metadata={})
    return path


def pixels(path):
    return np.asarray(Image.open(path))


def expected(seed, *, psi=1.0, noise="const"):
    z = torch.from_numpy(np.random.RandomState(seed).randn(1, 16)).float()
    with torch.no_grad():
        image = tiny_generator()(
            z, truncation_psi=psi, noise_mode=noise, noise_keys=stream_keys([seed], "noise")
        )
    return to_uint8(image)[0].permute(1, 2, 0).numpy()


def close(found, wanted):
    """Equal but for a grey level here and there, which depends on the batch."""
    difference = np.abs(found.astype(int) - wanted.astype(int))
    return difference.max() <= 1 and (difference > 0).mean() < 0.01


def test_each_seed_is_the_image_that_the_family_knows_it_by(cli, checkpoint, tmp_path):
    out = tmp_path / "out"
    result = cli("generate", "--network", checkpoint, "--seeds", "0-17,100", "--outdir", out,
                 "--trunc", "0.7", "--noise", "const")  # fmt: skip
    assert result.code == 0, result.err
    names = [f"seed{s:04d}.png" for s in (*range(18), 100)]
    assert sorted(p.name for p in out.iterdir()) == sorted(names)
    for seed in (0, 17, 100):
        assert close(pixels(out / f"seed{seed:04d}.png"), expected(seed, psi=0.7))
    other = tmp_path / "other"
    cli("generate", "--gen", checkpoint, "--seeds", "17", "--outdir", other, "--noise", "random")
    assert close(pixels(other / "seed0017.png"), expected(17, noise="random"))


def test_a_contact_sheet_holds_every_image(cli, checkpoint, tmp_path):
    grid = tmp_path / "grid.png"
    assert cli("generate", "--gen", checkpoint, "--seeds", "0-4", "--grid", grid).code == 0
    sheet = pixels(grid)
    assert sheet.shape == (2 * 32, 3 * 32, 3)
    single = tmp_path / "one.png"
    cli("generate", "--gen", checkpoint, "--seeds", "4", "--grid", single)
    assert close(sheet[32:, 32:64], pixels(single))
    assert (sheet[32:, 64:] == 255).all()


def test_quiet_says_nothing(cli, checkpoint, tmp_path):
    outdir = tmp_path / "o"
    found = cli("generate", "--gen", checkpoint, "--seeds", "0", "--outdir", outdir, "--quiet")
    assert (found.code, found.out, found.err) == (0, "", "")


def test_classes_are_written_down(cli, conditional, tmp_path):
    archive = tmp_path / "out.zip"
    assert cli("generate", "--gen", conditional, "--seeds", "3-9", "--outdir", archive).code == 0
    with zipfile.ZipFile(archive) as z:
        labels = dict(json.loads(z.read("dataset.json"))["labels"])
        assert {i.compress_type for i in z.infolist()} == {zipfile.ZIP_STORED}
        assert sorted(labels) == sorted(n for n in z.namelist() if n.endswith(".png"))
    assert len(labels) == 7 and set(labels.values()) <= {0, 1, 2} and len(set(labels.values())) > 1
    folder = tmp_path / "out"
    cli("generate", "--gen", conditional, "--seeds", "3-5", "--class", "2", "--outdir", folder)
    labels = json.loads((folder / "dataset.json").read_text())["labels"]
    assert {label for _, label in labels} == {2}


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--seeds", "5-3"), 2, "'5-3' is neither a seed"),
        (("--seeds", "1,,2"), 2, "neither a seed"),
        (("--seeds", "0-99999999"), 2, "more than"),
        (("--seeds", "-1"), 2, "neither a seed"),
        (("--class", "1"), 2, "is unconditional"),
        (("--noise", "loud"), 2, "--noise"),
        (("--trunc", "nan"), 2, "--trunc: must be a number"),
        (("--trunc", "-inf"), 2, "--trunc: must be a number"),
    ],
)
def test_nothing_is_written_when_something_is_wrong(
    cli, checkpoint, tmp_path, arguments, code, words
):
    out = tmp_path / "out"
    result = cli("generate", "--gen", checkpoint, "--outdir", out, *arguments)
    assert result.code == code and words in result.err, result.err
    assert not out.exists()


def test_nowhere_to_write_and_a_class_too_many_are_refused(cli, checkpoint, conditional, tmp_path):
    result = cli("generate", "--gen", checkpoint)
    assert result.code == 2 and "--outdir" in result.err
    result = cli("generate", "--gen", conditional, "--class", "3", "--grid", tmp_path / "g.png")
    assert result.code == 2 and "classes 0 to 2" in result.err
    result = cli("generate", "--gen", checkpoint, "--outdir", checkpoint)
    assert result.code == 2 and "is a file" in result.err


def line(name, value, metric="fid50k_full"):
    return json.dumps({"results": {metric: value}, "metric": metric, "snapshot_pkl": name}) + "\n"


def test_a_run_directory_stands_for_its_best_snapshot(cli, reals, bank, tmp_path):
    run = tmp_path / "00003-run"
    run.mkdir()
    for n in (0, 200, 400, 600):
        save_snapshot(run / f"network-snapshot-{n:06d}.safetensors", tiny_generator(seed=n),
                      metadata={})  # fmt: skip

    def chosen(name):
        for n in (0, 200, 400, 600):
            cli("generate", "--gen", run / f"network-snapshot-{n:06d}.safetensors", "--seeds", "1",
                "--grid", tmp_path / f"{n}.png")  # fmt: skip
        assert cli("generate", "--gen", run, "--seeds", "1", "--grid", tmp_path / name).code == 0
        found = (tmp_path / name).read_bytes()
        return [n for n in (0, 200, 400, 600) if (tmp_path / f"{n}.png").read_bytes() == found]

    assert chosen("last.png") == [600]  # no metrics: the last
    text = line("network-snapshot-000400.safetensors", 7.0)
    text += line("network-snapshot-000200.safetensors", 3.0)
    text += line("network-snapshot-000999.safetensors", 1.0)  # not there
    text += line("../../etc/network-snapshot-000000.safetensors", float("nan"))
    (run / "metric-fid50k_full.jsonl").write_text(text + '{"results": {"fid50')  # cut by a kill
    assert chosen("metric.png") == [200]
    save_snapshot(run / "network-snapshot-best.safetensors", tiny_generator(seed=400), metadata={})
    assert chosen("best.png") == [400]
    ranked = cli("rank", "--real", reals, "--gen", run, "--bank", bank, "--format", "json")
    assert ranked.code == 0, ranked.err
    assert json.loads(ranked.out)["config"]["fake"]["kind"] == "generator"


def test_a_run_without_snapshots_says_so(cli, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "training_options.json").write_text("{}")
    result = cli("generate", "--gen", run, "--grid", tmp_path / "g.png")
    assert result.code == 1 and "without a snapshot" in result.err
