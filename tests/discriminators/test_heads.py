"""Heads from declared shapes: output shapes, parameter counts, gradients, classes."""

import pytest
import torch

from probe.discriminators.heads import Head

# Feature shapes of the reference's backbones, and what it counts.
REFERENCE = [
    ("swin", [(768, 7, 7)], 768, 2_360_065, [()]),
    ("vgg", [(512, 7, 7)], 512, 1_770_241, [()]),
    ("segmentation", [(768, 8, 8)], 768, 2_818_817, [()]),
    ("face parsing", [(256, 8, 8)], 256, 1_639_169, [()]),
    ("face normals", [(512, 8, 8)], 512, 2_228_993, [()]),
    ("clip", [(768, 7, 7), (768, 7, 7)], 512, 3_671_555, [(3, 3), (3, 3), ()]),
    ("dino", [(768, 14, 14), (768, 14, 14)], 768, 1_868_547, [(3, 3), (3, 3), ()]),
    ("clip as a vector", [], 512, 131_585, [()]),
    ("dino as a vector", [], 768, 197_121, [()]),
]


def features(maps, dim, n=2):
    return [torch.randn(n, *shape, requires_grad=True) for shape in maps], torch.randn(n, dim)


@pytest.mark.parametrize(("maps", "dim", "count", "levels"), [r[1:] for r in REFERENCE],
                         ids=[r[0] for r in REFERENCE])  # fmt: skip
def test_reference_shapes_have_the_reference_heads(maps, dim, count, levels):
    head = Head(maps, dim)
    assert sum(p.numel() for p in head.parameters()) == count
    assert [tuple(x.shape) for x in head(*features(maps, dim))] == [(2, *level) for level in levels]


@pytest.mark.parametrize("norm", ["equalised", "spectral"])
@pytest.mark.parametrize(
    "maps", [[(8, 1, 1)], [(8, 2, 2)], [(8, 5, 5)], [(8, 9, 9)], [(8, 32, 32)], [(8, 61, 61)],
             [(4, 64, 64), (8, 16, 16), (16, 1, 1)]],
)  # fmt: skip
def test_any_square_maps_get_a_head(maps, norm):
    head = Head(maps, 12, norm=norm)
    x, pooled = features(maps, 12)
    levels = head(x, pooled)
    assert levels[-1].shape == (2,)
    assert all(max(level.shape[1:], default=1) <= 4 for level in levels)
    sum(level.sum() for level in levels).backward()
    assert all(m.grad.abs().sum() > 0 for m in x)
    assert all(p.grad is not None for p in head.parameters())


def spectral_head(maps, dim):
    """Return a head whose singular values are known exactly, its activations where they are steep.

    There every layer is linear, and as long as it can be.
    """
    head = Head(maps, dim, norm="spectral").train()
    x = features(maps, dim)
    for _ in range(300):
        head(*x)
    for name, parameter in head.named_parameters():
        if name.endswith("bias"):
            parameter.data.fill_(100.0)
    return head.eval()


def stretch(function, x):
    """Return the largest factor by which a function lengthens a small change of x."""
    jacobian = torch.autograd.functional.jacobian(function, x)
    return torch.linalg.matrix_norm(jacobian.reshape(-1, x.numel()), 2).item()


SMALL_MAPS = [[], [(16, 7, 7)], [(16, 7, 7)] * 2, [(16, 14, 14)] * 2]


@pytest.mark.parametrize("maps", SMALL_MAPS)
def test_no_spectral_layer_lengthens_what_an_output_reads(maps):
    torch.manual_seed(0)
    layers = [m for m in spectral_head(maps, 12).modules() if hasattr(m, "weight_gain")]
    assert len(layers) == {0: 2, 1: 3, 2: 6}[len(maps)]
    for layer in layers:
        if layer.weight.ndim == 2:
            x, middle = torch.randn(1, layer.weight.shape[1]), ...
        else:  # all channels of one output, which lies inside
            x, middle = torch.randn(1, layer.weight.shape[1], 9, 9), (..., 2, 2)
        found = stretch(lambda x, layer=layer, middle=middle: layer(x)[middle], x)
        assert found < 1.001
        if not getattr(layer, "down", False):  # no low-pass before it
            assert found > 0.999


@pytest.mark.parametrize("maps", SMALL_MAPS)
def test_no_spectral_head_lengthens_its_features(maps):
    torch.manual_seed(0)
    head, (x, pooled) = spectral_head(maps, 12), features(maps, 12, n=1)
    sizes = [m.numel() for m in x]

    def logits(flat):
        *given, vector = flat.split([*sizes, 12])
        shaped = [m.reshape(1, *shape) for m, shape in zip(given, maps)]
        return torch.cat([level.flatten() for level in head(shaped, vector[None])])

    flat = torch.cat([*(m.detach().flatten() for m in x), pooled.flatten()])
    assert 0.01 < stretch(logits, flat) < 1.001


@pytest.mark.parametrize("maps", [[], [(8, 7, 7)], [(8, 7, 7), (8, 7, 7)]])
def test_classes_move_the_final_logit_alone(maps):
    head = Head(maps, 8, c_dim=3)
    x, pooled = features(maps, 8)
    one, two = torch.eye(3)[[0, 0]], torch.eye(3)[[1, 1]]
    first, second = head(x, pooled, one), head(x, pooled, two)
    assert not torch.allclose(first[-1], second[-1])
    for a, b in zip(first[:-1], second[:-1]):
        assert torch.equal(a, b)
