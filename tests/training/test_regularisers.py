"""Regularisers as they act in a step: what they are taken at, and what they pull on."""

import pytest
import torch
from contexts import new_state, session
from torch import nn

from probe.discriminators.losses import path_length_penalty, r1_penalty
from probe.discriminators.member import Member
from probe.discriminators.options import DiscriminatorOptions
from probe.discriminators.step import Minibatch, Step
from probe.processes import Processes
from probe.training.config import TrainConfig
from probe.training.discriminator import Discriminator
from probe.training.own import OwnNetwork, own_member
from probe.training.presets import make_plan
from probe.training.step import PL_DECAY, r1_step, train_step

CPU = torch.device("cpu")
STRENGTH = 1.0


def config(**options):
    return make_plan(TrainConfig(batch=4, **options), resolution=16, images=100).config


class Smooth(nn.Module):
    """Images (N, 3, R, R) to logits (N,), in float64, with no corner anywhere."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 1, 3, stride=2)
        self.double()

    def forward(self, images, c, *, batches=1):
        return self.two(torch.tanh(self.one(images))).square().sum(dim=(1, 2, 3))


def smooth_member(augmentation):
    """Return a discriminator that no step moves."""
    network = OwnNetwork(Smooth())
    member = Member(
        "D",
        network,
        torch.optim.Adam(network.parameters(), lr=0.0),
        DiscriminatorOptions(augmentation=augmentation),
    )
    member.adaptive.p = STRENGTH
    return member


def penalise(member, reals, made, precision="fp32"):
    found = r1_step(
        member, Minibatch(reals), made.gamma * made.r1_interval, Step(precision=precision)
    )
    return found["Loss/r1_penalty"].item()


def pictures(n=2, side=8):
    rng = torch.Generator().manual_seed(3)
    return torch.rand(n, 3, side, side, generator=rng, dtype=torch.float64) * 2 - 1


def numeric_penalty(member, images, step=1e-6):
    """Return the mean over images of |d D(augment(x)) / dx|², one pixel after the other."""

    def logits(x):
        return member.network(member.augment(x, "r1", Step()), None)[0]

    squares = torch.zeros(len(images), dtype=torch.float64)
    with torch.no_grad():
        base = logits(images)
        for place in range(images[0].numel()):  # the same pixel of every image at once
            moved = torch.zeros_like(images)
            moved.flatten(1)[:, place] = step
            squares += ((logits(images + moved) - base) / step).square()
    return squares.mean().item()


@pytest.mark.parametrize("augmentation", ["ada", "diffaugment", "none"])
def test_r1_is_taken_at_the_images_through_the_augmentation(augmentation):
    member, reals = smooth_member(augmentation), pictures()
    found = penalise(member, reals, config())
    assert found == pytest.approx(numeric_penalty(member, reals), rel=1e-5)
    if augmentation != "none":
        seen = member.augment(reals, "r1", Step()).requires_grad_()
        at_what_it_sees = r1_penalty([seen], member.network(seen, None)).item()
        assert abs(found / at_what_it_sees - 1) > 0.1


@pytest.mark.parametrize("augmentation", ["ada", "diffaugment"])
def test_r1_pulls_on_the_weights_by_its_exact_derivative(augmentation):
    """Gamma over 2 times the penalty, once in as many steps as it counts."""
    member, reals, made = smooth_member(augmentation), pictures(), config(gamma=3.0, r1_interval=5)
    penalise(member, reals, made)
    weights = member.network.discriminator.one.weight
    gradient = weights.grad.clone()
    assert gradient.abs().max() > 0.1
    for place in [(0, 0, 0, 0), (2, 1, 1, 2), (5, 2, 2, 1)]:
        values = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                weights[place] += step
            values.append(penalise(member, reals, made))
            with torch.no_grad():
                weights[place] -= step
        numeric = 3.0 / 2 * 5 * (values[0] - values[1]) / 2e-5
        assert gradient[place].item() == pytest.approx(numeric, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("augmentation", ["ada", "diffaugment"])
def test_r1_in_bf16_is_near_that_in_float32(augmentation):
    found = []
    for precision in ("fp32", "bf16"):
        made = config(aug=augmentation, aug_p=STRENGTH)
        torch.manual_seed(0)
        member = own_member(made, Discriminator(0, 16, 3, channel_base=512, channel_max=32))
        penalty = penalise(member, pictures(4, 16).float(), made, precision)
        gradients = [p.grad for p in member.network.parameters() if p.grad is not None]
        assert all(g.dtype == torch.float32 and g.isfinite().all() for g in gradients)
        found.append(penalty)
    assert found[1] == pytest.approx(found[0], rel=0.1)


def test_r1_of_shares_of_a_batch_averages_to_that_of_the_batch():
    member, reals, made = smooth_member("ada"), pictures(4), config()
    whole = penalise(member, reals, made)
    sums = []
    for rank in range(2):
        images = reals[rank::2].requires_grad_()
        seen = member.augment(images, "r1", Step(processes=Processes(rank, 2)))
        sums.append(r1_penalty([images], member.network(seen, None)).item())
    assert sum(sums) / 2 == pytest.approx(whole, rel=1e-9)


# Path lengths


def lengths_and_graph(n=6):
    torch.manual_seed(0)
    weights = torch.randn(n, dtype=torch.float64).exp().requires_grad_()
    return weights, weights.square()


def test_the_gradient_of_path_lengths_flows_through_their_running_mean():
    before = torch.tensor(0.3, dtype=torch.float64)
    weights, lengths = lengths_and_graph()
    running = before.lerp(lengths.mean(), PL_DECAY)
    expected = (lengths - running).square().mean()
    (wanted,) = torch.autograd.grad(expected, weights)

    weights, lengths = lengths_and_graph()
    mean = lengths.detach().mean()
    penalty = path_length_penalty(lengths, before.lerp(mean, PL_DECAY), mean, PL_DECAY)
    (found,) = torch.autograd.grad(penalty, weights)
    assert penalty.item() == pytest.approx(expected.item(), rel=1e-12)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=0)
    constant_mean = (weights.square() - running.detach()).square().mean()
    (constant,) = torch.autograd.grad(constant_mean, weights)
    assert (constant - wanted).abs().max() > 1e-3


def test_shares_of_path_lengths_pull_together_as_the_whole_batch():
    before, shares = torch.tensor(0.3, dtype=torch.float64), []
    weights, lengths = lengths_and_graph()
    mean = lengths.detach().mean()
    running = before.lerp(mean, PL_DECAY)
    (whole,) = torch.autograd.grad(
        path_length_penalty(lengths, running, mean, PL_DECAY), weights, retain_graph=True
    )
    for rank in range(2):
        penalty = path_length_penalty(lengths[rank::2], running, mean, PL_DECAY)
        shares += torch.autograd.grad(penalty, weights, retain_graph=True)
    torch.testing.assert_close(sum(shares) / 2, whole, rtol=1e-12, atol=1e-15)


# The running mean of w


@pytest.mark.parametrize("pl_weight", [0.0, 2.0])
def test_every_pass_of_the_generator_in_training_moves_its_running_mean(pl_weight):
    made = config(pl_weight=pl_weight, style_mixing=0.9, channel_base=128, channel_max=8)
    state = new_state(made)
    mapping, passes = state.generator.mapping, []
    expected = mapping.w_avg.clone()
    mapping.register_forward_hook(
        lambda module, _, w: passes.append(w.detach().mean(dim=0)) if module.training else None
    )
    reals = pictures(4, 16).float()
    for _ in range(2):
        train_step(state, Minibatch(reals), session(made))
    # The generator's step, the discriminators', and the first step's path lengths.
    assert len(passes) == (5 if pl_weight else 4)
    for mean in passes:
        expected = expected.lerp(mean, 1 - mapping.w_avg_beta)
    torch.testing.assert_close(mapping.w_avg, expected)
    assert torch.equal(state.average.mapping.w_avg, mapping.w_avg)
