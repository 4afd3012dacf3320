"""Discriminators on frozen backbones: exact gradients, nothing frozen that moves, own draws."""

import numpy as np
import pytest
import torch
from contexts import new_state, session
from torch import nn

from probe.accel import depthwise
from probe.bank.base import Backbone, InputSpec, normalise, resize_unclamped
from probe.bank.file import load_bank
from probe.bank.load import wrap
from probe.devices import autocast
from probe.discriminators.gradient import generator_gradient
from probe.discriminators.member import discriminator_step, vision_member
from probe.discriminators.step import Minibatch, Step
from probe.processes import Processes
from probe.training.config import TrainConfig
from probe.training.discriminator import Discriminator, minibatch_std
from probe.training.own import head_options, own_member
from probe.training.presets import make_plan
from probe.training.step import head_r1_step, train_step

CPU = torch.device("cpu")


class Net(nn.Module):
    """A smooth frozen network with BatchNorm, two maps and a vector."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 6, 3, 2, padding=1)
        self.norm = nn.BatchNorm2d(6)

    def levels(self, x):
        first = torch.tanh(self.one(x))
        second = torch.tanh(self.norm(self.two(first)))
        return [first, second], second.mean(dim=(2, 3))

    def pool(self, x):
        return self.levels(x)[1]


def backbone(size=16, **options):
    fed = InputSpec(size, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25), **options)
    shapes = [(4, size, size), (6, size // 2, size // 2)]
    return Backbone("net", Net(), fed, dim=6, map_shapes=shapes)


def config(**options):
    return make_plan(TrainConfig(batch=4, **options), resolution=16, images=100).config


def member(c_dim=0, smooth=False, base=None, **options):
    chosen = head_options(config(**options))
    return vision_member(chosen, base or backbone(), c_dim=c_dim, smooth=smooth)


STEP = Step()


@pytest.mark.parametrize("resize", ["bicubic", "area"])
def test_the_gradient_to_the_image_is_exact(resize):
    """Against finite differences in float64: resize, normalisation, backbone, conv heads."""
    network = member(aug_heads="none", base=backbone(12, resize=resize)).network.double()
    network.backbone.double()
    network.requires_grad_(False)
    images = torch.rand(1, 3, 16, 16, dtype=torch.float64) * 3 - 1.5  # beyond [-1, 1] as well

    def logit(x):
        maps, pooled = network.backbone.network.levels(prepared(x))
        heads = zip(network.head.network.levels, maps)  # what is fully connected stays float32
        return sum(head(m).square().sum() for head, m in heads) + pooled.square().sum()

    def prepared(x):
        fed = network.backbone.input
        return normalise(resize_unclamped(x / 2 + 0.5, fed.size, fed.resize), fed)

    x = images.clone().requires_grad_()
    logit(x).backward()
    rng = np.random.default_rng(0)
    for _ in range(20):
        place = tuple(int(rng.integers(s)) for s in images.shape)
        moved = images.clone()
        moved[place] += 1e-5
        numeric = (logit(moved) - logit(images)).item() / 1e-5
        assert x.grad[place].item() == pytest.approx(numeric, abs=1e-4, rel=1e-3)
    assert (x.grad != 0).all()


class Depthwise(nn.Module):
    """A strided depthwise convolution in bf16, whose gradient on a CPU is our own."""

    def __init__(self, kernel, stride, padding):
        super().__init__()
        torch.manual_seed(0)
        self.spread = nn.Conv2d(3, 8, 1)
        self.thin = nn.Conv2d(8, 8, kernel, stride, padding, groups=8)

    def levels(self, x):
        x = self.thin(torch.tanh(self.spread(x)))
        return [x], x.mean(dim=(2, 3))


@pytest.mark.parametrize(
    ("side", "kernel", "stride", "padding"),
    [(16, 3, 2, 1), (15, 3, 2, 1), (17, 5, 2, 0), (16, 5, 3, 2), (16, (3, 5), (1, 2), (0, 1))],
)
def test_the_quick_gradient_of_a_strided_depthwise_convolution(
    side, kernel, stride, padding, monkeypatch
):
    net = Depthwise(kernel, stride, padding)
    shape = tuple(net.levels(torch.zeros(1, 3, side, side))[0][0].shape[1:])
    fed = InputSpec(side, (0.5,) * 3, (0.5,) * 3)
    network = member(base=Backbone("net", net, fed, dim=8, map_shapes=[shape])).network
    images, weights = torch.rand(2, 3, side, side) * 2 - 1, torch.randn(shape)
    found, slow = [], depthwise.is_slow_depthwise
    monkeypatch.setattr(
        depthwise, "is_slow_depthwise", lambda *args: found.append(slow(*args)) or found[-1]
    )

    def gradient(precision, features):
        x = images.clone().requires_grad_()
        with autocast(CPU, precision):
            (features(x)[0][0] * weights).sum().backward()
        return x.grad

    quick = gradient("bf16", network.features)
    assert found == [False, True]
    exact = gradient("fp32", lambda x: network.backbone.levels((x / 2 + 0.5 - 0.5) / 0.5))
    assert (quick - exact).abs().max() < 0.02 * exact.abs().max()
    assert torch.equal(quick, gradient("bf16", network.features))
    assert torch.allclose(gradient("fp32", network.features), exact, atol=1e-5)
    assert not any(found[-2:])


def test_the_sum_of_losses_has_the_sum_of_gradients():
    members = [own(aug="none"), member(aug_heads="none"), member(aug_heads="none", seed=1)]
    fakes = torch.randn(4, 3, 16, 16)
    together, losses = generator_gradient(members, Minibatch(fakes), STEP)
    images = fakes.clone().requires_grad_()
    total = sum(m.loss.generator(m.network(images, None), m.generator_target) for m in members)
    total.backward()
    torch.testing.assert_close(together, images.grad, rtol=1e-4, atol=1e-6)
    assert losses["Loss/G/loss"].item() > 0


def own(**options):
    torch.manual_seed(0)
    chosen = config(**options)
    return own_member(chosen, Discriminator(0, 16, 3, channel_base=128, channel_max=8))


def test_the_backbone_is_in_no_optimizer_and_no_state_and_never_moves():
    found = member()
    before = {k: v.clone() for k, v in found.network.backbone.state_dict().items()}
    frozen = {id(p) for p in found.network.backbone.parameters()}
    optimised = {id(p) for g in found.optimizer.param_groups for p in g["params"]}
    assert optimised and not optimised & frozen
    assert not any("backbone" in name or "norm" in name for name in found.state_dict()["network"])
    found.network.train()
    assert not found.network.backbone.training
    reals, fakes = torch.randn(4, 3, 16, 16), torch.randn(4, 3, 16, 16)
    head = {k: v.clone() for k, v in found.network.state_dict().items()}
    discriminator_step(found, Minibatch(reals), Minibatch(fakes), STEP)
    generator_gradient([found], Minibatch(fakes), STEP)
    for name, value in found.network.backbone.state_dict().items():
        assert torch.equal(value, before[name]), name
    moved = [k for k, v in found.network.state_dict().items() if not torch.equal(v, head[k])]
    assert any("weight" in name for name in moved)


def test_the_generators_step_leaves_discriminators_alone():
    members = [own(), member()]
    before = [{k: v.clone() for k, v in m.network.state_dict().items()} for m in members]
    generator_gradient(members, Minibatch(torch.randn(4, 3, 16, 16)), STEP)
    for m, old in zip(members, before):
        assert all(torch.equal(v, old[k]) for k, v in m.network.state_dict().items())
        assert all(p.grad is None for p in m.network.parameters())


def test_a_head_learns_to_tell_reals_from_fakes():
    found = member(aug_heads="none")
    rng = torch.Generator().manual_seed(0)
    for _ in range(200):
        reals = torch.rand(4, 3, 16, 16, generator=rng)
        fakes = -torch.rand(4, 3, 16, 16, generator=rng)
        stats = discriminator_step(found, Minibatch(reals), Minibatch(fakes), STEP)
    assert stats["Loss/scores/net/real"] > 1 and stats["Loss/scores/net/fake"] < -1


def test_each_member_draws_its_own_augmentation_and_cuts_out_only_before_backbones():
    images = torch.rand(4, 3, 16, 16) + 0.5
    first, second = member(), member()
    second.name = "other"
    a, b = (m.augment(images, "real", STEP) for m in (first, second))
    assert not torch.equal(a, b)
    assert all((image == 0).float().mean() > 0.02 for image in a)  # grey squares at p = 0
    assert torch.equal(own().augment(images, "real", STEP), images)
    again = first.augment(images, "real", STEP)
    assert torch.equal(a, again)
    assert not torch.equal(a, first.augment(images, "real", Step(seen=4)))


def test_augmentation_of_a_share_is_a_share_of_the_augmentation():
    images = torch.rand(8, 3, 16, 16)
    found = member(aug_p=0.7)
    whole = found.augment(images, "real", STEP)
    for rank in range(2):
        part = found.augment(images[rank::2], "real", Step(processes=Processes(rank, 2)))
        torch.testing.assert_close(part, whole[rank::2], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("accuracy", "options", "smoothed"),
    [(0.91, {}, True), (0.9, {}, False), (0.5, {"aug_heads": "diffaugment"}, True),
     (0.99, {"smooth": "never"}, False), (0.1, {"smooth": "always"}, True)],
)  # fmt: skip
def test_the_rule_of_smoothing(accuracy, options, smoothed):
    assert head_options(config(**options)).is_smoothed(accuracy) is smoothed


def test_a_new_head_leaves_the_global_random_state_alone():
    base = backbone()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, two = member(base=base), member(base=base)
    assert torch.equal(torch.rand(3), expected)
    for a, b in zip(one.network.parameters(), two.network.parameters()):
        assert torch.equal(a, b)


def test_classes_reach_the_head():
    found = member(c_dim=3)
    images = torch.randn(2, 3, 16, 16)
    logits = [found.network(images, torch.eye(3)[[i, i]])[-1] for i in range(2)]
    assert not torch.allclose(*logits)


SPECS = load_bank().specs


@pytest.mark.parametrize("entry", [s for s in SPECS if s.role != "control"], ids=lambda s: s.name)
def test_every_entry_of_the_bank_gets_a_head(entry):
    """Random weights: shapes decide. Conv or transformer, no code for a name."""
    from probe.bank.sources import SOURCES

    with torch.random.fork_rng(devices=[]):
        base = wrap(entry, SOURCES[entry.source].build(entry, None))
    found = vision_member(head_options(config()), base)
    gradient, _ = generator_gradient([found], Minibatch(torch.rand(1, 3, 64, 64) * 2 - 1), STEP)
    assert gradient.isfinite().all() and gradient.abs().sum() > 0
    with torch.no_grad():
        levels = found.network(torch.rand(1, 3, 64, 64), None)
    assert len(levels) == (1 if len(base.map_shapes) < 2 else len(base.map_shapes) + 1)
    assert levels[-1].shape == (1,)


def test_minibatch_std_sees_a_collapsed_batch():
    same = torch.randn(1, 2, 4, 4).expand(8, -1, -1, -1)
    assert minibatch_std(same, 4)[:, 2].max() < 1e-3
    spread = torch.randn(8, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    channel = minibatch_std(spread, 4)[:, 2]
    expected = spread.reshape(4, 2, 2, 4, 4).var(dim=0, correction=0).sqrt().mean(dim=(1, 2, 3))
    torch.testing.assert_close(channel[:2, 0, 0], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("count", "c_dim"), [(8, 0), (2, 3)])  # 2 are fewer than a group
def test_batches_in_one_pass_do_not_see_each_other(count, c_dim):
    torch.manual_seed(0)
    network = Discriminator(c_dim, 16, 3, channel_base=128, channel_max=8)
    reals, fakes = torch.randn(count, 3, 16, 16), 3 * torch.randn(count, 3, 16, 16)
    c = torch.eye(3)[torch.arange(count) % 3] if c_dim else None
    both = network(torch.cat([reals, fakes]), None if c is None else torch.cat([c, c]), batches=2)
    torch.testing.assert_close(both, torch.cat([network(reals, c), network(fakes, c)]))
    as_one = network(torch.cat([reals, fakes]), None if c is None else torch.cat([c, c]))
    assert (both - as_one).abs().max() > 1e-3


@pytest.mark.parametrize("c_dim", [0, 3])
def test_discriminator_shape_and_gradient(c_dim):
    network = Discriminator(c_dim, 32, 3, channel_base=128, channel_max=8)
    images = torch.randn(4, 3, 32, 32, requires_grad=True)
    classes = torch.eye(3)[[0, 1, 2, 0]] if c_dim else None
    logits = network(images, classes)
    assert logits.shape == (4,)
    logits.sum().backward()
    assert images.grad.abs().sum() > 0


def test_gradients_lie_in_memory_like_their_weights():
    # The optimizer goes through both as they lie in memory; another layout would mix up weights.
    made = make_plan(TrainConfig(batch=4, pl_weight=2.0), resolution=16, images=100).config
    state = new_state(made)
    reals = torch.rand(4, 3, 16, 16).mul(2).sub(1)
    train_step(state, Minibatch(reals), session(made))
    for network in (state.generator, state.members[0].network):
        for name, parameter in network.named_parameters():
            if parameter.grad is not None:
                assert parameter.grad.stride() == parameter.stride(), name
    for optimizer in (state.generator_optimizer, state.members[0].optimizer):
        for parameter, moments in optimizer.state.items():
            assert moments["exp_avg"].stride() == parameter.stride()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("c_dim", [0, 3])
@pytest.mark.parametrize("norm", ["equalised", "spectral"])
def test_a_head_becomes_flatter_where_reals_lie(norm, c_dim, precision):
    made = config(head_norm=norm, gamma_heads=100.0)
    weight = made.gamma_heads * made.r1_interval
    trained = vision_member(head_options(made), backbone(), c_dim=c_dim)
    frozen = {k: v.clone() for k, v in trained.network.backbone.network.state_dict().items()}
    rng = torch.Generator().manual_seed(0)
    reals = torch.rand(4, 3, 16, 16, generator=rng).mul(2).sub(1)
    classes = torch.eye(c_dim)[torch.arange(4) % c_dim] if c_dim else None

    def penalty():
        found = head_r1_step(trained, Minibatch(reals, classes), weight, Step(precision=precision))
        return found["Loss/r1_penalty/net"].item()

    values = [penalty() for _ in range(12)]
    assert values[-1] < 0.8 * values[0]
    for name, value in trained.network.backbone.network.state_dict().items():
        assert torch.equal(value, frozen[name])
