"""Folding leaves what a network computes as it is, and takes its BatchNorms away."""

import pytest
import timm
import torch
from torch import nn
from torchvision.models import mobilenet_v2
from torchvision.models.feature_extraction import create_feature_extractor

from probe.accel.fold import fold_batchnorm
from probe.bank.load import load_backbone
from probe.bank.sources.torchvision import TorchvisionNetwork
from probe.bank.spec import BackboneSpec, Weights


class Timm(nn.Module):
    def __init__(self, name):
        super().__init__()
        self.model = timm.create_model(name, pretrained=False, num_classes=0)

    def levels(self, x):
        found, maps = self.model.forward_intermediates(x)
        return maps, found.mean(dim=(2, 3))

    def pool(self, x):
        return self.levels(x)[1]


class Small(nn.Module):
    """A convolution and a BatchNorm; `use` says what becomes of the convolution's output."""

    def __init__(self, use, **norm):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8, **norm)
        self.use = use

    def levels(self, x):
        y = self.use(self, x)
        return [y], y.mean(dim=(2, 3))

    def pool(self, x):
        return self.levels(x)[1]


def plainly(net, x):
    return net.norm(net.conv(x)).relu()


def trained(network):
    """Return a network whose BatchNorms matter."""
    torch.manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.weight, module.running_var):
                if values is not None:
                    nn.init.uniform_(values, 0.5, 2)
            for values in (module.bias, module.running_mean):
                if values is not None:
                    nn.init.normal_(values, std=0.3)
    return network.eval().requires_grad_(False)


def norms(network):
    return sum(isinstance(m, nn.BatchNorm2d) for m in network.modules())


def torchvision_network():
    model = mobilenet_v2(weights=None, width_mult=0.25).eval()
    taps = ["features.6", "features.18"]
    return TorchvisionNetwork(create_feature_extractor(model, taps), taps)


@pytest.mark.parametrize(
    "make",
    [
        torchvision_network,
        lambda: Timm("test_resnet"),
        lambda: Timm("test_efficientnet"),  # BatchNorm and activation in one module
        lambda: Small(plainly),
        lambda: Small(plainly, affine=False),
    ],
    ids=["torchvision", "resnet", "efficientnet", "small", "without affine"],
)
def test_same_features_without_batchnorm(make):
    network = trained(make())
    x = torch.randn(2, 3, 64, 64)
    assert norms(network) > 0
    with torch.no_grad():
        before = network.levels(x)[0]
        fold_batchnorm(network, 32)
        after = network.levels(x)[0]
    assert norms(network) == 0
    for a, b in zip(after, before, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * float(b.abs().max()))
    assert not any(p.requires_grad or p.is_inference() for p in network.parameters())
    leaf = torch.randn(1, 3, 64, 64, requires_grad=True)
    network.pool(leaf).sum().backward()
    assert leaf.grad.abs().sum() > 0


@pytest.mark.parametrize(
    "network",
    [
        Small(lambda net, x: net.norm(y := net.conv(x)) + y),
        Small(lambda net, x: net.norm(net.conv(x)) + net.conv(-x)),
        Small(lambda net, x: net.norm(net.conv(x).relu())),
        Small(lambda net, x: net.norm(net.norm(net.conv(x)))),
        Small(plainly, track_running_stats=False),
    ],
    ids=["output used twice", "called twice", "not adjacent", "norm called twice", "of the batch"],
)
def test_what_cannot_be_folded_stays(network):
    network = trained(network)
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        before = network.levels(x)[1]
        fold_batchnorm(network, 16)
        assert norms(network) == 1
        assert torch.equal(network.levels(x)[1], before)


def test_loaded_backbones_are_folded():
    spec = BackboneSpec(
        name="x#0", source="timm", model="test_resnet", weights=Weights(random=0), role="control",
        input=32, mean=(0.5,) * 3, std=(0.5,) * 3, task="none", data="none", license="MIT",
    )  # fmt: skip
    images = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)
    assert norms(load_backbone(spec, offline=True, bn_images=images)) == 0
    assert norms(load_backbone(spec, offline=True)) > 0  # it has no statistics yet
