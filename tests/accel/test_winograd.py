"""Minimal filtering is a convolution."""

import pytest
import torch
from torch.nn import functional as F

from probe.accel.winograd import CHANNELS, convolve, winograd


@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("size", [(2, 33, 33), (1, 32, 50), (3, 41, 34), (5, 7, 6), (1, 70, 130)])
def test_minimal_filtering_equals_a_convolution(size, padding):
    n, height, width = size
    generator = torch.Generator().manual_seed(height)
    x = torch.randn(n, 24, height, width, generator=generator)
    weight = torch.randn(40, 24, 3, 3, generator=generator)
    found = winograd(x, weight, padding)
    expected = F.conv2d(x.double(), weight.double(), padding=padding)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 2e-5 * expected.abs().max()


def test_wide_convolutions_do_not_depend_on_the_batch():
    torch.manual_seed(0)
    x, weight = torch.randn(3, CHANNELS, 32, 32), torch.randn(CHANNELS, 160, 3, 3)
    with torch.inference_mode():
        together = convolve(x, weight, 1)
        alone = torch.cat([convolve(sample, weight, 1) for sample in x.split(1)])
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-4)
    expected = F.conv2d(x.double(), weight.double(), padding=1)
    assert (together - expected).abs().max() < 2e-5 * expected.abs().max()
    weight.requires_grad_()
    convolve(x, weight, 1).sum().backward()  # in training the library's own has the gradients
    assert weight.grad.isfinite().all()
