"""Every entry keeps the contract, and real weights know what they see."""

import dataclasses
import functools
from importlib import metadata
from pathlib import Path

import pytest
import sklearn
import timm
import torch
import torchvision
from packaging.version import Version
from PIL import Image
from safetensors.torch import save_file

from probe.bank.file import load_bank
from probe.bank.fingerprint import changed, fingerprint
from probe.bank.load import load_backbone, wrap
from probe.bank.sources import SOURCES
from probe.bank.spec import BackboneSpec, Rename, Weights
from probe.bank.weights.file import read_weights
from probe.bank.weights.find import find_weights, weights_digest
from probe.bank.weights.keys import map_keys
from probe.bundled import BN_IMAGES
from probe.discriminators.heads import Head
from probe.errors import BackboneUnavailable
from probe.images.open import open_images

SPECS = load_bank().specs


def spec(**changes) -> BackboneSpec:
    base = {
        "name": "x", "source": "timm", "model": "test_resnet", "weights": Weights(file="w.pth"),
        "input": 32, "mean": (0.5,) * 3, "std": (0.5,) * 3, "task": "t", "data": "d",
        "license": "l",
    }  # fmt: skip
    return BackboneSpec(**{**base, **changes})


def test_the_whole_bank_is_built_below():
    assert len(SPECS) == 36


@functools.lru_cache(maxsize=1)
def untrained(source: str, model: str, args: str, entry: str) -> torch.nn.Module:
    """Build an architecture with random weights; entries that differ in seed alone share it."""
    (found,) = (s for s in SPECS if s.name == entry)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SOURCES[source].build(found, None)


LARGE = {"aimv2-vit-l14": 309, "metaclip2-vit-h14": 631}  # millions of parameters


@pytest.mark.parametrize("entry", [s for s in SPECS if s.name in LARGE], ids=lambda s: s.name)
def test_the_large_ones_have_their_shapes_and_heads(entry):
    # Shapes alone, without memory and time, once timm builds without reading numbers of tensors.
    is_new = Version(timm.__version__) >= Version("1.0.21")
    with torch.device("meta" if is_new else "cpu"), torch.no_grad():
        backbone = wrap(entry, SOURCES[entry.source].build(entry, None))
        maps, pooled = backbone.levels(torch.rand(2, 3, entry.input, entry.input))
    logits = Head(backbone.map_shapes, backbone.dim)(
        [torch.zeros(m.shape) for m in maps], torch.zeros(pooled.shape)
    )
    assert round(backbone.parameter_count / 1e6) == LARGE[entry.name]
    assert [tuple(m.shape[1:]) for m in maps] == list(backbone.map_shapes)
    assert len(logits) == len(entry.taps) + 1 and logits[-1].shape == (2,)


@pytest.mark.parametrize("entry", [s for s in SPECS if s.name not in LARGE], ids=lambda s: s.name)
def test_contract(entry):
    first = entry.name.split("#")[0] + ("#0" if "#" in entry.name else "")
    network = untrained(entry.source, entry.model, str(entry.args), first)
    backbone = wrap(entry, network)
    images = torch.rand(1, 3, 64, 64, requires_grad=True)
    x = backbone.prepare(images)
    assert x.shape == (1, 3, entry.input, entry.input)
    pooled = backbone.pool(x)
    assert pooled.shape == (1, backbone.dim) and pooled.dtype == torch.float32
    pooled.square().sum().backward()
    assert images.grad.isfinite().all() and images.grad.abs().sum() > 0
    with torch.no_grad():
        maps, beside = backbone.levels(x)
        # Not bit by bit: without gradients torch takes other kernels for attention.
        torch.testing.assert_close(beside, pooled, rtol=1e-3, atol=1e-4)
    assert tuple(tuple(m.shape[1:]) for m in maps) == backbone.map_shapes
    assert all(m.ndim == 4 for m in maps) and len(maps) == max(1, len(entry.taps))
    assert Head(backbone.map_shapes, backbone.dim)(maps, pooled)[-1].shape == (1,)
    assert not any(p.requires_grad for p in backbone.parameters())
    assert not backbone.train().training
    assert not any(m.training for m in backbone.modules())


@pytest.mark.parametrize("name", ["efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2"])
def test_real_efficientnets_see_a_palace(name):
    entry = packaged(name)
    model = timm.create_model(entry.model, pretrained=False).eval()
    state = map_keys(read_weights(entry, find_weights(entry, offline=True)), entry.keys, model)
    model.load_state_dict(state)
    assert_palace(entry, model)


def test_real_mobilenet_sees_a_palace():
    entry = packaged("mobilenetv2")
    model = torchvision.models.mobilenet_v2().eval()
    model.load_state_dict(read_weights(entry, find_weights(entry, offline=True)))
    assert_palace(entry, model)


@pytest.mark.parametrize("name", [s.name for s in SPECS if s.weights.kind == "package"])
def test_packaged_weights_are_what_they_were_and_tell_images_apart(name):
    entry = packaged(name)
    backbone = load_backbone(entry, offline=True)
    assert entry.fingerprint is not None
    assert changed(entry.fingerprint, fingerprint(backbone)) is None
    features = torch.cat([backbone(image) for image in photos()])
    assert features.isfinite().all() and (features[0] - features[1]).abs().max() > 0.1


def packaged(name) -> BackboneSpec:
    (entry,) = load_bank().select([name])
    try:
        metadata.distribution(entry.weights.package)
    except metadata.PackageNotFoundError:
        pytest.skip(f"{entry.weights.package} is not installed")
    return entry


def photos():
    folder = Path(sklearn.__file__).parent / "datasets" / "images"
    for name in ("china.jpg", "flower.jpg"):
        image = Image.open(folder / name).convert("RGB")
        # The middle of the short side at a usual evaluation crop of 87.5 %.
        side = int(min(image.size) * 0.875)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
        data = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
        yield data.reshape(1, side, side, 3).permute(0, 3, 1, 2).float() / 255


def assert_palace(entry, model) -> None:
    wrapped = wrap(entry, SOURCES[entry.source].build(entry, None))
    with torch.inference_mode():
        china, _ = (model(wrapped.prepare(image))[0].softmax(0) for image in photos())
    assert china.argmax() == 698 and china[698] > 0.3


def test_random_weights_follow_their_seed_and_leave_the_global_stream_alone():
    entry = spec(weights=Weights(random=3), role="control")
    x = torch.rand(2, 3, 32, 32)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    images = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator())
    one, two = (load_backbone(entry, offline=True, bn_images=images) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(one(x), two(x))
    other = dataclasses.replace(entry, weights=Weights(random=4))
    assert not torch.equal(one(x), load_backbone(other, offline=True, bn_images=images)(x))


def test_calibration_gives_random_networks_unit_statistics():
    entry = spec(model="resnet18", input=64, weights=Weights(random=0), role="control")
    images = open_images(BN_IMAGES)
    refusing = load_backbone(entry, offline=True)
    assert refusing.dim == 512
    with pytest.raises(BackboneUnavailable, match="no BatchNorm statistics"):
        refusing(torch.rand(1, 3, 64, 64))
    raw = wrap(entry, refusing.network.network)
    calibrated = load_backbone(entry, offline=True, bn_images=images)
    x = calibrated.prepare(images.load(range(192), 64).images.float() / 255)

    def spread(backbone, module):
        kept = []
        hook = module.register_forward_hook(
            lambda module, inputs, output: kept.append(output.clone())
        )
        backbone.pool(x)
        hook.remove()
        return kept[0].mean(dim=(0, 2, 3)).abs().mean(), kept[0].std(dim=(0, 2, 3)).mean()

    # The BatchNorm is folded into its convolution, which takes the activation along.
    mean, deviation = spread(calibrated, calibrated.network.model.layer4[1].conv1.convolution)
    assert mean < 0.1 and 0.9 < deviation < 1.1
    assert not 0.7 < spread(raw, raw.network.model.layer4[1].bn1)[1] < 1.3


def test_a_users_state_dict_with_a_key_map(tmp_path):
    model = timm.create_model("test_resnet", num_classes=7)
    file = tmp_path / "mine.pth"
    state = {f"module.encoder.{k}": v for k, v in model.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, file)
    keys = (Rename(pattern=r"^module\.encoder\.", to=""), Rename(pattern="^fc"))
    entry = spec(weights=Weights(file=str(file)), keys=keys)
    x = torch.rand(1, 3, 32, 32)
    found = load_backbone(entry, offline=True)
    expected = model.eval().forward_head(model.forward_features(found.prepare(x)), pre_logits=True)
    torch.testing.assert_close(found(x), expected)
    with pytest.raises(BackboneUnavailable, match=r"lacks .* tensors of test_resnet.*keys:"):
        load_backbone(dataclasses.replace(entry, keys=()), offline=True)


def test_weight_files_that_cannot_be_used(tmp_path):
    model = timm.create_model("test_resnet", num_classes=0)
    file = tmp_path / "w.pth"
    torch.save(model.state_dict(), file)
    entry = spec(weights=Weights(file=str(file)))
    with pytest.raises(BackboneUnavailable, match="is not the file the bank or its lock"):
        load_backbone(dataclasses.replace(entry, sha256="0" * 64), offline=True)
    with pytest.raises(BackboneUnavailable, match="test_vit"):
        load_backbone(dataclasses.replace(entry, model="test_vit"), offline=True)
    with pytest.raises(BackboneUnavailable, match="no_such_net"):
        load_backbone(dataclasses.replace(entry, model="no_such_net"), offline=True)
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(BackboneUnavailable, match="damaged"):
        load_backbone(entry, offline=True)
    with pytest.raises(BackboneUnavailable, match="does not exist"):
        load_backbone(spec(weights=Weights(file=str(tmp_path / "gone"))), offline=True)
    with pytest.raises(BackboneUnavailable, match="is not a regular file"):
        load_backbone(spec(weights=Weights(file=str(tmp_path))), offline=True)


def test_a_stand_in_hub_cache_is_used_offline_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    entry = spec(model="test_vit", input=160, weights=Weights(hub="timm/test_vit.x"))
    with pytest.raises(BackboneUnavailable) as caught:
        load_backbone(entry, offline=True)
    assert caught.value.remedy == "probe bank fetch x"
    model = timm.create_model("test_vit", num_classes=0)
    repository = tmp_path / "hub" / "models--timm--test_vit.x"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc123")
    folder = repository / "snapshots" / "abc123"
    folder.mkdir(parents=True)
    save_file(model.state_dict(), folder / "model.safetensors")
    monkeypatch.setattr(
        "probe.bank.weights.find.fetch", lambda spec: pytest.fail("tried to download")
    )
    found = load_backbone(entry, offline=True)
    x = torch.rand(1, 3, 32, 32)
    expected = model.eval().forward_head(model.forward_features(found.prepare(x)), pre_logits=True)
    torch.testing.assert_close(found(x), expected)


def test_digest_follows_weights_key_map_and_calibration(tmp_path):
    images = open_images(BN_IMAGES)
    file = tmp_path / "w.pth"
    torch.save({"a": torch.ones(1)}, file)
    entry = spec(weights=Weights(file=str(file)))
    digests = {weights_digest(entry, offline=True, bn_images=images)}
    renamed = dataclasses.replace(entry, keys=(Rename(pattern="a", to="b"),))
    digests.add(weights_digest(renamed, offline=True, bn_images=images))
    torch.save({"a": torch.zeros(1)}, file)
    digests.add(weights_digest(entry, offline=True, bn_images=images))
    for seed in (0, 1):
        control = spec(weights=Weights(random=seed), role="control")
        digests.add(weights_digest(control, offline=True, bn_images=images))
    assert len(digests) == 5


def test_torchscript_with_another_output_is_refused(tmp_path):
    class Three(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(2)

    torch.jit.script(Three()).save(str(tmp_path / "three.pt"))
    entry = spec(source="torchscript", weights=Weights(file=str(tmp_path / "three.pt")))
    with pytest.raises(BackboneUnavailable, match=r"returns \(2, 3, 1024\)"):
        load_backbone(entry, offline=True)
    (tmp_path / "three.pt").write_bytes(b"text")
    with pytest.raises(BackboneUnavailable, match="not a TorchScript file"):
        load_backbone(entry, offline=True)
