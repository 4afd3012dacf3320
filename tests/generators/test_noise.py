"""Noise as a function of key, layer and position: its distribution, and that nothing repeats."""

import numpy as np
import pytest
import torch
from inputs import tiny_generator
from scipy.stats import kstest
from torch.utils._python_dispatch import TorchDispatchMode

from probe.generators.networks import fastgan
from probe.generators.networks.stylegan2 import SynthesisLayer
from probe.generators.noise import normal_noise
from probe.streams import stream_keys

KEYS = stream_keys(range(64), "noise")


def correlation(a, b):
    """Return the correlation of two equal draws in standard deviations of its own spread."""
    return abs((a * b).double().mean().item()) * a.numel() ** 0.5


@pytest.mark.parametrize("keys", [KEYS, torch.arange(64), 2**62 + 2**40 * torch.arange(64)])
@pytest.mark.parametrize("number", [0, 9, 2049])
def test_noise_is_standard_normal(keys, number):
    x = normal_noise(keys, number, (1, 128, 128)).double()
    n = x.numel()
    moments = [x.mean().item(), x.square().mean().item() - 1, x.pow(3).mean().item()]
    for moment, spread in zip(moments, (1, 2, 15), strict=True):
        assert abs(moment) < 4 * (spread / n) ** 0.5
    assert abs(x.pow(4).mean().item() - 3) < 4 * (96 / n) ** 0.5
    assert kstest(x.flatten()[: 2**17].numpy(), "norm").pvalue > 1e-3
    assert 4.5 < x.abs().max() < 6.6
    tail = (x.abs() > 3).double().mean().item()
    assert abs(tail - 0.0026998) < 5 * (0.0027 / n) ** 0.5
    each = x.flatten(1)
    assert each.mean(dim=1).abs().max() < 5 / 128  # no single key is worse
    assert (each.std(dim=1) - 1).abs().max() < 5 / 128 / 2**0.5


@pytest.mark.parametrize("keys", [KEYS, torch.arange(64)])
def test_neighbours_samples_and_layers_are_independent(keys):
    x = normal_noise(keys, 128, (128, 128))
    other = normal_noise(keys, 129, (128, 128))
    pairs = {
        "right": (x[:, :, 1:], x[:, :, :-1]),
        "below": (x[:, 1:], x[:, :-1]),
        "two halves, from the same uniform numbers": (x[:, :64], x[:, 64:]),
        "the next sample": (x[1:], x[:-1]),
        "another layer": (x, other),
        "another layer, shifted": (x[:, 1:], other[:, :-1]),
    }
    for name, (a, b) in pairs.items():
        assert correlation(a, b) < 4.5, name
        assert correlation(a.square() - 1, b.square() - 1) < 4.5 * 2, name
    spectrum = torch.fft.fft2(x).abs().square().mean(dim=0) / x[0].numel()
    assert (spectrum - 1).abs().max() < 1  # 64 draws: standard deviation 1/8; no line or period


def test_values_do_not_repeat():
    x = torch.cat([normal_noise(KEYS[:8], n, (64, 64)).flatten() for n in (0, 8, 9)])
    among_normals = torch.randn(len(x), generator=torch.Generator().manual_seed(0)).unique()
    assert len(x.unique()) > len(among_normals) - 2000


def test_a_sample_does_not_depend_on_its_batch():
    together = normal_noise(KEYS, 9, (3, 7, 5))
    assert together.shape == (64, 3, 7, 5) and together.dtype == torch.float32
    alone = torch.cat([normal_noise(key, 9, (3, 7, 5)) for key in KEYS.split(1)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)
    assert torch.equal(together, normal_noise(KEYS, 9, (3, 7, 5)))


def test_bits_are_those_of_splitmix64():
    """The same function in Python's whole numbers."""

    def scramble(x):
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
        return x ^ (x >> 31)

    def pair(key, number, position):
        counter = ((number << 32) + position) * 0x9E3779B97F4A7C15 % 2**64
        bits = scramble(scramble(counter) ^ key)
        radius = np.sqrt(-2 * np.log(((bits & 0x7FFFFFFF) + 1) / 2**31))
        angle = (bits >> 32) * np.pi / 2**31
        return radius * np.cos(angle), radius * np.sin(angle)

    for key in (0, 5, 2**63 - 1):
        found = normal_noise(torch.tensor([key]), 9, (2, 50))[0].double().numpy()
        expected = np.array([pair(key, 9, i) for i in range(50)]).T
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


class Operations(TorchDispatchMode):
    """Counts torch's operations."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


def test_a_batch_takes_no_more_operations_than_one_sample():
    network, counts = tiny_generator(), []
    for n in (1, 50):
        z = torch.randn(n, network.z_dim)
        with torch.inference_mode(), Operations() as mode:
            network(z, noise_keys=torch.arange(n))
        counts.append(mode.count)
    assert counts[0] == counts[1]


@pytest.mark.parametrize("network", ["stylegan2", "fastgan"])
def test_every_layer_has_noise_of_its_own(network, monkeypatch):
    numbers = []

    def record(keys, number, shape):
        numbers.append(number)
        return normal_noise(keys, number, shape)

    monkeypatch.setattr("probe.generators.networks.layers.normal_noise", record)
    if network == "stylegan2":
        made = tiny_generator()
        layers = sum(isinstance(m, SynthesisLayer) for m in made.modules())
    else:
        made = fastgan.Generator(z_dim=16, img_resolution=64, ngf=8)
        layers = 2 * len(made.synthesis.resolutions)
    made.eval()(torch.randn(2, made.z_dim), noise_keys=torch.arange(2))
    assert len(set(numbers)) == len(numbers) == layers and min(numbers) > 0


def test_without_keys_noise_follows_the_global_stream():
    network, z = tiny_generator(), torch.randn(2, 16)
    images = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        images.append(network(z))
    assert torch.equal(images[0], images[1]) and not torch.equal(images[0], images[2])
