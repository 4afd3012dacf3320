"""Folders that are given as images, or as a generator, and hold something else."""

import shutil
import zipfile

import numpy as np
import pytest
import torch
from generators.pickles import stylegan2_pickle
from inputs import tiny_generator, write_images
from PIL import Image

from probe.generators.files.snapshot import save_snapshot
from probe.images.grid import save_grid


def sheet(path, columns=8, rows=4):
    """A training run's samples: many images side by side."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = torch.from_numpy(
        np.random.default_rng(0).integers(0, 255, (columns * rows, 3, 16, 16), dtype=np.uint8)
    )
    save_grid(path, images, columns=columns)


@pytest.fixture
def run(tmp_path):
    """Make a run's directory: ours, or one that the StyleGAN family's trainers leave."""

    def make(name, theirs=False, snapshots=True):
        folder = tmp_path / name
        sheet(folder / "reals.png")
        for number in range(0, 4000, 200):
            sheet(folder / f"fakes{number:06d}.png")
        if theirs:
            sheet(folder / "fakes_init.png")
        if snapshots:
            (folder / "training_options.json").write_text("{}")
            if theirs:
                data = stylegan2_pickle(tiny_generator())
                (folder / "network-snapshot-000200.pkl").write_bytes(data)
            else:
                save_snapshot(folder / "network-snapshot-best.safetensors", tiny_generator(),
                              metadata={})  # fmt: skip
        return folder

    return make


def refused(result, *words):
    assert result.code == 1, (result.code, result.out, result.err)
    assert not result.out
    text = " ".join(result.err.split())
    assert all(word in text for word in words), text


def every_command(cli, reals, gen, bank):
    """Give a folder as `--gen` to each command that takes one."""
    for command in ("rank", "metrics", "doctor"):
        more = ["--no-measure"] if command == "doctor" else []
        more += ["--backbones", "colour"] if command == "metrics" else []
        yield cli(command, "--real", reals, "--gen", gen, "--bank", bank, *more)


def test_runs_below_a_folder_are_named_and_not_ranked(cli, reals, bank, tmp_path, run):
    for i in range(4):
        run(f"runs/0000{i}-faces", theirs=i > 1)
    for result in every_command(cli, reals, tmp_path / "runs", bank):
        refused(result, "training runs (00000-faces, 00001-faces, 00002-faces, 00003-faces)",
                "Name one of them")  # fmt: skip
    for command in ("generate", "inspect"):
        where = ["--gen"] if command == "generate" else []
        more = ["--grid", tmp_path / "g.png"] if command == "generate" else []
        refused(cli(command, *where, tmp_path / "runs", *more), "training runs", "00003-faces")
    ranked = cli(
        "rank", "--real", reals, "--gen", tmp_path / "runs" / "00002-faces", "--bank", bank
    )
    assert ranked.code == 0, ranked.err


@pytest.mark.parametrize("deep", ["", "a/b/c"])
@pytest.mark.parametrize("name", ["G.pkl", "010000.pt", "model.pth", "x.CKPT", "G.safetensors"])
def test_checkpoints_in_a_folder_are_named_beside_images_or_alone(
    cli, reals, fakes, bank, tmp_path, name, deep
):
    for folder in (fakes, tmp_path / "alone"):
        (folder / deep).mkdir(parents=True, exist_ok=True)
        (folder / deep / name).write_bytes(stylegan2_pickle(tiny_generator()))
        result = cli("rank", "--real", reals, "--gen", folder, "--bank", bank)
        refused(result, f"holds checkpoints ({deep and deep + '/'}{name})", "Name one of them",
                "nothing but images")  # fmt: skip
    (fakes / deep / name).unlink()
    ranked = cli("rank", "--real", reals, "--gen", fakes, "--bank", bank)
    assert ranked.code == 0, ranked.err


def test_many_checkpoints_and_runs_are_counted(cli, reals, bank, tmp_path, run):
    run("all/run")
    for i in range(9):
        (tmp_path / "all" / f"{i}.pt").write_bytes(b"x")
    result = cli("rank", "--real", reals, "--gen", tmp_path / "all", "--bank", bank)
    refused(result, "training runs (run) and checkpoints (0.pt, 1.pt, 2.pt, 3.pt, 4.pt and 4 more)")


def test_a_zip_with_checkpoints_and_a_pipeline(cli, reals, fakes, bank, tmp_path):
    with zipfile.ZipFile(tmp_path / "fakes.zip", "w") as archive:
        for path in fakes.iterdir():
            archive.write(path, path.name)
        archive.writestr("run/network-snapshot-000200.pkl", b"x")
    result = cli("rank", "--real", reals, "--gen", tmp_path / "fakes.zip", "--bank", bank)
    refused(result, "is a zip that holds checkpoints (run/network-snapshot-000200.pkl)")
    pipeline = tmp_path / "pipeline"
    (pipeline / "unet").mkdir(parents=True)
    (pipeline / "model_index.json").write_text("{}")
    (pipeline / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"x")
    result = cli("rank", "--real", reals, "--gen", pipeline, "--bank", bank)
    refused(result, "is a diffusers pipeline", "module:function")


SAMPLES = {
    "a run's": lambda run, tmp_path: run("x"),
    "a run's without snapshots": lambda run, tmp_path: run("x", snapshots=False),
    "theirs": lambda run, tmp_path: run("x", theirs=True, snapshots=False),
    "a folder of runs": lambda run, tmp_path: run("x/00000-faces").parent,
    "beside images": lambda run, tmp_path: write_images(run("x", snapshots=False) / "more", 40,
                                                        seed=5).parent,
    "below images": lambda run, tmp_path: run("images/run", snapshots=False) and write_images(
        tmp_path / "images/good", 40, seed=5).parent,
}  # fmt: skip


@pytest.mark.parametrize("kind", SAMPLES)
def test_sample_sheets_are_no_images(cli, bank, fakes, tmp_path, run, kind):
    folder = SAMPLES[kind](run, tmp_path)
    words = ("holds sample sheets of a training run", "and ", " more)", "not single images")
    for command in ("rank", "metrics", "doctor", "train"):
        more = {
            "rank": ["--gen", fakes, "--bank", bank],
            "metrics": ["--gen", fakes, "--bank", bank, "--backbones", "colour"],
            "doctor": ["--bank", bank, "--no-measure"],
            "train": ["--outdir", tmp_path / "out", "--bank", bank],
        }[command]
        refused(cli(command, "--real", folder, *more), *words)
    assert not (tmp_path / "out").exists()


def test_sample_sheets_as_fakes_and_as_suspects(cli, reals, fakes, bank, tmp_path, run):
    folder = run("x", snapshots=False)
    for result in every_command(cli, reals, folder, bank):
        refused(result, "sample sheets", "fakes000000.png and 20 more")
    out = tmp_path / "ranking"
    cli("rank", "--real", reals, "--gen", fakes, "--bank", bank, "--out", out)
    refused(cli("score", folder, "--run", out, "--bank", bank), "sample sheets")
    shutil.make_archive(str(tmp_path / "sheets"), "zip", folder)
    refused(cli("score", tmp_path / "sheets.zip", "--run", out, "--bank", bank), "sample sheets")
    (folder / "reals.png").unlink()  # nothing but numbered fakes, all of them wide
    refused(cli("score", folder, "--run", out, "--bank", bank), "sample sheets")


def test_names_alone_do_not_make_a_sheet(cli, bank, tmp_path):
    """Somebody's own fakes may be numbered so, and a picture be called reals.png."""
    reals = write_images(tmp_path / "a", 40, seed=1)
    fakes = write_images(tmp_path / "b", 40, seed=2, blue=40)
    for i, path in enumerate(sorted(fakes.iterdir())):
        path.rename(fakes / f"fakes{i:06d}.png")
    (reals / "000.png").rename(reals / "reals.png")
    Image.new("RGB", (40, 32)).save(reals / "wide.png")
    ranked = cli("rank", "--real", reals, "--gen", fakes, "--bank", bank)
    assert ranked.code == 0, ranked.err
