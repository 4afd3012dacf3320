"""Networks, augmentations and path lengths against float64 evaluations of their definitions."""

import math

import numpy as np
import pytest
import torch
from training import reference

from probe.discriminators.ada import SYM6, ada
from probe.discriminators.diffaugment import diffaugment
from probe.discriminators.draws import Draw
from probe.discriminators.heads import Head
from probe.discriminators.losses import path_lengths
from probe.generators.networks.stylegan2 import Generator
from probe.streams import torch_stream
from probe.training.discriminator import Discriminator


def draws(total):
    return Draw(torch_stream(0, "definitions"), total)


def pictures(n, side):
    return torch.rand(n, 3, side, side, generator=torch_stream(1)) * 2 - 1


def stirred(network):
    """Return a network with no parameter left at the 0 or 1 it begins with."""
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim < 2:
                parameter += 0.3 * torch.randn(parameter.shape, generator=torch_stream(2))
    return network


def agree(found, expected, tolerance=1e-5):
    assert found.shape == expected.shape
    difference = np.abs(found.detach().double().numpy() - expected).max()
    assert difference < tolerance * max(1.0, np.abs(expected).max())


@pytest.mark.parametrize("c_dim", [0, 3])
@pytest.mark.parametrize("architecture", ["resnet", "orig"])
def test_a_discriminator_is_its_definition(architecture, c_dim):
    torch.manual_seed(0)
    network = stirred(
        Discriminator(
            c_dim, 16, 3, channel_base=128, channel_max=12, architecture=architecture,
            mbstd_group_size=2,
        )
    )  # fmt: skip
    assert any("skip" in name for name in network.state_dict()) == (architecture == "resnet")
    images, c = pictures(4, 16), torch.eye(3)[[0, 2, 1, 1]] if c_dim else None
    agree(network(images, c), reference.discriminate(network, images.numpy(), c))


@pytest.mark.parametrize("norm", ["equalised", "spectral"])
@pytest.mark.parametrize(
    "maps", [[], [(8, 7, 7)], [(8, 8, 8)], [(8, 7, 7), (8, 7, 7)], [(8, 14, 14), (8, 14, 14)]]
)
def test_a_head_is_its_definition(maps, norm):
    torch.manual_seed(0)
    head = stirred(Head(maps, 12, norm=norm)).train()
    rng = torch_stream(3)
    x = [torch.randn(2, *shape, generator=rng) for shape in maps]
    pooled = torch.randn(2, 12, generator=rng)
    if norm == "spectral":
        for _ in range(300):  # each moves the estimated singular values on
            head(x, pooled)
    levels = head.eval()(x, pooled)
    expected = reference.HeadReference(head, norm)([m.numpy() for m in x], pooled.numpy())
    assert len(levels) == len(expected)
    for found, wanted in zip(levels, expected):
        agree(found, wanted)


class Gates:
    """Draws again what `ada` drew: each value, then whether it is used."""

    def __init__(self, n):
        self.draw = draws(n)

    def __call__(self, drawn, p, neutral=0.0):
        keep = (self.draw.uniform() < p).numpy()
        values = drawn.double().numpy()
        return np.where(keep.reshape(-1, *[1] * (values.ndim - 1)), values, neutral)

    def angle(self, p):
        return self((2 * self.draw.uniform().double() - 1) * math.pi, p)

    def power(self, deviation, p):
        return 2 ** self(deviation * self.draw.normal(), p)


def geometry(gates, p, side):
    """Return (N, 3, 3) from the steps of "bgc", in its order and strength."""
    flip = gates(gates.draw.integers(2), p)
    turns = gates(gates.draw.integers(4), p)
    shift = gates((gates.draw.uniform(2).double() * 2 - 1).mul(side / 8).round(), p)
    p_rotation = 1 - math.sqrt(1 - p)
    zoom, before = gates.power(0.2, p), gates.angle(p_rotation)
    stretch, after = gates.power(0.2, p), gates.angle(p_rotation)
    fraction = gates(gates.draw.normal(2) * side / 8, p)

    def turn(angle):
        cos, sin = np.cos(angle), np.sin(angle)
        return np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])

    def move(offset):
        return np.array([[1, 0, offset[0]], [0, 1, offset[1]], [0, 0, 1]])

    return [
        move(fraction[i]) @ turn(after[i]) @ np.diag([stretch[i], 1 / stretch[i], 1])
        @ turn(before[i]) @ np.diag([zoom[i], zoom[i], 1]) @ move(shift[i])
        @ turn(turns[i] * math.pi / 2) @ np.diag([1 - 2 * flip[i], 1, 1])
        for i in range(len(flip))
    ]  # fmt: skip


def colours(gates, p):
    """Return brightness, contrast, luma flip, hue and saturation of each image."""
    light = gates(0.2 * gates.draw.normal(), p)
    factor = gates.power(0.5, p)
    flip = gates(gates.draw.integers(2), p)
    return zip(light, factor, flip, gates.angle(p), gates.power(1.0, p))


@pytest.mark.parametrize("p", [0.3, 1.0])
@pytest.mark.parametrize("side", [16, 24])
def test_ada_is_its_definition(side, p):
    images, gates = pictures(12, side), Gates(12)
    matrices = geometry(gates, p, side)
    expected = np.stack(
        [
            reference.recolour(reference.warp(image.double().numpy(), matrix, SYM6), steps)
            for image, matrix, steps in zip(images, matrices, colours(gates, p))
        ]
    )
    defined = np.isfinite(expected).all(axis=(1, 2, 3))
    assert defined.sum() > 6
    agree(ada(images, p, draws(12))[defined], expected[defined])


def test_diffaugment_is_its_definition():
    images, draw = pictures(12, 16), draws(12)
    colour = draw.uniform(3, 1, 1, 1).reshape(-1, 3).double().numpy()
    shift = (draw.integers(5, 2, 1) - 2).reshape(-1, 2).tolist()  # an eighth of 16
    centre = draw.integers(17, 2, 1).reshape(-1, 2).tolist()
    expected = np.stack(
        [
            reference.diffaugment(image.double().numpy(), (c, s, e))
            for image, c, s, e in zip(images, colour, shift, centre)
        ]
    )
    agree(diffaugment(images, draws(12)), expected)


def test_path_lengths_of_a_generator_are_those_of_its_jacobian():
    torch.manual_seed(0)
    network = Generator(8, 0, 8, 8, 3, {"num_layers": 2}, {"channel_base": 64, "channel_max": 8})
    network = stirred(network).requires_grad_(False)
    ws = torch.randn(3, network.num_ws, 8, requires_grad=True)
    images = network.synthesis(ws, noise_mode="const")
    noise = torch.randn(images.shape)
    expected = []
    for w, y in zip(ws.detach(), noise):
        jacobian = torch.autograd.functional.jacobian(
            lambda x: network.synthesis(x[None], noise_mode="const")[0], w
        )  # (3, 8, 8, layers, width)
        pulled = torch.einsum("chw,chwld->ld", y / 8, jacobian)  # 8 = sqrt(height · width)
        expected.append(pulled.square().sum(dim=1).mean().sqrt())
    agree(path_lengths(images, ws, noise), torch.stack(expected).double().numpy())
