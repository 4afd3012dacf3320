"""Heads from declared shapes: output shapes, parameter counts, gradients, classes."""

import pytest
import torch

from probe.training.heads import Head

# Feature shapes of the reference's backbones, and what it counts (method 4.1).
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


def test_spectral_weights_have_norm_one():
    head = Head([(8, 7, 7)], 8, norm="spectral").train()
    x = features([(8, 7, 7)], 8)
    for _ in range(30):
        head(*x)
    weights = [m.weight for m in head.modules() if hasattr(m, "weight_gain")]
    assert len(weights) == 3
    for weight in weights:
        assert torch.linalg.matrix_norm(weight.flatten(1), 2).item() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("maps", [[], [(8, 7, 7)], [(8, 7, 7), (8, 7, 7)]])
def test_classes_move_the_final_logit_alone(maps):
    head = Head(maps, 8, c_dim=3)
    x, pooled = features(maps, 8)
    one, two = torch.eye(3)[[0, 0]], torch.eye(3)[[1, 1]]
    first, second = head(x, pooled, one), head(x, pooled, two)
    assert not torch.allclose(first[-1], second[-1])
    for a, b in zip(first[:-1], second[:-1]):
        assert torch.equal(a, b)
