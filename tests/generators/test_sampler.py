"""A generator as images: each a function of its seed."""

import numpy as np
import pytest
import torch
from inputs import tiny_generator

from probe.errors import CheckpointError, UsageError
from probe.generators.base import to_uint8
from probe.generators.checkpoint import Checkpoint
from probe.generators.config import SampleOptions
from probe.generators.sampler import GeneratorSource, image_seed


def source(generator=None, count=40, **options):
    generator = generator or tiny_generator(options.pop("c_dim", 0))
    checkpoint = Checkpoint(generator, "stylegan2", "digest", {})
    chosen = {n: options.pop(n) for n in ("trunc", "noise", "class_index") if n in options}
    sample = SampleOptions(**chosen)
    return GeneratorSource(checkpoint, name="g.pkl", count=count, sample=sample, **options)


def test_latents_are_those_of_the_family():
    s = source(noise="const", seed=3)
    z = np.random.RandomState(3_000_007).randn(1, 16)
    image = tiny_generator()(torch.from_numpy(z).float(), noise_mode="const")
    found = s.load([7], 32).images
    assert (found.int() - to_uint8(image).int()).abs().max() <= 1
    assert s.captions([7]) == ["seed 3000007"] and image_seed(3, 7) == 3_000_007


def test_an_image_does_not_depend_on_its_neighbours():
    s = source()
    together, alone = s.load(range(40), 32).images, s.load([33], 32).images
    assert (together[33].int() - alone[0].int()).abs().max() <= 1
    assert torch.equal(s.load(range(40), 32).images, together)


def test_keys_follow_everything_that_decides_an_image():
    base = source().keys([0, 1])
    assert base[0] != base[1] and base == source(count=99).keys([0, 1])
    for options in ({"seed": 1}, {"trunc": 0.5}, {"noise": "const"}):
        assert set(source(**options).keys([0, 1])).isdisjoint(base)
    classes = [source(c_dim=3, class_index=i).keys([0])[0] for i in range(3)]
    assert len(set(classes)) == 3


def test_keys_follow_the_version_of_random_noise_alone(monkeypatch):
    modes = ("random", "const", "none")
    before = [source(noise=mode).keys([0]) for mode in modes]
    monkeypatch.setattr("probe.generators.sampler.VERSION", 99)
    after = [source(noise=mode).keys([0]) for mode in modes]
    assert before[0] != after[0] and before[1:] == after[1:]


def test_eight_bit_as_a_saved_file():
    x = torch.tensor([-2.0, -1.0, -0.9999, 0.0, 0.9999, 1.0, 2.0]).reshape(1, 1, 1, 7)
    assert to_uint8(x)[0, :, 0].tolist() == [[0, 0, 0, 128, 255, 255, 255]] * 3


def test_another_resolution_takes_the_path_of_files():
    assert source().load([0, 1], 16).images.shape == (2, 3, 16, 16)
    assert source().headers([0])[0].size == (32, 32)


def test_labels_are_drawn_as_the_reals_have_them():
    labels = [0] * 90 + [2] * 10
    s = source(c_dim=3, count=2000, labels=labels)
    counts = np.bincount(s.labels, minlength=3) / 2000
    assert counts[1] == 0 and abs(counts[2] - 0.1) < 0.03
    assert s.labels == source(c_dim=3, count=2000, labels=labels).labels
    assert set(source(c_dim=3, class_index=1).labels) == {1}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"c_dim": 3}, "conditional with 3 classes"),
        ({"c_dim": 3, "class_index": 3}, "classes 0 to 2"),
        ({"c_dim": 3, "labels": [0, 5]}, "class 5"),
        ({"class_index": 0}, "unconditional"),
    ],
)
def test_impossible_classes(options, words):
    with pytest.raises(UsageError, match=words):
        source(**options)


def test_a_generator_that_returns_nan_is_named_with_its_seed():
    g = tiny_generator()
    g.synthesis.b32.torgb.bias[0] = float("nan")
    with pytest.raises(CheckpointError, match="seed 0 gives NaN"):
        source(g).load([0], 32)


class Hungry:
    """A generator of large images, which remembers its batches and takes so many at a time."""

    z_dim, c_dim, img_resolution, img_channels = 4, 0, 1024, 3

    def __init__(self, most):
        self.most, self.batches = most, []

    def to(self, *args, **options):
        return self

    def __call__(self, z, c=None, **options):
        self.batches.append(len(z))
        if len(z) > self.most:
            raise RuntimeError(
                "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate"
            )
        return torch.zeros(len(z), 3, 1024, 1024)


def test_large_images_are_drawn_in_smaller_batches():
    g = Hungry(4)
    assert len(source(g).load(range(10), 1024).images) == 10
    assert g.batches == [4, 4, 2]


def test_out_of_memory_halves_the_batch():
    g = Hungry(3)
    assert len(source(g).load(range(5), 1024).images) == 5
    assert g.batches == [4, 2, 2, 1]
    with pytest.raises(CheckpointError, match=r"g.pkl: a single image of 1024 px .* more memory"):
        source(Hungry(0)).load(range(10), 1024)
