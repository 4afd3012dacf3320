"""The old package's calls, as public trainers make them, and its heads and losses as an oracle."""

import sys
import types

import packaging
import packaging.version
import pytest
import torch
from torch import nn

import probe
from probe.compat import vision_aided_loss
from probe.discriminators.heads import Head, set_activation

ENTRY = """
- name: {name}
  source: timm
  model: {model}
  weights: {{random: 0}}
  input: {side}
  mean: [0.5, 0.5, 0.5]
  std: [0.5, 0.5, 0.5]
  taps: {taps}
  task: none
  data: none
  license: none
  role: control
"""
ENTRIES = [
    ("clip-vit-b32", "test_vit", "[0, 1]", 160),
    ("dino-vit-b16", "test_vit2", "[0, 1]", 64),
    ("vgg16-antialiased", "test_resnet", "[4]", 64),
    ("mine", "test_resnet", "[4]", 32),
]


@pytest.fixture
def bank(tmp_path, monkeypatch):
    """Small networks under the names of the large ones, in the working directory."""
    text = "".join(ENTRY.format(name=n, model=m, taps=t, side=s) for n, m, t, s in ENTRIES)
    (tmp_path / "modelbank.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)


def pictures(seed=0, n=2, side=32):
    rng = torch.Generator().manual_seed(seed)
    return torch.rand(n, 3, side, side, generator=rng) * 2 - 1


def test_the_readme_of_the_package(bank):
    discr = vision_aided_loss.Discriminator(
        cv_type="clip", loss_type="multilevel_sigmoid_s", device="cpu"
    ).to("cpu")
    discr.cv_ensemble.requires_grad_(False)
    real, fake = pictures(1), pictures(2).requires_grad_()
    loss = discr(real, for_real=True) + discr(fake.detach(), for_real=False)
    assert loss.shape == (2, 1)
    loss.mean().backward()
    assert all(p.grad is not None for p in discr.parameters())
    discr(fake, for_G=True).mean().backward()
    assert fake.grad.abs().sum() > 0


def test_pix2pix_turbo(bank):
    net_disc = vision_aided_loss.Discriminator(
        cv_type="clip", loss_type="multilevel_sigmoid_s", device="cpu"
    )
    net_disc.requires_grad_(True)
    net_disc.cv_ensemble.requires_grad_(False)
    net_disc.train()
    assert not any(n.backbone.training for n in net_disc.critics.networks)
    optimizer = torch.optim.AdamW(net_disc.parameters(), lr=1e-4)
    generator = nn.Conv2d(3, 3, 3, padding=1)
    prediction = generator(pictures(3)).clamp(-1, 1)
    (net_disc(prediction, for_G=True).mean() * 0.5).backward()
    assert generator.weight.grad.abs().sum() > 0
    optimizer.zero_grad(set_to_none=True)
    before = [p.clone() for p in net_disc.parameters()]
    for images, real in ((pictures(4), True), (prediction.detach(), False)):
        optimizer.zero_grad(set_to_none=True)
        (net_disc(images.detach(), for_real=real).mean() * 0.5).backward()
        nn.utils.clip_grad_norm_(net_disc.parameters(), 1.0)
        optimizer.step()
    assert not all(torch.equal(a, b) for a, b in zip(before, net_disc.parameters()))


def test_one_step_super_resolution(bank):
    net_disc = vision_aided_loss.Discriminator(
        cv_type="dino", output_type="conv_multi_level", loss_type="multilevel_sigmoid_s",
        device="cpu",
    )  # fmt: skip
    loss = net_disc(pictures(side=48), for_G=True)
    assert loss.shape == (2, 1) and loss.requires_grad
    assert len(list(net_disc.decoder)) == 1


def test_cyclegan_turbo_has_two(bank):
    first, second = (
        vision_aided_loss.Discriminator("clip", loss_type="multilevel_sigmoid", device="cpu")
        for _ in range(2)
    )
    assert not {id(p) for p in first.parameters()} & {id(p) for p in second.parameters()}
    parameters = [*first.parameters(), *second.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4)
    (first(pictures(), for_real=False) + second(pictures(1), for_real=True)).mean().backward()
    optimizer.step()


@pytest.mark.parametrize("cv_type", ["clip+vgg", ["clip", "vgg"]])
def test_several_backbones(bank, cv_type):
    made = vision_aided_loss.Discriminator(
        cv_type, output_type="conv_multi_level+conv", loss_type="multilevel_sigmoid+hinge",
        diffaug=False,
    )  # fmt: skip
    alone = [
        vision_aided_loss.Discriminator(name, loss_type=loss, diffaug=False)
        for name, loss in (("clip", "multilevel_sigmoid"), ("vgg", "hinge"))
    ]
    for one in (made, *alone):
        one.eval()
    images = pictures()
    assert torch.allclose(made(images, for_G=True), sum(one(images, for_G=True) for one in alone))
    assert made.num_models == len(made.decoder) == 2


@pytest.mark.parametrize("nothing", [None, ""])
def test_logits_without_a_loss(bank, nothing):
    made = vision_aided_loss.Discriminator("clip+mine", loss_type=nothing)
    levels, single = made(pictures())
    assert [x.ndim for x in levels] == [3, 3, 2] and levels[-1].shape == single.shape == (2, 1)


def test_outputs_decide_the_heads(bank):
    def count(output):
        found = vision_aided_loss.Discriminator("clip", output_type=output)(pictures())[0]
        return len(found) if isinstance(found, list) else 1

    assert [count(o) for o in ("conv_multi_level", "conv", "vector")] == [3, 1, 1]


def test_classes_detach_and_an_optimizer(bank):
    made = vision_aided_loss.Discriminator(
        "vgg", output_type="conv", loss_type="hinge", num_classes=3, create_optim=True,
        activation=nn.ReLU(), D_lr=0.01, D_B1=0.0, D_B2=0.999, adam_eps=1e-6, D_init="N02",
    )  # fmt: skip
    images = pictures().requires_grad_()
    loss = made(images, torch.tensor([0, 2]), detach=True, for_real=False)
    assert loss.shape == ()
    loss.backward()
    assert images.grad is None
    (group,) = made.optim.param_groups
    assert (group["lr"], group["betas"], group["eps"]) == (0.01, (0.0, 0.999), 1e-6)
    made.optim.step()


def test_the_state_is_that_of_the_heads(bank, tmp_path):
    one, two = (
        vision_aided_loss.Discriminator("clip", loss_type="sigmoid", diffaug=False).eval()
        for _ in range(2)
    )
    with torch.no_grad():
        for p in one.parameters():
            p.add_(0.1)
    torch.save(one.state_dict(), tmp_path / "d.pt")
    two.load_state_dict(torch.load(tmp_path / "d.pt", weights_only=True))
    assert torch.equal(one(pictures()), two(pictures()))
    assert len(one.cv_ensemble(pictures())) == 1 and not list(one.cv_ensemble.parameters())


@pytest.mark.parametrize(
    ("call", "found"),
    [
        ({"cv_type": "face_seg"}, "its weights are in no registry"),
        ({"cv_type": "clop"}, "Unknown backbone 'clop'"),
        ({"cv_type": "vgg", "loss_type": "sigmoyd"}, "Did you mean 'sigmoid'?"),
        ({"cv_type": "vgg", "output_type": "pool"}, "conv, conv_multi_level or vector"),
        ({"cv_type": "clip+vgg+mine", "loss_type": "hinge+hinge"}, "2 values for 3 backbones"),
        ({"cv_type": "vgg", "activation": nn.GELU()}, "Use LeakyReLU(0.2) or ReLU()"),
    ],
)
def test_calls_that_cannot_work(bank, call, found):
    with pytest.raises(probe.ProbeError) as caught:
        vision_aided_loss.Discriminator(**call)
    assert found in str(caught.value) and "\n" not in str(caught.value)


# The package itself


@pytest.fixture
def package(monkeypatch):
    """Import the package without what it only needs to download weights."""
    for name, contents in (("gdown", {}), ("pkg_resources", {"packaging": packaging})):
        module = types.ModuleType(name)
        vars(module).update(contents)
        monkeypatch.setitem(sys.modules, name, module)
    reason = "pip install --no-deps vision_aided_loss==0.1.0 antialiased_cnns==0.3"
    pytest.importorskip("antialiased_cnns", reason=reason)
    pytest.importorskip("vision_aided_loss", reason=reason)
    from vision_aided_loss import cv_discriminator, cv_losses

    return types.SimpleNamespace(heads=cv_discriminator, losses=cv_losses)


HEADS = {
    "clip": ([(768, 7, 7)] * 2, 512, lambda p, **o: p.MultiLevelDViT(level=3, **o)),
    "dino": (
        [(768, 14, 14)] * 2, 768,
        lambda p, **o: p.MultiLevelDViT(level=3, in_ch2=768, out_ch=128, down=2, **o),
    ),
    "vgg": ([(512, 7, 7)], 512, lambda p, **o: p.SimpleD(in_ch=512, **o)),
    "swin": ([(768, 7, 7)], 768, lambda p, **o: p.SimpleD(**o)),
    "det_coco": ([(768, 8, 8)], 768, lambda p, **o: p.SimpleD(out_size=4, **o)),
    "clip as a vector": ([], 512, lambda p, **o: p.MLPD(in_ch=512, **o)),
}  # fmt: skip


@torch.no_grad()
def copy_weights(theirs, ours):
    """Give our head the weights and singular vectors of the package's, layer by layer."""
    layers = [m for m in theirs.modules() if hasattr(m, "weight_orig")]
    mine = [
        m for m in ours.modules() if hasattr(m, "weight_gain") and hasattr(m, "parametrizations")
    ]
    for layer, own in zip(layers, mine, strict=True):
        weight = own.parametrizations.weight
        weight.original.copy_(layer.weight_orig)
        weight[0]._u.copy_(layer.weight_u)
        weight[0]._v.copy_(layer.weight_v)
        own.bias.copy_(layer.bias)
    if (
        getattr(theirs, "embed", None) is not None
    ):  # ours is scaled by both widths; see docs/training.md
        embed = ours.network.final.embed if hasattr(ours.network, "final") else ours.network.embed
        classes, width = theirs.embed.weight.shape
        embed.weight.copy_(theirs.embed.weight.T * (classes * width) ** 0.5)
        embed.bias.zero_()


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("activation", ["lrelu", "relu"])
@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("name", HEADS)
def test_heads_are_those_of_the_package(package, name, classes, activation):
    maps, dim, make = HEADS[name]
    torch.manual_seed(0)
    module = nn.ReLU() if activation == "relu" else nn.LeakyReLU(0.2)
    theirs = make(package.heads, num_classes=classes, activation=module)
    features = [torch.randn(4, *shape) for shape in maps], torch.randn(4, dim)
    given = [*features[0], features[1]] if len(maps) > 1 else [*features[0], features[1]][0]
    labels = torch.tensor([0, 2, 1, 0]) if classes else None
    theirs.train()(given, labels)  # one power iteration
    ours = Head(maps, dim, c_dim=classes, norm="spectral")
    set_activation(ours, activation)
    copy_weights(theirs, ours)
    with torch.no_grad():
        expected = theirs.eval()(given, labels)
        found = ours.eval()(*features, None if labels is None else torch.eye(3)[labels])
    expected = expected if isinstance(expected, list | tuple) else [expected]
    assert len(found) == len(expected)
    for a, b in zip(found, expected):
        assert (a.flatten() - b.flatten()).abs().max() < 1e-5
        assert b.abs().max() > 1e-3


class Fixed(nn.Module):
    """Levels of logits instead of a head."""

    def __init__(self, levels):
        super().__init__()
        self.levels = levels

    def forward(self, maps, pooled, c):
        return self.levels


@pytest.mark.parametrize("call", [{"for_real": True}, {"for_real": False}, {"for_G": True}, {}])
@pytest.mark.parametrize("loss", ["sigmoid", "sigmoid_s", "hinge"])
@pytest.mark.parametrize("levels", [True, False])
def test_losses_are_those_of_the_package(bank, package, call, loss, levels):
    torch.manual_seed(0)
    logits = [torch.randn(2, 3, 3) * 3, torch.randn(2, 3, 3) * 3, torch.randn(2) * 3]
    logits = logits if levels else logits[-1:]
    name = f"multilevel_{loss}" if levels else loss
    made = vision_aided_loss.Discriminator("vgg", loss_type=name)
    made.critics.networks[0].head.network = Fixed(logits)
    found = made(pictures(), **call)
    theirs = [*logits[:-1], logits[-1][:, None]]
    expected = package.losses.losses_list(name)([theirs if levels else theirs[0]], **call)
    expected = expected if isinstance(expected, torch.Tensor) else sum(expected)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1e-5
