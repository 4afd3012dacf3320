"""Patches as matrix products: the same maps, gradients and second derivatives."""

import pytest
import torch
from torch import nn

from probe import accel
from probe.accel import patches

CPU = torch.device("cpu")


def derivatives(convolution, x):
    """Return the map, the gradient of a loss, and the gradient of that gradient's size."""
    x = x.clone().requires_grad_()
    found = convolution(x)
    (first,) = torch.autograd.grad(found.pow(3).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x)
    return found, first, second


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kernel", [4, (4, 8)])
def test_maps_and_derivatives_are_equal(kernel, bias, monkeypatch):
    torch.manual_seed(0)
    convolution = nn.Conv2d(3, 6, kernel, kernel, bias=bias).requires_grad_(False)
    x, calls, map_patches = torch.randn(2, 3, 16, 24), [], patches.map_patches
    monkeypatch.setattr(patches, "map_patches", lambda *args: calls.append(1) or map_patches(*args))
    plain = derivatives(convolution, x)
    assert not calls
    with accel.quick_gradients(CPU):
        quick = derivatives(convolution, x)
    assert calls
    for a, b in zip(quick, plain, strict=True):
        assert (a - b).abs().max() < 1e-5 * b.abs().max()


@pytest.mark.parametrize(
    "convolution",
    [
        nn.Conv2d(4, 6, 4, 3),
        nn.Conv2d(4, 6, 2, 2),
        nn.Conv2d(4, 6, 4, 4, padding=2),
        nn.Conv2d(4, 6, 4, 4, dilation=2),
        nn.Conv2d(4, 4, 4, 4, groups=2),
        nn.Conv2d(4, 6, 5, 5),
    ],
    ids=["overlapping", "small", "padded", "dilated", "grouped", "with a rest"],
)
def test_others_are_left_to_torch(convolution, monkeypatch):
    monkeypatch.setattr(patches, "map_patches", None)  # calling it would fail
    x = torch.randn(1, 4, 16, 16)
    with accel.quick_gradients(CPU):
        derivatives(convolution.requires_grad_(False), x)
        nn.Conv2d(4, 6, 4, 4)(x.requires_grad_())  # its weights are trained
        nn.Conv2d(4, 6, 4, 4).requires_grad_(False)(x.detach())  # the forward pass gains nothing
