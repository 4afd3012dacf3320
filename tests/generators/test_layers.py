"""Layers that a generator and a discriminator share: the low-pass and its derivatives."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from probe.accel.low_pass import low_pass
from probe.generators.networks.layers import filter2d

PADDINGS = [(2, 1), (1, 2), (2, 2), (0, 0), (-1, 1), (-1, -1), (4, 5)]


def skewed() -> torch.Tensor:
    """Return a filter that is not its own mirror image."""
    return torch.outer(torch.tensor([1.0, 2.0, 4.0, 3.0]), torch.tensor([2.0, 1.0, 0.0, 5.0]))


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("f", [filter2d((1, 3, 3, 1)), skewed()])
def test_both_derivatives_of_a_low_pass_are_exact(f, padding):
    x = torch.rand(2, 2, 6, 7, dtype=torch.float64, requires_grad=True)

    def run(x):
        return low_pass(x, f.double(), before=padding[0], after=padding[1], gain=3)

    assert gradcheck(run, x)
    assert gradgradcheck(run, x)


@pytest.mark.parametrize("padding", PADDINGS)
def test_a_low_pass_is_a_correlation_of_every_channel(padding):
    before, after = padding
    x = torch.rand(2, 3, 8, 9)
    wide = F.pad(x, (before, after, before, after)) * 3
    expected = F.conv2d(wide, skewed().expand(3, 1, 4, 4), groups=3)
    found = low_pass(x, skewed(), before=before, after=after, gain=3)
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_low_pass_keeps_the_layout_both_ways(layout):
    x = torch.rand(2, 4, 8, 8).contiguous(memory_format=layout).requires_grad_()
    y = low_pass(x, filter2d((1, 3, 3, 1)), before=2, after=2)
    (gradient,) = torch.autograd.grad(y[:, :, ::2, ::2].sum(), x)  # a slice's is in the default one
    assert y.is_contiguous(memory_format=layout)
    assert gradient.is_contiguous(memory_format=layout)


class Convolutions(TorchDispatchMode):
    """Counts them, forward and backward."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += "convolution" in str(func)
        return func(*args, **(kwargs or {}))


def test_the_second_derivative_does_not_take_every_channel_by_itself():
    counts = []
    for channels in (2, 32):
        x = torch.rand(1, channels, 8, 8, requires_grad=True)
        with Convolutions() as mode:
            y = low_pass(x, filter2d((1, 3, 3, 1)), before=2, after=1).square().sum()
            (gradient,) = torch.autograd.grad(y, x, create_graph=True)
            gradient.square().sum().backward()
        counts.append(mode.count)
    assert counts[0] == counts[1] < 8
