"""What each source makes of an entry: strict loading, settings that timm knows, refusals."""

import dataclasses
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import get_args

import open_clip
import pytest
import timm
import torch
from torchvision.models import detection, segmentation

from probe.bank.file import load_bank
from probe.bank.load import input_spec, load_backbone, wrap
from probe.bank.sources import SOURCES
from probe.bank.spec import BackboneSpec, KeyMap, Rename, Weights
from probe.bank.weights.keys import KEY_MAPS
from probe.errors import BackboneUnavailable


def entry(**changes) -> BackboneSpec:
    base = {
        "name": "x", "source": "timm", "model": "test_resnet", "weights": Weights(file="w.pth"),
        "input": 160, "mean": (0.5,) * 3, "std": (0.5,) * 3, "task": "t", "data": "d",
        "license": "l",
    }  # fmt: skip
    return BackboneSpec(**{**base, **changes})


@pytest.fixture
def saved(tmp_path):
    """Save tensors and return their place as `Weights`."""

    def save(state) -> Weights:
        torch.save(state, tmp_path / "w.pth")
        return Weights(file=str(tmp_path / "w.pth"))

    return save


def packaged(name: str, weights: Weights) -> BackboneSpec:
    """Return an entry of the shipped bank with other weights."""
    (found,) = load_bank().select([name])
    return dataclasses.replace(found, weights=weights, sha256=None)


def test_the_names_in_the_spec_are_those_of_the_code():
    assert set(get_args(KeyMap)) == set(KEY_MAPS)


def test_left_over_and_misshapen_tensors_are_named(saved):
    model = timm.create_model("test_resnet", num_classes=0)
    state = model.state_dict()
    weights = saved({**state, "layer1.0.gamma": torch.ones(1), "extra": torch.ones(1)})
    with pytest.raises(BackboneUnavailable, match=r"2 tensors .* \(layer1\.0\.gamma, extra\)"):
        load_backbone(entry(weights=weights), offline=True)
    keys = (Rename(pattern="gamma$"), Rename(pattern="^extra$"))
    load_backbone(entry(weights=weights, keys=keys), offline=True)
    first = next(iter(state))
    weights = saved({**state, first: torch.ones(1)})
    with pytest.raises(BackboneUnavailable, match=f"{first} has shape"):
        load_backbone(entry(weights=weights), offline=True)


def test_a_file_that_would_run_code_runs_none(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    path = tmp_path / "w.pth"
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(BackboneUnavailable, match=r"a pickle that torch\.save did not write"):
        load_backbone(entry(weights=Weights(file=str(path))), offline=True)
    model = timm.create_model("test_resnet", num_classes=0)
    torch.save({"model": model.state_dict(), "extra": Evil()}, path)
    load_backbone(entry(weights=Weights(file=str(path))), offline=True)
    assert not (tmp_path / "ran").exists()


def test_a_position_embedding_for_another_size_is_resampled(saved):
    weights = saved(timm.create_model("test_vit").state_dict())
    small = entry(model="test_vit", input=96, args={"img_size": 96}, weights=weights, pool="token")
    backbone = load_backbone(small, offline=True)
    assert backbone.map_shapes == ((64, 6, 6),)
    assert backbone(torch.rand(2, 3, 32, 32)).shape == (2, 64)


def test_the_image_half_of_a_clip_file_is_taken(saved):
    model = open_clip.create_model("RN50", load_weights=False, pretrained_text=False)
    clip = entry(source="open_clip", model="RN50", input=224, weights=saved(model.state_dict()))
    backbone = load_backbone(clip, offline=True)
    x = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(backbone.pool(x), model.eval().encode_image(x))


@pytest.mark.parametrize(
    ("name", "build"),
    [
        ("maskrcnn-resnet50", detection.maskrcnn_resnet50_fpn),
        ("deeplabv3-resnet50", segmentation.deeplabv3_resnet50),
    ],
)
def test_the_dense_networks_files_have_a_place_for_every_tensor(name, build, saved):
    kwargs = {"aux_loss": True} if "deeplab" in name else {}
    whole = build(weights=None, weights_backbone=None, **kwargs)
    spec = packaged(name, saved(whole.state_dict()))
    network = SOURCES["torchvision"].build(spec, Path(spec.weights.file))
    body = whole.backbone.body if "mask" in name else whole.backbone
    loaded = network.state_dict()
    assert all(torch.equal(v, loaded[f"trunk.{k}"]) for k, v in body.state_dict().items())


def test_what_an_entry_leaves_out_timm_knows():
    dino = entry(
        model="vit_small_patch16_224", weights=Weights(hub="timm/vit_small_patch16_224.dino"),
        input=None, mean=None, std=None,
    )  # fmt: skip
    found = input_spec(dino)
    assert (found.size, found.mean) == (224, (0.485, 0.456, 0.406))
    assert input_spec(dataclasses.replace(dino, input=112)).size == 112
    theirs = dataclasses.replace(dino, weights=Weights(hub="me/mine"))
    with pytest.raises(BackboneUnavailable, match="write them into the entry"):
        input_spec(theirs)


@pytest.mark.parametrize("model", ["swin_s3_tiny_224", "test_vit", "test_convnext", "vgg11"])
def test_the_average_is_over_places_and_not_over_channels(model):
    size = 224 if "224" in model else 160
    spec = entry(model=model, input=size, pool="average", tap_norm="vit" in model)
    network = SOURCES["timm"].build(spec, None).eval()
    if not hasattr(network.model, "forward_intermediates"):
        pytest.skip(f"timm {timm.__version__} gives no maps of {model}")
    x = torch.rand(1, 3, size, size)
    with torch.no_grad():
        found, last = network.pool(x), network.levels(x)[0][-1]
    assert found.shape[1] == last.shape[1]
    if "swin" not in model:  # there a norm follows the last map
        torch.testing.assert_close(found, last.mean(dim=(2, 3)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "resnet1"}, "has no model 'resnet1'; did you mean 'resnet"),
        ({"pool": "token"}, "test_resnet has no class token"),
        ({"taps": (99,)}, "test_resnet has no layer 100, it has layers 1 to 5"),
        ({"model": "vit_tiny_patch16_224"}, "cannot build vit_tiny_patch16_224 as the entry says"),
        ({"args": {"no_such": 1}}, "cannot build test_resnet"),
        ({"source": "open_clip", "model": "ViT-B32"}, "did you mean 'ViT-B-32'"),
        ({"source": "torchvision", "model": "resnet", "taps": ("a",)}, "did you mean 'resnet"),
        (
            {"source": "torchvision", "model": "resnet18", "taps": ("layer5",)},
            "'layer5'; did you mean 'layer",
        ),
    ],
)
def test_an_entry_that_no_library_can_build(changes, words):
    spec = entry(weights=Weights(random=0), role="control", **changes)
    with pytest.raises(BackboneUnavailable) as caught:
        load_backbone(spec, offline=True)
    assert words in str(caught.value)


def test_a_map_is_no_feature():
    class Odd(torch.nn.Module):
        def pool(self, x):
            return x

        def levels(self, x):
            return [], x

    with pytest.raises(BackboneUnavailable, match=r"\(N, d\)"):
        wrap(entry(input=32), Odd())


@pytest.mark.parametrize(
    ("source", "model", "args"),
    [
        ("timm", "test_vit", {"depth": 10_000}),
        ("timm", "test_vit", {"img_size": 10_000}),
        ("torchvision", "resnet18", {}),
        ("open_clip", "ViT-B-32", {}),
    ],
)
def test_a_network_that_outgrows_the_memory_is_not_built(monkeypatch, source, model, args):
    monkeypatch.setattr("probe.bank.size.most_parameters", lambda: 5_000_000)
    spec = entry(source=source, model=model, args=args, weights=Weights(random=0), role="control",
                 taps=("layer4",) if source == "torchvision" else ())  # fmt: skip
    with pytest.raises(BackboneUnavailable, match=r"more than 0\.005 billion parameters"):
        load_backbone(spec, offline=True)
    load_backbone(entry(weights=Weights(random=0), role="control"), offline=True)  # the others do


def test_a_network_is_loaded_while_another_thread_runs_one():
    spec = entry(
        source="torchvision",
        model="resnet18",
        weights=Weights(random=0),
        taps=("layer4",),
        role="control",
    )
    other, loaded = torch.nn.Sequential(torch.nn.Linear(4, 4)), threading.Event()

    def run():
        calls = 0
        while not loaded.is_set():
            other(torch.ones(1, 4))
            calls += 1
        return calls

    with ThreadPoolExecutor(1) as background:
        calls = background.submit(run)
        try:
            for _ in range(3):
                load_backbone(spec, offline=True)
        finally:
            loaded.set()
        assert calls.result() > 0
