"""Activations taken by the convolution before them change no value, no gradient and no count."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from probe.accel.fuse import ActivatedConvolution, fuse_activations
from probe.bank.base import Backbone, InputSpec
from probe.bank.load import load_backbone
from probe.bank.spec import BackboneSpec, Weights
from probe.devices import autocast, has_fast_bf16
from probe.features.extract import backbone_costs

RESNET = BackboneSpec(
    name="x#0", source="timm", model="resnet18", weights=Weights(random=0), role="control",
    input=32, mean=(0.5,) * 3, std=(0.5,) * 3, task="none", data="none", license="MIT",
)  # fmt: skip


class Net(nn.Module):
    """A convolution and an activation; `use` says what becomes of the convolution's output."""

    def __init__(self, use, activation=nn.ReLU6, **conv):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.act, self.use = nn.Conv2d(3, 8, 3, **conv), activation(), use

    def levels(self, x):
        y = self.use(self, x * 9)
        return [y], y.mean(dim=(2, 3))

    def pool(self, x):
        return self.levels(x)[1]


def plainly(net, x):
    return net.act(net.conv(x))


def fused(network):
    network.eval().requires_grad_(False)
    fuse_activations(network, 16)
    return sum(isinstance(m, ActivatedConvolution) for m in network.modules())


def calls(network, x):
    """Return the names of the operators that a forward pass calls."""
    seen = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(func.name())
            return func(*args, **(kwargs or {}))

    with Watch():
        network.pool(x)
    return seen


@pytest.mark.skipif(not has_fast_bf16(torch.device("cpu")), reason="no bf16 on this CPU")
@pytest.mark.parametrize("activation", [nn.ReLU, nn.ReLU6, lambda: nn.ReLU6(inplace=True)])
@pytest.mark.parametrize("conv", [{}, {"stride": 2, "padding": 1}, {"bias": False}])
def test_one_call_with_the_values_of_two(activation, conv):
    network, x = Net(plainly, activation, **conv), torch.randn(4, 3, 16, 16)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        before = network.pool(x)
        assert fused(network) == 1
        assert torch.equal(network.pool(x), before)
        called = calls(network, x)
    assert "mkldnn::_convolution_pointwise" in called
    assert not {"aten::relu", "aten::hardtanh", "aten::convolution"} & set(called)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_values_and_gradients_where_they_are_wanted(precision):
    x = torch.randn(4, 3, 16, 16, requires_grad=True)
    found = []
    for change in (False, True):
        network = Net(plainly).eval().requires_grad_(False)
        if change:
            assert fused(network) == 1
        with autocast(torch.device("cpu"), precision):
            y = network.pool(x)
        found.append((y, *torch.autograd.grad(y.float().sum(), x)))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_a_shortcut_that_is_added_in_place_ends_a_pair():
    network = Net(lambda net, x: net.act(net.conv(x).add_(1)))
    x = torch.randn(2, 3, 16, 16)
    assert fused(network) == 0
    assert network.pool(x).shape == (2, 8)
    images = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)
    block = load_backbone(RESNET, offline=True, bn_images=images).network.model.layer1[0]
    assert isinstance(block.conv1, ActivatedConvolution)
    assert type(block.conv2) is nn.Conv2d


def test_a_network_that_gives_nan_goes_on_to_give_it():
    network = Net(plainly)
    with torch.no_grad():
        network.conv.weight[0, 0, 0, 0] = torch.nan
    assert fused(network) == 0
    assert network.pool(torch.randn(2, 3, 16, 16)).isnan().any()


@pytest.mark.parametrize(
    "network",
    [
        Net(lambda net, x: net.act(y := net.conv(x)) + y),
        Net(lambda net, x: net.act(net.conv(x)) + net.act(x).mean()),
        Net(plainly, padding="same"),
        Net(plainly, padding=1, padding_mode="reflect"),
        Net(plainly, nn.SiLU),
    ],
    ids=["output used twice", "activation used twice", "same", "reflect", "another activation"],
)
def test_what_cannot_be_fused_stays(network):
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        before = network.pool(x)
        assert fused(network) == 0
        assert torch.equal(network.pool(x), before)


def test_multiply_adds_are_counted_as_before():
    network, counter = Net(plainly), FlopCounterMode(display=False)
    with counter:
        network.pool(torch.zeros(1, 3, 16, 16))
    assert fused(network) == 1
    fed = InputSpec(16, (0.5,) * 3, (0.5,) * 3)
    backbone = Backbone("net", network, fed, dim=8, map_shapes=[(8, 14, 14)])
    with torch.no_grad():
        found = backbone_costs(backbone, torch.device("cpu"))
    assert found["flops"] == counter.get_total_flops() // 2 > 0
