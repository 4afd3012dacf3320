"""The base trainer: closed forms of its losses, and a run that stops and goes on."""

import math

import numpy as np
import pytest
import torch

from probe.errors import ProbeError, UsageError
from probe.generators.stylegan2 import Generator
from probe.images.base import Batch
from probe.runtime import torch_stream
from probe.training.config import TrainConfig
from probe.training.discriminator import Discriminator, minibatch_std
from probe.training.loop import sample_reals, train
from probe.training.losses import discriminator_loss, generator_loss, r1_penalty
from probe.training.state import TrainState

TINY = {"channel_base": 128, "channel_max": 8, "z_dim": 8, "w_dim": 8, "batch": 4}
CPU = torch.device("cpu")


class Squares:
    """Sixteen 16 px images in memory, each of one colour."""

    name = "squares"
    labels = None
    resolution = 16

    def __len__(self):
        return 16

    def load(self, indices, resolution):
        colours = torch.tensor([[16 * i, 255 - 16 * i, 128] for i in indices], dtype=torch.uint8)
        images = colours[:, :, None, None].expand(-1, -1, resolution, resolution).contiguous()
        images[:, :, :, 0] = 0  # a dark left edge tells a flip
        return Batch(images, list(indices), {})


def run(folder, config, *, digest="same"):
    records = []
    snapshot = train(
        Squares(),
        list(range(16)),
        config,
        folder,
        resolution=16,
        device=CPU,
        precision="fp32",
        digest=digest,
        metadata={},
        report=records.append,
    )
    return snapshot, records


def weights(folder):
    return torch.load(folder / "training-state-latest.pt", weights_only=True)


def test_losses_at_known_logits():
    zero = torch.zeros(4)
    assert generator_loss(zero).item() == pytest.approx(math.log(2))
    assert discriminator_loss(zero, zero).item() == pytest.approx(2 * math.log(2))
    sure = torch.full((4,), 20.0)
    assert discriminator_loss(sure, -sure).item() < 1e-6
    assert generator_loss(-sure).item() == pytest.approx(20, abs=1e-4)


def test_r1_of_a_linear_discriminator_is_its_squared_weight():
    weight = torch.randn(3, 4, 4)
    images = torch.randn(5, 3, 4, 4, requires_grad=True)
    penalty = r1_penalty(images, (images * weight).sum(dim=(1, 2, 3)))
    assert penalty.item() == pytest.approx(weight.square().sum().item(), rel=1e-5)


def test_r1_gradient_reaches_the_weights():
    weight = torch.randn(3, 4, 4, requires_grad=True)
    images = torch.randn(5, 3, 4, 4, requires_grad=True)
    r1_penalty(images, (images * weight).sum(dim=(1, 2, 3))).backward()
    torch.testing.assert_close(weight.grad, 2 * weight.detach())


def test_minibatch_std_sees_a_collapsed_batch():
    same = torch.randn(1, 2, 4, 4).expand(8, -1, -1, -1)
    assert minibatch_std(same, 4)[:, 2].max() < 1e-3
    spread = torch.randn(8, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    channel = minibatch_std(spread, 4)[:, 2]
    expected = spread.reshape(4, 2, 2, 4, 4).var(dim=0, correction=0).sqrt().mean(dim=(1, 2, 3))
    torch.testing.assert_close(channel[:2, 0, 0], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("c_dim", [0, 3])
def test_discriminator_shape_and_gradient(c_dim):
    network = Discriminator(c_dim, 32, 3, channel_base=128, channel_max=8)
    images = torch.randn(4, 3, 32, 32, requires_grad=True)
    classes = torch.eye(3)[[0, 1, 2, 0]] if c_dim else None
    logits = network(images, classes)
    assert logits.shape == (4,)
    logits.sum().backward()
    assert images.grad.abs().sum() > 0


def test_average_forgets_half_after_its_half_life():
    state = TrainState(TrainConfig(**TINY), 16, CPU, "x")
    start = state.average.mapping.fc0.weight.clone()
    with torch.no_grad():
        state.generator.mapping.fc0.weight.add_(1)
    for _ in range(10):
        state.update_average(100, 1000)
    torch.testing.assert_close(state.average.mapping.fc0.weight, start + 0.5, atol=1e-4, rtol=1e-4)


def test_every_pass_shows_every_image_once():
    config = TrainConfig(**TINY, mirror=False)
    for turn in (0, 1):
        seen = []
        for start in range(16 * turn, 16 * turn + 16, 4):
            batch = sample_reals(Squares(), list(range(16)), 16, config, start)
            seen += [round((v + 1) * 127.5 / 16) for v in batch[:, 0, 5, 5].tolist()]
        assert sorted(seen) == list(range(16))


def test_mirror_flips_about_half():
    config = TrainConfig(**{**TINY, "batch": 400})
    batch = sample_reals(Squares(), list(range(16)), 16, config, 0)
    flipped = (batch[:, 0, 5, 15] < -0.99) & (batch[:, 1, 5, 15] < -0.99)
    assert 150 < flipped.sum() < 250


def test_a_stopped_run_goes_on_exactly(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    options = {**TINY, "tick": 0.02, "snap": 1}
    run(whole, TrainConfig(**options, kimg=0.08))
    run(parts, TrainConfig(**options, kimg=0.04))
    run(parts, TrainConfig(**options, kimg=0.08))
    one, other = weights(whole), weights(parts)
    assert one["images"] == other["images"] == 80
    for name in ("generator", "discriminator", "average"):
        for key, value in one[name].items():
            assert torch.equal(value, other[name][key]), (name, key)


def test_a_run_learns_writes_its_files_and_stays_finite(tmp_path):
    snapshot, records = run(tmp_path, TrainConfig(**TINY, kimg=0.08, tick=0.04, snap=1))
    names = {p.name for p in tmp_path.iterdir()}
    assert {"reals.png", "fakes000000.png", "stats.jsonl", snapshot.name} <= names
    assert len(records) == 2
    assert all(np.isfinite(v) for v in records[-1].values())


def test_foreign_state_is_refused(tmp_path):
    config = TrainConfig(**TINY, kimg=0.04, tick=0.04, snap=1)
    run(tmp_path, config)
    with pytest.raises(ProbeError, match="other images or options"):
        run(tmp_path, config, digest="another")


def test_divergence_stops_and_keeps_the_last_good_state(tmp_path):
    run(tmp_path, TrainConfig(**TINY, kimg=0.04, tick=0.02, snap=1))
    with pytest.raises(ProbeError, match="NaN or infinite"):
        run(tmp_path, TrainConfig(**TINY, kimg=0.2, tick=0.02, snap=1, gamma=1e38))
    kept = weights(tmp_path)
    assert kept["images"] >= 40
    assert all(v.isfinite().all() for v in kept["generator"].values())


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        ({"batch": 0}, "--batch"),
        ({"batch": 6, "mbstd_group": 4}, "--mbstd-group"),
        ({"resolution": 48}, "--resolution"),
        ({"kimg": -1}, "--kimg"),
    ],
)
def test_impossible_options_name_their_flag(options, flag):
    with pytest.raises(UsageError, match=flag):
        TrainConfig(**options)


def test_noise_of_an_image_does_not_depend_on_its_neighbours():
    torch.manual_seed(0)
    network = Generator(8, 0, 8, 16, 3, {"num_layers": 2}, {"channel_base": 128})
    for name, parameter in network.named_parameters():
        if name.endswith("noise_strength"):
            parameter.data.fill_(0.5)
    z = torch.randn(4, 8)
    together = network(z, noise_rng=[torch_stream(0, i) for i in range(4)])
    alone = torch.cat([network(z[i : i + 1], noise_rng=[torch_stream(0, i)]) for i in range(4)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
