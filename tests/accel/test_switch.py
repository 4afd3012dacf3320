"""`PROBE_ACCEL=0`: plain PyTorch, and the same numbers but for rounding."""

import json
from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from probe import accel
from probe.accel import memory, winograd
from probe.accel.low_pass import low_pass
from probe.bank.base import resize_unclamped
from probe.bank.load import load_backbone
from probe.bank.spec import BackboneSpec, Weights
from probe.bundled import BN_IMAGES
from probe.images.open import open_images

SPEC = BackboneSpec(
    name="x", source="timm", model="test_resnet", weights=Weights(random=0), role="control",
    input=32, mean=(0.5,) * 3, std=(0.25,) * 3, task="t", data="d", license="l",
)  # fmt: skip
F3 = torch.outer(torch.tensor([1.0, 2, 1]), torch.tensor([1.0, 2, 1])) / 16


def load():
    return load_backbone(SPEC, offline=True, bn_images=open_images(BN_IMAGES))


def second_derivative(x):
    x = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(
        low_pass(x, F3, before=1, after=2).pow(3).sum(), x, create_graph=True
    )
    return torch.autograd.grad(g.square().sum(), x)[0]


def compute():
    """Return what each trick has a hand in."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, 3, 32, 32, generator=generator)
    wide = torch.randn(1, winograd.CHANNELS, 32, 32, generator=generator)
    kernel = torch.randn(winograd.CHANNELS, winograd.CHANNELS, 3, 3, generator=generator) / 40
    with torch.inference_mode():
        found = {
            "features": load()(x),
            "resize": resize_unclamped(x, 48, "bicubic"),
            "convolve": winograd.convolve(wide, kernel, 1),
            "low pass": low_pass(x, F3, before=1, after=1),
        }
    return {**found, "second derivative": second_derivative(x)}


def test_every_trick_is_off_and_the_numbers_stay(monkeypatch):
    fast = compute()
    assert not any(isinstance(m, nn.BatchNorm2d) for m in load().modules())
    monkeypatch.setenv("PROBE_ACCEL", "0")
    for name in ("resize._matrix", "winograd.winograd", "low_pass._LowPass"):
        monkeypatch.setattr(f"probe.accel.{name}", None)  # calling it would fail
    monkeypatch.setattr(memory.ctypes, "CDLL", None)
    memory.keep_freed_memory()
    memory.give_back_freed_memory()
    plain = compute()
    assert any(isinstance(m, nn.BatchNorm2d) for m in load().modules())
    assert isinstance(accel.quick_gradients(torch.device("cpu")), nullcontext)
    for name, value in plain.items():
        torch.testing.assert_close(fast[name], value, rtol=2e-4, atol=2e-4, msg=name)
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    wanted = F.interpolate(x, (48, 48), mode="bicubic", antialias=True, align_corners=False)
    assert torch.equal(plain["resize"], wanted)


@pytest.mark.parametrize("switch", ["1", "0"])
def test_a_ranking_says_the_same_either_way_and_keeps_features_apart(
    cli, bank, reals, fakes, tmp_path, monkeypatch, switch
):
    def rank():
        arguments = ("--bank", bank, "--offline", "--quiet", "--format", "json")
        result = cli("rank", "--real", reals, "--gen", fakes, *arguments)
        assert result.code == 0, result.err
        return {row["name"]: row["score"] for row in json.loads(result.out)["rows"]}

    first = rank()
    spaces = len(list((tmp_path / "cache").rglob("space.json")))
    monkeypatch.setenv("PROBE_ACCEL", switch)
    assert rank() == pytest.approx(first, abs=1e-3)
    more = len(list((tmp_path / "cache").rglob("space.json"))) - spaces
    assert more == (spaces if switch == "0" else 0)
