"""The resize of training: the ranking's, but for the clamp, and with an exact gradient."""

import pytest
import torch
from torch.nn import functional as F

from probe.bank.base import resize, resize_unclamped

MODES = ("bicubic", "bilinear", "area", "tf1-bilinear")


def drawn(side, seed=0):
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("old", "new"), [(16, 37), (37, 16), (32, 64), (64, 32), (20, 20)])
def test_training_and_ranking_resize_alike(mode, old, new):
    images = drawn(old) / 2 + 0.25  # so far from the ends that bicubic overshoots within
    found, wanted = resize_unclamped(images, new, mode), resize(images, new, mode)
    torch.testing.assert_close(found, wanted, atol=2e-6, rtol=0)


def test_only_the_ranking_clamps():
    edge = torch.zeros(1, 3, 8, 8)
    edge[..., 4:] = 1
    assert resize(edge, 32, "bicubic").amax() == 1
    assert resize_unclamped(edge, 32, "bicubic").amax() > 1.02


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
def test_the_gradient_is_that_of_torch(mode):
    images, weights = drawn(16).requires_grad_(), drawn(40, seed=1)
    (mine,) = torch.autograd.grad((resize_unclamped(images, 40, mode) * weights).sum(), images)
    theirs = F.interpolate(images, size=(40, 40), mode=mode, antialias=True, align_corners=False)
    (wanted,) = torch.autograd.grad((theirs * weights).sum(), images)
    torch.testing.assert_close(mine, wanted, atol=1e-5, rtol=1e-5)


def test_pixels_are_not_rounded_by_autocast_nor_bound_to_inference():
    images = drawn(13)
    with torch.inference_mode():  # the first of this size
        wanted = resize_unclamped(images, 29, "bicubic")
    with torch.autocast("cpu", torch.bfloat16):
        found = resize_unclamped(images.requires_grad_(), 29, "bicubic")
    found.sum().backward()
    assert found.dtype == torch.float32
    assert torch.equal(found, wanted)
