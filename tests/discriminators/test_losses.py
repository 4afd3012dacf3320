"""Adversarial losses at known logits, and regularisers against closed forms."""

import math

import pytest
import torch

from probe.discriminators.losses import HINGE, SIGMOID, path_lengths, r1_penalty

LN2 = math.log(2)


def test_sigmoid_at_known_logits():
    zero = [torch.zeros(4)]
    assert SIGMOID.generator(zero).item() == pytest.approx(LN2)
    assert SIGMOID.discriminator(zero, zero).item() == pytest.approx(2 * LN2)
    sure = torch.full((4,), 20.0)
    assert SIGMOID.discriminator([sure], [-sure]).item() < 1e-6
    assert SIGMOID.generator([-sure]).item() == pytest.approx(20, abs=1e-4)


def test_levels_are_summed_each_by_its_mean():
    levels = [torch.zeros(4, 3, 3), torch.zeros(4, 2, 2), torch.zeros(4)]
    assert SIGMOID.generator(levels).item() == pytest.approx(3 * LN2)
    assert SIGMOID.discriminator(levels, levels).item() == pytest.approx(6 * LN2)


def test_a_smoothed_target_is_met_at_its_log_odds():
    """Binary cross-entropy against 0.8 is least at the logit ln 4 = 1.386."""
    logits = torch.tensor([math.log(4)], requires_grad=True)
    SIGMOID.generator([logits], 0.8).backward()
    assert logits.grad.abs().item() < 1e-6
    beyond = torch.tensor([2.0], requires_grad=True)
    SIGMOID.generator([beyond], 0.8).backward()
    assert beyond.grad.item() > 0  # turns back
    expected = -0.8 * math.log(0.5) - 0.2 * math.log(0.5)
    assert SIGMOID.discriminator([torch.zeros(2)], [torch.full((2,), -50.0)], 0.8).item() == (
        pytest.approx(expected)
    )


def test_sigmoid_agrees_with_torch():
    logits = torch.randn(50) * 5
    for target in (1.0, 0.8):
        expected = torch.nn.functional.binary_cross_entropy_with_logits(
            logits, torch.full_like(logits, target)
        )
        torch.testing.assert_close(SIGMOID.generator([logits], target), expected)


def test_hinge_at_known_logits():
    real, fake = [torch.tensor([0.5, 2.0])], [torch.tensor([-0.5, -3.0])]
    assert HINGE.discriminator(real, fake).item() == pytest.approx(0.25 + 0.25)
    assert HINGE.generator(fake).item() == pytest.approx(1.75)


def test_r1_of_a_linear_discriminator_is_its_squared_weight():
    weight = torch.randn(3, 4, 4, requires_grad=True)
    images = torch.randn(5, 3, 4, 4, requires_grad=True)
    penalty = r1_penalty([images], [(images * weight).sum(dim=(1, 2, 3))])
    assert penalty.item() == pytest.approx(weight.square().sum().item(), rel=1e-5)
    penalty.backward()
    torch.testing.assert_close(weight.grad, 2 * weight.detach())


def test_path_length_of_a_linear_generator():
    """For images = A w in every layer, Jᵀy = Aᵀy / sqrt(H·W), the same for each layer."""
    n, layers, width, side = 4, 3, 5, 8
    matrix = torch.randn(3 * side * side, width)
    ws = torch.randn(n, layers, width, requires_grad=True)
    images = (ws.sum(dim=1) @ matrix.T).reshape(n, 3, side, side)
    noise = torch.randn_like(images)
    expected = (noise.reshape(n, -1) @ matrix / side).norm(dim=1)
    torch.testing.assert_close(path_lengths(images, ws, noise), expected, rtol=1e-4, atol=1e-4)


def test_path_length_gradient_reaches_the_weights():
    """lengths = |Aᵀy| / sqrt(H·W): checked against autograd on that very formula."""
    matrix = torch.randn(12, 5, requires_grad=True)
    ws = torch.randn(3, 2, 5, requires_grad=True)
    images = (ws.sum(dim=1) @ matrix.T).reshape(3, 3, 2, 2)
    noise = torch.randn_like(images)
    path_lengths(images, ws, noise).square().sum().backward()
    found, matrix.grad = matrix.grad.clone(), None
    (noise.reshape(3, -1) @ matrix / 2).square().sum().backward()
    torch.testing.assert_close(found, matrix.grad, rtol=1e-4, atol=1e-4)


def test_the_penalty_at_features_of_linear_heads_is_their_squared_weights():
    a, b = torch.randn(3, 4), torch.randn(5)
    maps = torch.randn(2, 3, 2, 2, requires_grad=True)
    pooled = torch.randn(2, 5, requires_grad=True)
    unused = torch.randn(2, 7, requires_grad=True)
    level = torch.einsum("nchw,c->nhw", maps, a[:, 0])  # each of four logits counts a quarter
    penalty = r1_penalty([maps, pooled, unused], [level, pooled @ b])
    expected = 4 * (a[:, 0] / 4).square().sum() + b.square().sum()
    assert penalty.item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_penalty_at_features_can_be_differentiated_once_more():
    weight = torch.randn(5, requires_grad=True)
    pooled = torch.randn(2, 5, requires_grad=True)
    r1_penalty([pooled], [pooled @ weight]).backward()
    torch.testing.assert_close(weight.grad, 2 * weight.detach())
