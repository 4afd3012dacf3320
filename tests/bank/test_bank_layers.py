"""Layers of a network as backbones: how they are named, computed in one pass and kept apart."""

import dataclasses
import json

import pytest
import timm
import torch
from inputs import write_images

from probe.api.context import open_context
from probe.bank.base import Backbone
from probe.bank.file import load_bank
from probe.bank.layers import at_layer, depth, networks, one_each
from probe.bank.load import load_backbone, wrap
from probe.bank.sources import SOURCES
from probe.bank.spec import BackboneSpec, Weights
from probe.discriminators.heads import Head
from probe.errors import BackboneUnavailable, UsageError
from probe.features.pair import Wanted, draw_orders, extract_pair
from probe.images.open import open_images
from probe.probing.leaderboard import Leaderboard, Row
from probe.probing.strategies import worthy

BANK = load_bank()


def names(*given):
    return [spec.name for spec in BANK.select(given)]


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (["dinov2-vit-s14@4,8,12"], ["dinov2-vit-s14@4", "dinov2-vit-s14@8", "dinov2-vit-s14@12"]),
        (["dinov2-vit-s14@4", "8"], ["dinov2-vit-s14@4", "dinov2-vit-s14@8"]),
        (["swin-t@2", "vgg16", "swin-t"], ["vgg16", "swin-t@2", "swin-t"]),
        (["mobilenetv2@features.6", "features.13", "craft*"],
         ["mobilenetv2@features.6", "mobilenetv2@features.13", "craft-vgg16"]),
        (["efficientnet-lite[01]@2", "3"],
         [f"efficientnet-lite{i}@{layer}" for i in (0, 1) for layer in (2, 3)]),
        (["random-resnet18#0@2"], ["random-resnet18#0@2"]),
    ],
)  # fmt: skip
def test_what_names_mean(given, found):
    assert names(*given) == found


def test_presets_have_layers_too_and_are_not_mistaken_for_them():
    assert names("@paper@1")[0] == "clip-vit-b32@1" and len(names("@paper@1")) == 6
    assert names("swin-t@2", "@small") == [
        *names("efficientnet-lite0", "efficientnet-lite1", "mobilenetv2"), "swin-t@2", "swin-t",
        *names("hiera-t-mae", "dinov2-vit-s14", "dinov3-vit-s16", "dinov3-convnext-t",
               "convnextv2-t"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("efficientnet-lite0@0", "whose layers are numbers, from 1"),
        (
            "efficientnet-lite0@2,mobilenetv22",
            "'mobilenetv22' is neither a backbone",
        ),
        ("mobilenetv2@6", "whose layers are names of modules"),
        ("mobilenetv2@", "has no layer after its @"),
        ("nothing@2", "Unknown backbone 'nothing'"),
        ("efficientnet-lite0@9999999999", "numbers, from 1"),
    ],
)
def test_impossible_layers_are_refused(given, words):
    with pytest.raises(UsageError, match=words):
        BANK.select([given])


def test_a_scripted_network_has_no_layers(bank):
    with pytest.raises(UsageError, match="colour has no layers"):
        load_bank(bank).select(["colour@1"])
    bank.write_text(bank.read_text() + "  taps: [1]\n")
    bank.write_text(bank.read_text().replace("license: none", "license: none\n  pool: taps", 1))
    with pytest.raises(Exception, match="'pool: taps' needs 'taps', not torchscript"):
        load_bank(bank)


def test_numbers_in_names_count():
    assert sorted(["10", "9", "2"], key=depth) == ["2", "9", "10"]
    layers = ["features.10", "features.9", "layer4"]
    assert sorted(layers, key=depth) == ["features.9", "features.10", "layer4"]


def test_one_backbone_of_a_network_at_most_is_chosen():
    assert one_each(["a@2", "b", "a@1", "a"], used=["c@1"]) == ["a@2", "b"]
    assert one_each(["a@2", "b"], used=["a"]) == ["b"]
    rows = [
        Row(name=name, role="candidate", rank=1, score=-0.1, above_chance=True)
        for name in ("a@2", "a@3", "b")
    ]
    board = Leaderboard(protocol="fair", seed=0, n_real=9, n_fake=9, resolution=8, rows=tuple(rows))
    assert worthy(board) == ("a@2", "b") and list(board.layers) == ["a"]


def entry(folder, model="test_resnet", side=64, **changes) -> BackboneSpec:
    torch.manual_seed(0)
    path = folder / f"{model}.pth"
    torch.save(timm.create_model(model, num_classes=0).state_dict(), path)
    spec = BackboneSpec(
        name="net", source="timm", model=model, weights=Weights(file=str(path)), input=side,
        mean=(0.5,) * 3, std=(0.5,) * 3, task="t", data="d", license="l",
    )  # fmt: skip
    return dataclasses.replace(spec, **changes)


@pytest.mark.parametrize(("model", "side"), [("test_resnet", 64), ("test_vit", 160)])
def test_a_layer_is_the_average_of_its_map(tmp_path, model, side):
    spec = entry(tmp_path, model, side)
    found = load_backbone(at_layer(spec, "2"), offline=True)
    network = timm.create_model(model, num_classes=0).eval()
    network.load_state_dict(torch.load(spec.weights.file))
    x = torch.randn(2, 3, side, side)
    with torch.no_grad():
        maps = network.forward_intermediates(x, intermediates_only=True)
        torch.testing.assert_close(found.pool(x), maps[1].mean(dim=(2, 3)), rtol=1e-3, atol=1e-5)
        head = Head(found.map_shapes, found.dim)
        assert head(*found.levels(x))[-1].shape == (2,)


@pytest.mark.parametrize(
    "name", ["mobilenetv2", "vgg16-antialiased", "swin-t-moby", "clip-vit-b32"]
)
def test_layers_together_are_the_layers_alone(name):
    (spec,) = BANK.select([name])
    network = SOURCES[spec.source].build(spec, None)
    layers = network.layers[1:4:2]
    group = [at_layer(spec, layer) for layer in layers]
    (joint,) = networks(group).values()
    assert joint.members == tuple(f"{name}@{layer}" for layer in layers)
    state = network.state_dict()
    found = []
    for one in (joint.spec, *group):
        built = SOURCES[spec.source].build(one, None)
        built.load_state_dict({k: state[k] for k in built.state_dict()})
        found.append(wrap(one, built))
    x = torch.rand(1, 3, spec.input, spec.input)
    with torch.no_grad():
        together, *alone = (backbone.pool(x) for backbone in found)
    torch.testing.assert_close(together, torch.cat(alone, dim=1), rtol=1e-3, atol=1e-4)
    assert found[0].map_shapes == tuple(b.map_shapes[0] for b in found[1:])


def test_a_layer_that_is_not_there_says_which_are(tmp_path):
    with pytest.raises(BackboneUnavailable, match="has no layer 9, it has layers 1 to 5"):
        load_backbone(at_layer(entry(tmp_path), "9"), offline=True)
    with pytest.raises(BackboneUnavailable, match="no module .* 'features.99'"):
        load_backbone(at_layer(BANK.select(["mobilenetv2"])[0], "features.99"), offline=True)


def test_one_pass_gives_all_layers_and_each_is_kept_apart(tmp_path, monkeypatch):
    spec = entry(tmp_path)
    images = open_images(write_images(tmp_path / "a", 20, seed=0))
    others = open_images(write_images(tmp_path / "b", 20, seed=1))
    passed = []
    pool = Backbone.pool
    monkeypatch.setattr(
        Backbone, "pool", lambda self, x: passed.append((self.name, len(x))) or pool(self, x)
    )

    def run(*layers):
        passed.clear()
        wanted = Wanted(
            orders=draw_orders(images, others, 0), counts={"real": 20, "fake": 20}, least=16
        )
        with open_context("cpu") as ctx:
            specs = [at_layer(spec, layer) for layer in layers]
            found = extract_pair(images, others, specs, wanted, ctx, resolution=32)
        rows = {n: s.read(found.keys["real"]) for n, s in found.spaces.items()}
        return rows, sum(count for name, count in passed if count > 1)

    first, count = run("2", "3", "4")
    assert set(first) == {"net@2", "net@3", "net@4"} and {name for name, _ in passed} == {"net@"}
    _, single = run("5")
    assert count == single  # three layers take as many images through the network as one
    again, none = run("4", "2")
    assert none == 0 and (again["net@2"] == first["net@2"]).all()
    mixed, some = run("1", "2")
    assert some == single and (mixed["net@2"] == first["net@2"]).all()
    widths = {name: rows.shape[1] for name, rows in (first | mixed).items()}
    assert widths["net@1"] <= widths["net@2"] < widths["net@3"] < widths["net@4"]


def test_a_ranking_of_layers(cli, tmp_path, reals, fakes):
    spec = entry(tmp_path)
    bank = tmp_path / "layers.yaml"
    bank.write_text(
        f"- {{name: net, source: timm, model: test_resnet, weights: {{file: {spec.weights.file}}}, "
        "input: 32, mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5], task: t, data: d, license: MIT}\n"
    )
    out = tmp_path / "out"
    result = cli("rank", "--real", reals, "--gen", fakes, "--bank", bank, "--quiet", "--out", out,
                 "--backbones", "net@1,3,4,net,net@9", "--format", "json")  # fmt: skip
    assert result.code == 3, result.err
    board = json.loads(result.out)
    rows = {row["name"]: row for row in board["rows"]}
    assert {"net", "net@1", "net@3", "net@4", "net@9"} <= set(rows)
    assert "has no layer 9" in rows["net@9"]["reason"] and rows["net@1"]["score"] is not None
    assert sum(row["picked"] for row in board["rows"]) == 1
    assert any(note.startswith("Layers of net, best first: ") for note in board["notes"])
    page = (out / "report.html").read_text("utf-8")
    assert "Score against depth: net" in page
    scored = cli("score", next(iter(fakes.iterdir())), "--run", out, "--bank", bank, "--quiet")
    assert scored.code in (0, 3) and "net@3" in scored.out, scored.err
