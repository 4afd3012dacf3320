"""What Triton's kernels give in its interpreter; `test_kernels.py` runs this in another process.

The interpreter has to be chosen before Triton is imported, and stays for the whole process.
"""

import math
import os

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from probe.accel import kernels
from probe.accel.finish_kernels import fused_finish
from probe.accel.kernels import cut, has_kernels
from probe.accel.low_pass import low_pass
from probe.discriminators.layers import ConvLayer
from probe.generators.networks import layers
from probe.generators.networks.stylegan2 import Generator
from probe.training.discriminator import Discriminator

assert os.environ.get("TRITON_INTERPRET") == "1", "test_kernels.py runs this"

LAYOUTS = [torch.contiguous_format, torch.channels_last]
SKEWED = torch.outer(torch.tensor([1.0, 2.0, 4.0, 3.0]), torch.tensor([2.0, 1.0, 0.0, 5.0])) / 80
# The second derivative below multiplies six values, each of which the interpreter cuts off to
# bfloat16, by up to 2^-7.
ROUNDING = {torch.float32: 2e-5, torch.bfloat16: 6 / 128, torch.float16: 2e-3}


def close(found, expected, dtype=torch.float32):
    """Compare with float64, on the scale of the largest value."""
    scale = expected.abs().max().clamp_min(1e-3)
    assert found.shape == expected.shape
    assert ((found.double() - expected).abs().max() / scale).item() < ROUNDING[dtype]


def derivatives(function, inputs, weights):
    """Return a function's value, its gradients, and the gradients of a function of those."""
    inputs = [None if t is None else t.detach().requires_grad_() for t in inputs]
    known = [t for t in inputs if t is not None]
    y = function(*inputs)
    loss = (y.to(weights.dtype).pow(3) * weights).sum()
    first = torch.autograd.grad(loss, known, create_graph=True)
    second = torch.autograd.grad(sum(g.to(weights.dtype).pow(2).sum() for g in first), known,
                                 allow_unused=True)  # fmt: skip
    return [y, *first, *(torch.zeros_like(t) if g is None else g
                         for t, g in zip(known, second, strict=True))]  # fmt: skip


def test_kernels_serve_this_process():
    assert has_kernels(torch.ones(1))
    assert not has_kernels(torch.ones(1, dtype=torch.float64))
    assert kernels._compiles(torch.device("cpu"))


def test_the_switch_turns_them_off(monkeypatch):
    monkeypatch.setenv("PROBE_ACCEL", "0")
    assert not has_kernels(torch.ones(1))


def test_a_kernel_that_cannot_be_compiled_or_is_wrong_is_not_used(monkeypatch):
    class WrongGradient(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, *gradients):
            return gradients[0] * 1.1

    def wrong_derivative(*arguments):
        return WrongGradient.apply(fused_finish(*arguments))

    try:
        for broken in (lambda *a: 1 / 0, lambda x, *a: x + 1, wrong_derivative):
            monkeypatch.setattr("probe.accel.finish_kernels.fused_finish", broken)
            kernels._compiles.cache_clear()
            assert not kernels._compiles(torch.device("cpu"))
    finally:
        kernels._compiles.cache_clear()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(2, 3, 5, 8), (1, 20, 3, 4), (2, 5, 1, 1)])
@pytest.mark.parametrize("steps", [(1, 1), (2, 1), (1, 2), (3, 2)])
def test_every_form_of_the_low_pass_and_both_derivatives(layout, shape, steps, monkeypatch):
    up, down = steps
    x = torch.randn(shape).to(memory_format=layout)
    for before, after in ((2, 1), (-1, 4), (7, -1)):
        if min(shape[2:]) * up + before + after < 4 or before < -shape[2]:
            continue

        def run(x, before=before, after=after):
            f = SKEWED.to(x.dtype)
            return low_pass(x, f, before=before, after=after, gain=4, up=up, down=down)

        with monkeypatch.context() as patch:
            patch.setenv("PROBE_ACCEL", "0")
            weights = torch.randn_like(run(x), dtype=torch.float64)
            expected = derivatives(run, [x.double()], weights)
        found = derivatives(run, [x], weights)
        for a, b in zip(found, expected, strict=True):
            close(a, b)
        if min(shape) > 1:
            assert found[0].is_contiguous(memory_format=layout)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("taps", [1, 3, 12, 13])
def test_any_number_of_taps_in_any_precision(layout, dtype, taps, monkeypatch):
    f = torch.randn(taps, taps)
    x = torch.randn(2, 4, 9, 9).to(dtype, memory_format=layout)
    for up in (1, 2):
        found = low_pass(x, f, before=taps // 2, after=taps // 2, up=up)
        assert found.dtype == dtype
        with monkeypatch.context() as patch:
            patch.setenv("PROBE_ACCEL", "0")
            expected = low_pass(x.double(), f, before=taps // 2, after=taps // 2, up=up)
        close(found, expected, dtype if taps <= 12 else torch.bfloat16)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_maps_of_many_tiles(layout, monkeypatch):
    last = layout == torch.channels_last
    for shape in ((1, 140, 3, 7), (2, 3, 33, 35)):
        x = torch.randn(shape).to(memory_format=layout)
        assert max(cut(x.shape, last).grid[:2]) > 1
        found = low_pass(x, SKEWED, before=2, after=1)
        with monkeypatch.context() as patch:
            patch.setenv("PROBE_ACCEL", "0")
            close(found, low_pass(x.double(), SKEWED, before=2, after=1))


def test_an_input_without_a_dense_layout():
    x = torch.randn(2, 3, 8, 16)
    wanted = low_pass(x[..., ::2].contiguous(), SKEWED, before=2, after=1)
    assert torch.equal(low_pass(x[..., ::2], SKEWED, before=2, after=1), wanted)
    wanted = fused_finish(x[..., ::2].contiguous(), None, None, None, (0.2, 1.0))
    assert torch.equal(fused_finish(x[..., ::2], None, None, None, (0.2, 1.0)), wanted)
    same = x[:1].expand(4, -1, -1, -1)
    wanted = fused_finish(same.contiguous(), None, None, None, (0.2, 1.0))
    assert torch.equal(fused_finish(same, None, None, None, (0.2, 1.0)), wanted)


def plain(x, scale, noise, bias, limits):
    if scale is not None:
        x = x * scale[:, :, None, None]
    if noise is not None:
        x = x + noise
    if bias is not None:
        x = x + bias[:, None, None]
    return F.leaky_relu(x, limits[0]).clamp(-limits[1], limits[1])


FORMS = [
    (True, "each", True), (True, "one", True), (True, "none", False),
    (False, "none", True), (False, "none", False), (False, "each", False),
]  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("limits", [(0.2, 1.0), (1.0, math.inf), (0.0, 0.7)])
@pytest.mark.parametrize("form", FORMS)
def test_what_follows_a_convolution_and_both_derivatives(layout, limits, form):
    for n, c, h, w in ((2, 70, 5, 7), (1, 1, 1, 1)):
        noise = {"none": None, "one": torch.randn(h, w), "each": torch.randn(n, 1, h, w)}[form[1]]
        given = [
            torch.randn(n, c, h, w).to(memory_format=layout),
            torch.randn(n, c) if form[0] else None,
            noise,
            torch.randn(c) if form[2] else None,
        ]
        exact = [None if t is None else t.double() for t in given]
        weights = torch.randn(n, c, h, w, dtype=torch.float64)
        found = derivatives(lambda *a: fused_finish(*a, limits), given, weights)
        expected = derivatives(lambda *a: plain(*a, limits), exact, weights)
        for a, b in zip(found, expected, strict=True):
            close(a, b)
        assert found[0].stride() == given[0].stride()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_rounded_at_the_end_alone(dtype):
    torch.manual_seed(0)
    x, scale, noise, bias = (
        torch.randn(2, 8, 6, 6).to(dtype), torch.randn(2, 8), torch.randn(6, 6), torch.randn(8)
    )  # fmt: skip
    limits = 0.2, 2.0
    exact = plain(x.double(), scale.double(), noise.double(), bias.double(), limits)
    found = fused_finish(x, scale, noise, bias, limits)
    assert found.dtype == dtype
    # The interpreter cuts bfloat16 off, where a GPU rounds.
    assert ((found - exact) / exact).abs().max() < torch.finfo(dtype).eps
    weights = torch.randn(2, 8, 6, 6, dtype=torch.float64)
    found = derivatives(lambda *a: fused_finish(*a, limits), [x, scale, noise, bias], weights)
    exact = derivatives(
        lambda *a: plain(*a, limits), [t.double() for t in (x, scale, noise, bias)], weights
    )
    for a, b in zip(found, exact, strict=True):
        close(a, b, torch.bfloat16)


def test_what_is_not_finite_stays_so():
    x = torch.tensor([math.nan, math.inf, -math.inf, 1.0]).view(1, 1, 2, 2).requires_grad_()
    y = fused_finish(x, None, None, None, (0.2, math.inf))
    assert y.isnan().flatten().tolist() == [True, False, False, False]
    assert y.flatten()[1:3].tolist() == [math.inf, -math.inf]
    clamped = fused_finish(x, None, None, None, (0.2, 3.0)).flatten()
    assert clamped[0].isnan() and clamped[1:].tolist() == [3.0, -3.0, 1.0]
    (gradient,) = torch.autograd.grad(y, x, torch.full_like(y, math.nan))
    assert gradient.flatten()[0].isnan()


def generator(**options):
    torch.manual_seed(0)
    made = Generator(8, 0, 8, 16, 3, {"num_layers": 2}, {"channel_base": 128, **options})
    for name, parameter in made.named_parameters():
        if name.endswith(("noise_strength", "bias")):
            nn.init.normal_(parameter)
    return made.to(memory_format=torch.channels_last)


def discriminator():
    torch.manual_seed(1)
    made = Discriminator(0, 16, 3, channel_base=128, conv_clamp=256)
    return made.to(memory_format=torch.channels_last)


def regularised(network, module):
    """Return the gradients of a penalty on a network's gradients, and its output."""
    x = torch.randn(2, *((8,) if isinstance(module, Generator) else (3, 16, 16))).requires_grad_()
    y = network(x)
    (g,) = torch.autograd.grad((y * torch.linspace(-1, 1, y[0].numel()).view(y[0].shape)).sum(),
                               x, create_graph=True)  # fmt: skip
    loss = g.square().sum() + y.square().mean()
    used = list(module.parameters())
    found = torch.autograd.grad(loss, used, allow_unused=True)
    return [y.detach(), *(g for g in found if g is not None)]


@pytest.mark.parametrize(
    ("options", "noise"),
    [
        ({"conv_clamp": 0.5}, "random"),
        ({"architecture": "resnet", "conv_clamp": 256}, "const"),
        ({"architecture": "orig", "activation": "relu"}, "random"),
        ({"use_noise": False, "resample_filter": (1, 2, 1)}, "none"),
    ],
)
def test_a_generator_and_its_path_lengths(options, noise, monkeypatch):
    made = generator(**options)
    keys = torch.tensor([3, 4])

    def run():
        torch.manual_seed(2)
        return regularised(lambda z: made(z, noise_mode=noise, noise_keys=keys), made)

    compare(run, monkeypatch)


def test_a_discriminator_and_r1(monkeypatch):
    made = discriminator()

    def run():
        torch.manual_seed(2)
        return regularised(made, made)

    compare(run, monkeypatch)


def compare(run, monkeypatch):
    found = run()
    with monkeypatch.context() as patch:
        patch.setenv("PROBE_ACCEL", "0")
        expected = run()
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-3, atol=2e-4 * b.abs().max().item() + 1e-6)


class Copies(TorchDispatchMode):
    """Records copies of feature maps from one layout to another."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if str(func).startswith(("aten.clone", "aten._to_copy", "aten.copy_")):
            given = args[1] if "copy_" in str(func) and "_to_copy" not in str(func) else args[0]
            # The first block begins with a constant, the last ends in a vector: both at 4 px.
            if result.ndim == 4 and min(result.shape[2:]) > 4 and result.stride() != given.stride():
                self.found.append((str(func), tuple(result.shape), given.stride()))
        return result


def test_maps_stay_in_one_layout():
    made, judge = generator(), discriminator()
    with Copies() as mode:
        judge(made(torch.randn(2, 8))).sum().backward()
    assert mode.found == []


def test_a_convolution_leaves_its_bias_to_the_kernel(monkeypatch):
    seen = []
    monkeypatch.setattr(
        F, "conv2d", lambda x, w, b=None, **o: seen.append(b) or torch.conv2d(x, w, b, **o)
    )
    ConvLayer(3, 4, 3)(torch.randn(1, 3, 8, 8))
    assert seen == [None]
    assert layers.F is F
