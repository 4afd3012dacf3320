"""`probe.Discriminators`, as someone uses it in a loop of their own."""

import copy
import warnings

import pytest
import safetensors.torch
import torch
import torch.multiprocessing
from inputs import write_judged_bank
from test_member import Depthwise, backbone, config, member
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.profiler import ProfilerActivity, profile

import probe
from probe.bank.base import Backbone, InputSpec
from probe.discriminators.gradient import generator_gradient
from probe.discriminators.member import discriminator_step
from probe.discriminators.step import Minibatch, Step
from probe.training.own import head_options
from probe.training.step import head_r1_step

PLAIN = probe.DiscriminatorOptions(augmentation="none")


@pytest.fixture
def judged_bank(tmp_path):
    return write_judged_bank(tmp_path)


def another(name="other", size=12, **options):
    """A second backbone, whose input has another size."""
    found = backbone(size, **options)
    found.name = name
    return found


def critics(*options, **kwargs):
    made = probe.Discriminators(*options, **kwargs)
    made.add(backbone(), digest="one")
    made.add(another(), digest="two")
    return made


def images(n=4, *size, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.rand(n, 3, *(size or (16, 16)), generator=rng) * 2 - 1


def test_losses_and_gradients_are_those_of_the_trainer():
    """The bundled trainer's step, and a loop with this module: the same numbers, bit for bit."""
    options = head_options(config(aug_heads="ada", aug_p=0.5))
    made = critics(options)
    trained = [member(base=base, aug_p=0.5) for base in (backbone(), another())]
    fakes, reals = images(seed=1).requires_grad_(), images(seed=2)
    expected, logged = generator_gradient(trained, Minibatch(fakes), Step(0))
    loss = made.generator_loss(fakes)
    loss.backward()
    torch.testing.assert_close(fakes.grad, expected, rtol=1e-5, atol=1e-7)
    assert loss.item() == pytest.approx(sum(logged.values()).item(), rel=1e-6)
    assert all(torch.equal(made.statistics[name], value) for name, value in logged.items())
    optimizer = made.optimizer()
    made.discriminator_loss(reals, fakes).backward()
    optimizer.step()
    for network, one in zip(made.networks, trained):
        stats = discriminator_step(one, Minibatch(reals), Minibatch(fakes.detach()), Step(1))
        assert all(torch.equal(made.statistics[name], value) for name, value in stats.items())
        for a, b in zip(network.parameters(), one.network.parameters()):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_the_penalty_is_that_of_the_trainer():
    options = probe.DiscriminatorOptions(augmentation="none", r1_interval=2, smooth="never")
    plain, penalised = probe.Discriminators(options), probe.Discriminators(options, gamma=3.0)
    for made in (plain, penalised):
        made.add(backbone())
    one = member(aug_heads="none")
    fakes, reals = images(seed=1), images(seed=2)
    found = [
        penalised.discriminator_loss(reals, fakes) - plain.discriminator_loss(reals, fakes)
        for _ in range(4)
    ]
    penalty = head_r1_step(one, Minibatch(reals), 0.0, Step())["Loss/r1_penalty/net"].item()
    due = pytest.approx(3 / 2 * 2 * penalty, rel=1e-4)
    assert [f.item() for f in found] == [due, pytest.approx(0, abs=1e-6)] * 2
    found[0].backward()
    assert any(p.grad.abs().sum() > 0 for p in penalised.parameters())


def test_only_the_heads_are_parameters_and_state():
    made = critics()
    frozen = {id(p) for network in made.networks for p in network.backbone.parameters()}
    assert frozen and not frozen & {id(p) for p in made.parameters()}
    made.requires_grad_(True)
    assert made.train() is made
    for network in made.networks:
        assert not network.backbone.training and network.head.training
        assert not any(p.requires_grad for p in network.backbone.parameters())
    state = made.state_dict()
    assert not [key for key in state if ".head." not in key and key != "_extra_state"]
    assert all(isinstance(value, torch.Tensor) for value in state.values())


def test_the_generators_loss_leaves_the_heads_alone():
    made = critics()
    fakes = images().requires_grad_()
    made.generator_loss(fakes).backward()
    assert fakes.grad.abs().sum() > 0
    assert all(p.grad is None and p.requires_grad for p in made.parameters())
    reals = images(seed=1).requires_grad_()
    fakes.grad = None
    made.discriminator_loss(reals, fakes).backward()
    assert reals.grad is None and fakes.grad is None
    assert all(p.grad is not None for p in made.parameters())


def test_a_generator_and_its_discriminators_train_together():
    torch.manual_seed(0)
    generator = nn.Sequential(nn.Linear(4, 3 * 16 * 16), nn.Tanh(), nn.Unflatten(1, (3, 16, 16)))
    made = critics(PLAIN)
    ours, theirs = torch.optim.Adam(generator.parameters(), 3e-2, (0.0, 0.99)), made.optimizer()
    reals = images(8) * 0.1 - 0.8
    for _ in range(60):
        fakes = generator(torch.randn(8, 4))
        theirs.zero_grad()
        made.discriminator_loss(reals, fakes).backward()
        theirs.step()
        ours.zero_grad()
        made.generator_loss(generator(torch.randn(8, 4))).backward()
        ours.step()
    assert generator(torch.randn(64, 4)).mean() < -0.4


def test_a_compiled_generator():
    generator = nn.Sequential(nn.Linear(4, 3 * 8 * 8), nn.Tanh(), nn.Unflatten(1, (3, 8, 8)))
    compiled, z = torch.compile(generator, backend="aot_eager"), torch.randn(2, 4)
    gradients = []
    for one in (generator, compiled):
        generator.zero_grad()
        critics(PLAIN).generator_loss(one(z)).backward()
        gradients.append(generator[0].weight.grad.clone())
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("size", [(16, 16), (8, 8), (33, 20), (9, 64)])
@pytest.mark.parametrize("augmentation", ["ada", "diffaugment", "none"])
def test_images_of_any_size(size, augmentation):
    made = critics(probe.DiscriminatorOptions(augmentation=augmentation, p=0.8))
    fakes = images(2, *size).requires_grad_()
    made.generator_loss(fakes).backward()
    assert fakes.grad.shape == fakes.shape and fakes.grad.isfinite().all()
    assert made.discriminator_loss(images(2, *size), fakes).isfinite()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    made, exact = critics(PLAIN), critics(PLAIN)
    fakes = images().requires_grad_()
    with torch.autocast("cpu", dtype=dtype):
        loss = made.generator_loss(fakes)
        judged = made.discriminator_loss(images(seed=1), fakes)
    (loss + judged).backward()
    assert loss.dtype == judged.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.generator_loss(fakes).item(), rel=0.05)
    assert loss.item() != exact.generator_loss(fakes).item()
    assert fakes.grad.isfinite().all()
    low = images().to(dtype).requires_grad_()
    made.generator_loss(low).backward()
    assert low.grad.dtype == dtype


def test_recomputing_the_backbone_changes_nothing():
    made, sparing = critics(PLAIN), critics(PLAIN, checkpoint=True)
    gradients = []
    for one in (made, sparing):
        fakes = images().requires_grad_()
        one.generator_loss(fakes).backward()
        gradients.append(fakes.grad)
    assert torch.equal(*gradients)


def test_recomputing_the_backbone_in_half_precision():
    net = Depthwise(3, 2, 1)
    shape = tuple(net.levels(torch.zeros(1, 3, 16, 16))[0][0].shape[1:])
    gradients = []
    for checkpoint in (False, True):
        made = probe.Discriminators(PLAIN, checkpoint=checkpoint)
        fed = InputSpec(16, (0.5,) * 3, (0.5,) * 3)
        made.add(Backbone("net", net, fed, dim=8, map_shapes=[shape]))
        fakes = images().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = made.generator_loss(fakes)
        loss.backward()
        gradients.append(fakes.grad)
    assert torch.equal(*gradients)


def test_gradients_accumulate():
    whole, parts = critics(PLAIN), critics(PLAIN)
    reals, fakes = images(8, seed=1), images(8, seed=2)
    whole.discriminator_loss(reals, fakes).backward()
    for part in (slice(0, 4), slice(4, 8)):
        (parts.discriminator_loss(reals[part], fakes[part]) / 2).backward()
    for a, b in zip(whole.parameters(), parts.parameters()):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-6)


def test_each_call_draws_anew_and_a_seed_repeats_it():
    options = probe.DiscriminatorOptions(augmentation="diffaugment", seed=3)
    fakes = images()
    first, again = (
        [made.generator_loss(fakes).item() for _ in range(3)]
        for made in (critics(options), critics(options))
    )
    assert first == again and len(set(first)) == 3
    other = critics(probe.DiscriminatorOptions(augmentation="diffaugment", seed=4))
    assert other.generator_loss(fakes).item() not in first


def test_in_eval_mode_nothing_moves():
    made = critics(probe.DiscriminatorOptions(norm="spectral", target=-1.0)).eval()
    before = {name: value.clone() for name, value in made.state_dict().items()}
    losses = [made.discriminator_loss(images(), images(seed=1)).item() for _ in range(5)]
    assert len(set(losses)) == 1
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())


def test_p_follows_the_reals_in_every_fourth_call():
    made = critics(probe.DiscriminatorOptions(target=-1.5))
    for _ in range(3):
        made.discriminator_loss(images(), images(seed=1))
    assert "Progress/augment/net" not in made.statistics
    made.discriminator_loss(images(), images(seed=1))
    assert made.statistics["Progress/augment/net"].item() == pytest.approx(16 / 500_000)
    fixed = critics(probe.DiscriminatorOptions(target=-1.5, p=0.25))
    for _ in range(4):
        fixed.discriminator_loss(images(), images(seed=1))
    assert "Progress/augment/net" not in fixed.statistics


def test_weights_and_losses_of_each_member():
    made = critics(PLAIN)
    fakes = images()
    parts = {}
    for name in ("net", "other"):
        made.weights = {"net": 0.0, "other": 0.0, name: 1.0}
        parts[name] = made.generator_loss(fakes).item()
    made.weights = {"net": 0.5, "other": 2.0}
    assert made.generator_loss(fakes).item() == pytest.approx(
        0.5 * parts["net"] + 2 * parts["other"], rel=1e-5
    )
    assert made.statistics["Loss/G/net"].item() == pytest.approx(parts["net"])


def test_the_three_losses():
    fakes = images()
    made = probe.Discriminators(PLAIN)
    found = {
        name: made.add(another(name), options=probe.DiscriminatorOptions(augmentation="none", **o))
        for name, o in (
            ("sigmoid", {"smooth": "never"}), ("smoothed", {"smooth": "always"}),
            ("hinge", {"loss": "hinge"}),
        )
    }  # fmt: skip
    heads = list(found.values())
    for head in heads[1:]:
        head.load_state_dict(heads[0].state_dict())
    made.generator_loss(fakes)
    with torch.no_grad():
        levels = made.networks[0](fakes, None)
    bce = nn.functional.binary_cross_entropy_with_logits
    expected = {
        "sigmoid": sum(bce(x, torch.ones_like(x)) for x in levels),
        "smoothed": sum(bce(x, torch.full_like(x, 0.8)) for x in levels),
        "hinge": -sum(x.mean() for x in levels),
    }
    for name, value in expected.items():
        torch.testing.assert_close(made.statistics[f"Loss/G/{name}"], value)


def test_classes_as_integers_or_one_hot():
    made = critics(PLAIN, num_classes=3)
    fakes, classes = images(), torch.tensor([0, 1, 2, 0])
    one = made.generator_loss(fakes, classes)
    assert torch.equal(one, made.generator_loss(fakes, torch.eye(3)[classes]))
    assert not torch.equal(one, made.generator_loss(fakes, classes.flip(0)))
    made.discriminator_loss(fakes, fakes, classes, classes).backward()
    assert all(p.grad is not None for p in made.parameters())


def trained(steps=6, **kwargs):
    made = critics(probe.DiscriminatorOptions(target=-1.5), **kwargs)
    optimizer = made.optimizer()
    for i in range(steps):
        optimizer.zero_grad()
        made.discriminator_loss(images(seed=i), images(seed=50 + i)).backward()
        optimizer.step()
    return made


def test_a_state_continues_exactly(tmp_path):
    made = trained()
    made.weights["net"] = 0.5
    for how in ("torch", "safetensors"):
        if how == "torch":
            torch.save(made.state_dict(), tmp_path / "s.pt")
            state = torch.load(tmp_path / "s.pt", weights_only=True)
        else:
            tensors = {name: value.contiguous() for name, value in made.state_dict().items()}
            safetensors.torch.save_file(tensors, tmp_path / "s.safetensors")
            state = safetensors.torch.load_file(tmp_path / "s.safetensors")
        again = critics(probe.DiscriminatorOptions(target=-1.5))
        again.load_state_dict(state)
        original = copy.deepcopy(made)
        for i in range(5):
            a, b = (m.discriminator_loss(images(seed=i), images(seed=9)) for m in (original, again))
            assert torch.equal(a, b)
        assert torch.equal(*(m.generator_loss(images()) for m in (original, again)))
        assert torch.equal(original.get_extra_state(), again.get_extra_state())
        assert again.weights["net"] == 0.5


def test_a_state_inside_a_larger_model():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.critics = critics()

    one, two = Model(), Model()
    one.critics = trained()
    two.load_state_dict(one.state_dict())
    assert torch.equal(one.critics.get_extra_state(), two.critics.get_extra_state())


def test_without_members_the_losses_are_zero_and_backward_runs():
    made = probe.Discriminators()
    fakes = images().requires_grad_()
    (loss := made.generator_loss(fakes)).backward()
    assert loss == 0 and not fakes.grad.any()
    made.discriminator_loss(images(), fakes).backward()
    assert made.backbones == {}


# Ranking and names


def test_from_a_ranking_or_its_folder(judged_bank, reals, fakes, tmp_path):
    ranking = probe.rank(
        reals, fakes, bank=judged_bank, out=tmp_path / "ranking", offline=True,
        options=probe.RankOptions(num=60),
    )  # fmt: skip
    picked = [row.name for row in ranking.leaderboard.rows if row.picked][:1]
    for given in (ranking, tmp_path / "ranking", str(tmp_path / "ranking")):
        made = probe.Discriminators.from_ranking(given, k=1)
        assert list(made.backbones) == picked
    assert made.generator_loss(images(2, 32, 32)).isfinite()
    assert made.networks[0].backbone.name == picked[0]
    with pytest.raises(probe.ProbeError, match="--k: 9 backbones are wanted"):
        probe.Discriminators.from_ranking(ranking, k=9)
    (judged_bank.parent / f"{picked[0]}.pt").write_bytes(
        (judged_bank.parent / "mixed.pt").read_bytes()
    )
    with pytest.raises(probe.ProbeError, match="not those that were ranked; rank again"):
        probe.Discriminators.from_ranking(ranking, k=1)


def test_a_smoothed_target_comes_with_the_accuracy(judged_bank, reals, fakes):
    ranking = probe.rank(reals, fakes, bank=judged_bank, offline=True, backbones=["colour"])
    assert ranking.leaderboard.rows[0].accuracy > 0.9
    made = probe.Discriminators.from_ranking(ranking, k=1)
    named = probe.Discriminators.from_names("colour", bank=judged_bank)
    targets = ['"target": 0.8', '"target": 1.0']
    for one, target in zip((made, named), targets):
        assert target in bytes(one.get_extra_state().tolist()).decode()


def test_reals_against_reals_have_no_winner(judged_bank, reals):
    images = probe.open_images(reals).load(range(60), 32).images
    ranking = probe.rank(images[:30], images[30:], bank=judged_bank, offline=True)
    with pytest.raises(probe.ProbeError, match="No backbone of this ranking tells"):
        probe.Discriminators.from_ranking(ranking, k=1)


def test_from_names_with_options_of_their_own(judged_bank):
    made = probe.Discriminators.from_names(
        "colour, grid", bank=judged_bank,
        options={"grid": probe.DiscriminatorOptions(loss="hinge", augmentation="none")},
    )  # fmt: skip
    assert list(made.backbones) == ["colour", "grid"]
    fakes = images(2, 32, 32)
    made.generator_loss(fakes)
    levels = made.networks[1](fakes, None)
    torch.testing.assert_close(made.statistics["Loss/G/grid"], -levels[0].mean())


# What cannot work


def refusal(call, *args, **kwargs):
    with pytest.raises(probe.ProbeError) as caught:
        call(*args, **kwargs)
    text = str(caught.value)
    assert "\n" not in text and text.endswith(".") and len(text) < 320
    return text


def test_images_that_are_none():
    made = critics(PLAIN)
    good = images()
    bytes_ = torch.zeros(4, 3, 16, 16, dtype=torch.uint8)
    assert "in [-1, 1] are expected, not uint8" in refusal(made.generator_loss, bytes_)
    assert "reals: float images" in refusal(made.discriminator_loss, bytes_, good)
    assert "not the shape (4, 16, 16, 3)" in refusal(made.generator_loss, good.permute(0, 2, 3, 1))
    assert "not the shape (3, 16, 16)" in refusal(made.generator_loss, good[0])
    assert "not the shape (0, 3, 16, 16)" in refusal(made.generator_loss, good[:0])
    assert "7x16 pixels are too small" in refusal(made.generator_loss, good[:, :, :7])
    assert "not a list" in refusal(made.discriminator_loss, [good], good)
    assert "4 reals and 2 fakes" in refusal(made.discriminator_loss, good, good[:2])


def test_values_outside_the_range():
    made = critics(PLAIN)
    good = images()
    found = refusal(made.discriminator_loss, (good + 1) * 127.5, good)
    assert found.startswith("reals: float images (N, 3, H, W) in [-1, 1] are expected, and these")
    assert "images.clamp(-1, 1)" in refusal(made.discriminator_loss, good * 1.2, good)
    assert "fakes:" in refusal(made.generator_loss, (good + 1) * 127.5)
    assert "fakes: " in (text := refusal(made.generator_loss, good * float("nan")))
    assert "hold NaN" in text
    made.generator_loss(good * 3)  # an unclamped generator overshoots
    assert made.discriminator_loss(good, good).isfinite()


def test_reals_that_seem_to_be_in_zero_to_one():
    made = critics(PLAIN)
    with pytest.warns(UserWarning, match="no real is below 0"):
        made.discriminator_loss(images() / 2 + 0.5, images())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made.discriminator_loss(images() / 2 + 0.5, images())  # once


def test_a_loss_that_is_nan_is_named():
    made = critics(PLAIN)
    with torch.no_grad():
        next(made.networks[1].parameters()).fill_(float("nan"))
    for text in (
        refusal(made.generator_loss, images()),
        refusal(made.discriminator_loss, images(), images()),
    ):
        assert text.startswith("The loss of the discriminator on other became NaN or infinite.")


def test_heads_elsewhere_or_in_half_precision():
    made = critics(PLAIN)
    assert "move them with .to('meta')" in refusal(made.generator_loss, images().to("meta"))
    made.to(torch.bfloat16)
    assert "keep them in float32" in refusal(made.generator_loss, images())


def test_labels_that_do_not_fit():
    plain, made = critics(PLAIN), critics(PLAIN, num_classes=3)
    four = torch.tensor([0, 1, 2, 0])
    assert "have no classes" in refusal(plain.generator_loss, images(), four)
    assert "labels of fakes: missing" in refusal(made.generator_loss, images())
    assert "int64 (3,)" in refusal(made.generator_loss, images(), four[:3])
    assert "outside 0 to 2" in refusal(made.generator_loss, images(), four + 1)


def test_backbones_that_are_not_here(judged_bank):
    names = probe.Discriminators.from_names
    assert "Did you mean 'colour'?" in refusal(names, "color", bank=judged_bank)
    assert "in use already" in refusal(names, "colour, colour", bank=judged_bank)
    assert "is the bank's evaluator" in refusal(names, "mixed", bank=judged_bank)
    assert "is not among colour" in refusal(
        names, "colour", bank=judged_bank, options={"grid": PLAIN}
    )
    with pytest.raises(probe.ProbeError, match="^clip-vit-b32: .*; probe bank fetch clip-vit-b32"):
        names("clip-vit-b32", offline=True)
    (judged_bank.parent / "grid.pt").unlink()
    with pytest.raises(probe.ProbeError, match="^grid: .*grid.pt does not exist; put the file"):
        names("grid", bank=judged_bank)


@pytest.mark.parametrize(
    ("option", "found"),
    [({"loss": "hing"}, "Did you mean 'hinge'"), ({"norm": "batch"}, "equalised or spectral"),
     ({"augmentation": "ad"}, "Did you mean 'ada'"), ({"p": 1.5}, "between 0 and 1"),
     ({"smooth": "yes"}, "auto, always or never")],
)  # fmt: skip
def test_options_that_do_not_exist(option, found):
    assert found in refusal(probe.DiscriminatorOptions, **option)


def test_states_of_something_else():
    made = critics(PLAIN)
    before = {name: value.clone() for name, value in made.state_dict().items()}
    alone = probe.Discriminators(PLAIN)
    alone.add(backbone(), digest="one")
    found = refusal(made.load_state_dict, alone.state_dict())
    assert "is of discriminators on net; these are on net, other" in found
    assert 'from_names("net")' in found
    swapped = probe.Discriminators(PLAIN)
    for base, digest in ((backbone(), "one"), (another(), "three")):
        swapped.add(base, digest=digest)
    assert "other weights, input or taps of other" in refusal(
        made.load_state_dict, swapped.state_dict()
    )
    assert "with 3 classes" in refusal(
        made.load_state_dict, critics(PLAIN, num_classes=3).state_dict()
    )
    spectral = critics(probe.DiscriminatorOptions(norm="spectral"))
    assert 'norm="spectral"' in refusal(made.load_state_dict, spectral.state_dict())
    assert "not the state of probe.Discriminators" in refusal(
        made.load_state_dict, nn.Linear(2, 2).state_dict()
    )
    short = {name: value for name, value in made.state_dict().items() if "out.bias" not in name}
    assert "does not fit the heads: " in refusal(made.load_state_dict, short)
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())


# Several processes


def work(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    made = critics(probe.DiscriminatorOptions(target=-1.5), gamma=0.1)
    wrapped = nn.parallel.DistributedDataParallel(made)
    optimizer = torch.optim.SGD(made.parameters(), 0.01)
    generator = nn.parallel.DistributedDataParallel(shift())
    fakes, reals = images(8, seed=1)[rank::2], images(8, seed=2)[rank::2]
    for _ in range(5):
        optimizer.zero_grad()
        wrapped(reals, fakes).backward()
        optimizer.step()
        generator.zero_grad()
        wrapped.module.generator_loss(generator(fakes)).backward()
    gradient = next(generator.parameters()).grad
    torch.save((made.state_dict(), gradient), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def shift():
    module = nn.Conv2d(3, 3, 1)
    with torch.no_grad():
        module.weight.copy_(torch.eye(3)[:, :, None, None])
        module.bias.zero_()
    return module


def test_two_processes_are_one(tmp_path):
    torch.multiprocessing.spawn(work, (str(tmp_path),), nprocs=2)
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    made = critics(probe.DiscriminatorOptions(target=-1.5), gamma=0.1)
    optimizer, generator = torch.optim.SGD(made.parameters(), 0.01), shift()
    for _ in range(5):
        optimizer.zero_grad()
        made.discriminator_loss(images(8, seed=2), images(8, seed=1)).backward()
        optimizer.step()
        generator.zero_grad()
        made.generator_loss(generator(images(8, seed=1))).backward()
    for state, gradient in found:
        torch.testing.assert_close(gradient, next(generator.parameters()).grad, rtol=1e-3,
                                   atol=1e-5)  # fmt: skip
        for name, value in made.state_dict().items():
            if name != "_extra_state":
                torch.testing.assert_close(state[name], value, rtol=1e-4, atol=1e-5)


def test_a_step_takes_no_more_work_than_the_trainers():
    """Counted in operators: backbones and heads run as often, and checks add next to nothing."""
    made = critics(head_options(config(aug_p=0.5)))
    trained = [member(base=base, aug_p=0.5) for base in (backbone(), another())]
    optimizer, reals, fakes = made.optimizer(), images(seed=2), images(seed=1)

    def ours():
        optimizer.zero_grad()
        made.generator_loss(fakes.clone().requires_grad_()).backward()
        made.discriminator_loss(reals, fakes).backward()
        optimizer.step()

    def theirs():
        generator_gradient(trained, Minibatch(fakes), Step(0))
        for one in trained:
            discriminator_step(one, Minibatch(reals), Minibatch(fakes), Step(0))

    counts = []
    for step in (ours, theirs):
        step()
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            step()
        found = {event.key: event.count for event in profiler.key_averages()}
        counts.append({k: n for k, n in found.items() if k.startswith("aten::")})
    for name in ("aten::convolution", "aten::convolution_backward", "aten::mm", "aten::addmm"):
        assert counts[0].get(name) == counts[1].get(name), name
    assert counts[0]["aten::convolution"] > 8
    assert sum(counts[0].values()) < 1.1 * sum(counts[1].values())


def test_no_backbone_is_kept_for_the_generators_backward_pass():
    """The loss's graph has one node: its gradient at the images is there already."""
    fakes = images().requires_grad_()
    loss = critics(PLAIN).generator_loss(fakes * 2)
    ((inner, _), *_) = loss.grad_fn.next_functions
    assert inner.name() == "MulBackward0"
    with torch.no_grad():
        assert critics(PLAIN).generator_loss(fakes).grad_fn is None
    assert critics(PLAIN).generator_loss(images()).grad_fn is None


def test_a_scaled_loss_has_a_scaled_gradient_and_may_be_used_twice():
    """As a gradient scaler and an adaptive weight (VQGAN) need it."""
    made, last = critics(PLAIN), nn.Conv2d(3, 3, 1)
    loss = made.generator_loss(torch.tanh(last(images())))
    (first,) = torch.autograd.grad(loss, last.weight, retain_graph=True)
    (1000 * loss).backward()
    torch.testing.assert_close(last.weight.grad, 1000 * first)


def test_float16_gradients_survive_a_scaler():
    """In float16 the backbones' backward pass comes after the scaling, so nothing underflows."""
    gradients = []
    for half in (False, True):
        made, fakes = critics(PLAIN), images().requires_grad_()
        made.weights = {"net": 1e-6, "other": 1e-6}
        with torch.autocast("cpu", dtype=torch.float16, enabled=half):
            loss = made.generator_loss(fakes)
        (loss * 2.0**20).backward()
        gradients.append(fakes.grad.flatten())
    assert torch.nn.functional.cosine_similarity(*gradients, dim=0) > 0.99


def work_sharded(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    mesh = torch.distributed.init_device_mesh("cpu", (2,))
    generator = fully_shard(shift(), mesh=mesh)
    made = critics(PLAIN)
    wrapped = nn.parallel.DistributedDataParallel(made)
    ours, theirs = torch.optim.SGD(generator.parameters(), 0.1), made.optimizer()
    for i in range(2):
        fakes = generator(images(8, seed=i)[rank::2])
        theirs.zero_grad()
        wrapped(images(8, seed=9)[rank::2], fakes.detach()).backward()
        theirs.step()
        ours.zero_grad()
        made.generator_loss(fakes).backward()
        ours.step()
    torch.save(generator.weight.full_tensor().detach(), f"{folder}/{rank}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def test_a_sharded_generator(tmp_path):
    torch.multiprocessing.spawn(work_sharded, (str(tmp_path),), nprocs=2)
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    generator, made = shift(), critics(PLAIN)
    ours, theirs = torch.optim.SGD(generator.parameters(), 0.1), made.optimizer()
    for i in range(2):
        fakes = generator(images(8, seed=i))
        theirs.zero_grad()
        made.discriminator_loss(images(8, seed=9), fakes.detach()).backward()
        theirs.step()
        ours.zero_grad()
        made.generator_loss(fakes).backward()
        ours.step()
    for weight in found:
        torch.testing.assert_close(weight, generator.weight.detach(), rtol=1e-3, atol=1e-5)


def test_lightning_fabric():
    fabric = pytest.importorskip("lightning_fabric", reason="needs lightning-fabric").Fabric(
        accelerator="cpu", precision="bf16-mixed"
    )
    generator, made = shift(), critics(PLAIN)
    generator, ours = fabric.setup(generator, torch.optim.Adam(generator.parameters()))
    wrapped, theirs = fabric.setup(made, made.optimizer())
    fakes = generator(images())
    fabric.backward(wrapped(images(seed=1), fakes.detach()))
    theirs.step()
    fabric.backward(made.generator_loss(fakes))
    ours.step()
    assert all(p.grad.isfinite().all() for p in (*generator.parameters(), *made.parameters()))
