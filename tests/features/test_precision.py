"""The precision that backbones run in by default leaves a leaderboard as it is."""

import io
import threading
from importlib import metadata

import pytest
import torch
from PIL import Image

import probe
from probe.bank.file import load_bank
from probe.bundled import DEMO_REALS
from probe.devices import autocast, full_float32, has_fast_bf16
from probe.features.space import precision_for
from probe.images.open import open_images

CPU = torch.device("cpu")
IMAGES = 64


def test_random_networks_run_in_float32_unless_told_otherwise(monkeypatch):
    monkeypatch.setattr("probe.devices.has_fast_bf16", lambda device: True)
    specs = {spec.role: spec for spec in load_bank().specs}
    assert precision_for(specs["control"], "auto", CPU) == "fp32"
    assert precision_for(specs["control"], "bf16", CPU) == "bf16"
    assert precision_for(specs["candidate"], "auto", CPU) == "bf16"
    assert precision_for(specs["candidate"], "fp32", CPU) == "fp32"
    monkeypatch.setattr("probe.devices.has_fast_bf16", lambda device: False)
    assert precision_for(specs["candidate"], "auto", CPU) == "fp32"


def test_tf32_is_refused_on_a_cpu_and_in_training(tmp_path):
    options = probe.RankOptions(num=16, precision="tf32")
    with pytest.raises(probe.ProbeError, match="tf32 needs a CUDA GPU"):
        probe.rank(DEMO_REALS, DEMO_REALS, options=options, device="cpu")
    with pytest.raises(probe.ProbeError, match="training runs in fp32 or bf16"):
        probe.train(DEMO_REALS, outdir=tmp_path / "runs", precision="tf32", device="cpu")
    assert precision_for(load_bank().specs[0], "tf32", torch.device("cuda", 0)) == "tf32"


def test_tf32_is_on_in_its_context_alone_and_keeps_images_waiting():
    kinds = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [kind.allow_tf32 for kind in kinds]
    drawn = threading.Event()

    def draw():
        with full_float32():
            seen.extend(kind.allow_tf32 for kind in kinds)
            drawn.set()

    seen: list[bool] = []
    with autocast(torch.device("cuda", 0), "tf32"):
        assert all(kind.allow_tf32 for kind in kinds)
        drawing = threading.Thread(target=draw)
        drawing.start()
        assert not drawn.wait(0.2)
    drawing.join(10)
    assert seen == before == [kind.allow_tf32 for kind in kinds]


def packaged() -> list[str]:
    """Return the small networks whose weights' packages are installed."""
    installed = {d.name for d in metadata.distributions()}
    return [
        spec.name
        for spec in load_bank().specs
        if spec.weights.package in installed and spec.name.startswith(("efficientnet", "mobilenet"))
    ]


def write_compressed(folder, indices, quality):
    """Write bundled images as PNG, every one after a JPEG compression where there is a quality."""
    folder.mkdir()
    reals = open_images(DEMO_REALS)
    for image, i in zip(reals.load(indices, 64).images, indices, strict=True):
        picture = Image.fromarray(image.permute(1, 2, 0).numpy())
        if quality:
            buffer = io.BytesIO()
            picture.save(buffer, "JPEG", quality=quality)
            picture = Image.open(buffer)
        picture.save(folder / f"{i}.png")
    return folder


@pytest.mark.skipif(not has_fast_bf16(CPU), reason="bf16 is not the default on this machine")
def test_bf16_keeps_clear_orders_and_scores_of_real_backbones(tmp_path):
    names = packaged()
    if len(names) < 3:
        pytest.skip("the packaged weights are not installed")
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(0)).tolist()
    real = write_compressed(tmp_path / "real", order[:IMAGES], None)
    fake = write_compressed(tmp_path / "fake", order[IMAGES : 2 * IMAGES], 50)
    boards = {}
    for precision in ("fp32", "auto"):
        options = probe.RankOptions(num=IMAGES, precision=precision)
        found = probe.rank(real, fake, backbones=names, options=options, device="cpu", offline=True)
        rows = [r for r in found.leaderboard.rows if r.name in names]
        assert {r.precision for r in rows} == {"fp32" if precision == "fp32" else "bf16"}
        boards[precision] = rows
    exact, fast = boards["fp32"], {r.name: r for r in boards["auto"]}
    clear = [row for row in exact[1:] if row.score_high < exact[0].score_low]
    assert clear, "these sets tell no backbones apart"
    for i, row in enumerate(exact):
        half = (row.score_high - row.score_low) / 2
        assert abs(fast[row.name].score - row.score) < half, row.name
        for lower in exact[i + 1 :]:  # where the two are one behind the other without doubt
            if lower.score_high < row.score_low:
                assert fast[row.name].score > fast[lower.name].score
