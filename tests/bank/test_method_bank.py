"""The method's own networks: files under their published names, and arithmetic as published."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from timm.models.swin_transformer import SwinTransformerBlock
from torchvision.models import resnet18, vgg16

from probe.bank.file import load_bank
from probe.bank.load import load_backbone
from probe.bank.sources import SOURCES
from probe.bank.sources.antialiased import BlurPool
from probe.bank.sources.swin import _pad_first
from probe.bank.spec import Weights
from probe.errors import BackboneUnavailable

BANK = {entry.name: entry for entry in load_bank().specs}
# Convolutions of the antialiased file ↔ those of torchvision's VGG-16.
ANTIALIASED = (0, 2, 6, 8, 12, 14, 16, 20, 22, 24, 28, 30, 32)
TORCHVISION = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)


def load(name, path, content):
    torch.save(content, path)
    entry = dataclasses.replace(BANK[name], weights=Weights(file=str(path)), sha256=None)
    return load_backbone(entry, offline=True)


def images(backbone):
    return torch.rand(2, 3, backbone.input.size, backbone.input.size)


def swin_state(name, norm):
    """Return random weights under timm's names, and the same under the published ones."""
    torch.manual_seed(0)
    network = SOURCES["swin"].build(BANK[name], None)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    state = network.state_dict()
    published = {}
    for key, tensor in state.items():
        key = key.removeprefix("model.")
        stage = key.split(".")[1] if key.startswith("layers.") else ""
        if ".downsample." in key:
            key = key.replace(f"layers.{stage}.", f"layers.{int(stage) - 1}.")
        if key.endswith("relative_position_bias_table"):
            published[key.replace("bias_table", "index")] = torch.zeros(49, 49).long()
        published[key.replace("norm.", f"{norm}.", 1) if key.startswith("norm.") else key] = tensor
    published["layers.0.blocks.1.attn_mask"] = torch.zeros(64, 49, 49)
    return network, published


def test_a_file_of_moby_is_read(tmp_path):
    network, published = swin_state("swin-t-moby", "norm")
    content = {f"encoder.{k}": v for k, v in published.items()}
    content |= {f"encoder_k.{k}": v + 1 for k, v in published.items()}
    for name in ("projector", "projector_k", "predictor"):
        content[f"{name}.linear_hidden.0.weight"] = torch.zeros(4, 4)
    content |= {"queue1": torch.zeros(4, 4), "queue2": torch.zeros(4), "queue_ptr": torch.zeros(1)}
    backbone = load("swin-t-moby", tmp_path / "moby.pth", {"model": content, "epoch": 299})
    x = images(backbone)
    with torch.no_grad():
        torch.testing.assert_close(backbone.pool(x), network.eval().pool(x))
    assert backbone.dim == 768 and backbone.map_shapes == ((768, 7, 7),)


@pytest.mark.parametrize("name", ["swin-t-upernet", "swin-t-cascade"])
def test_a_file_of_a_segmenter_or_detector_is_read(tmp_path, name):
    network, published = swin_state(name, "norm3")
    content = {f"backbone.{k}": v for k, v in published.items()}
    content |= {f"backbone.norm{i}.weight": torch.zeros(96 * 2**i) for i in range(3)}
    content |= {"decode_head.conv_seg.weight": torch.zeros(4), "roi_head.x": torch.zeros(4)}
    backbone = load(name, tmp_path / "dense.pth", {"meta": {}, "state_dict": content})
    x = images(backbone)
    with torch.no_grad():
        maps, pooled = backbone.levels(x)
        torch.testing.assert_close(pooled, network.eval().pool(x))
    assert backbone.map_shapes == ((768, 8, 8),)
    torch.testing.assert_close(maps[0].mean(dim=(2, 3)), pooled)  # after the norm


def attend_by_hand(block, x):
    """Pad, shift, attend within windows among pixels that were neighbours, undo: pixel by pixel."""
    attention, size, shift = block.attn, block.window_size[0], block.shift_size[0]
    n, height, width, channels = x.shape
    side = -(-height // size) * size
    padded = torch.zeros(n, side, side, channels)
    padded[:, :height, :width] = x
    out = torch.zeros_like(padded)
    place = [(i + shift) % side for i in range(side)]  # shifted row → row of the padded map
    # Rows that a shift brings together from both ends of the map do not see each other.
    part = [0 if i < side - size else 1 if i < side - shift else 2 for i in range(side)]
    table, index = attention.relative_position_bias_table, attention.relative_position_index
    for top in range(0, side, size):
        for left in range(0, side, size):
            cells = [(i, j) for i in range(top, top + size) for j in range(left, left + size)]
            tokens = torch.stack([padded[:, place[i], place[j]] for i, j in cells], dim=1)
            q, k, v = (
                attention.qkv(tokens)
                .reshape(n, len(cells), 3, attention.num_heads, -1)
                .permute(2, 0, 3, 1, 4)
            )
            logits = q * attention.scale @ k.transpose(-1, -2)
            logits = logits + table[index.flatten()].reshape(*index.shape, -1).permute(2, 0, 1)
            if shift:
                regions = torch.tensor([3 * part[i] + part[j] for i, j in cells])
                logits = logits.masked_fill(regions[:, None] != regions[None], -torch.inf)
            mixed = (logits.softmax(-1) @ v).transpose(1, 2).reshape(n, len(cells), -1)
            for t, (i, j) in enumerate(cells):
                out[:, place[i], place[j]] = attention.proj(mixed)[:, t]
    return out[:, :height, :width]


@pytest.mark.parametrize(("side", "shift"), [(8, 3), (8, 0), (14, 3), (16, 3)])
def test_maps_are_padded_before_they_are_shifted(side, shift):
    torch.manual_seed(0)
    block = SwinTransformerBlock(8, (side, side), num_heads=2, window_size=7, shift_size=shift)
    block.eval()
    torch.nn.init.normal_(block.attn.relative_position_bias_table)
    x = torch.randn(2, side, side, 8)
    with torch.no_grad():
        plain = block._attn(x)
        _pad_first(block)
        found, expected = block._attn(x), attend_by_hand(block, x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    differs = (plain - expected).abs().max() > 1e-2
    assert differs == (shift > 0 and side % 7 != 0)  # or timm's own would do


def test_a_file_of_the_antialiased_vgg_is_read(tmp_path):
    torch.manual_seed(0)
    theirs = vgg16(weights=None).features.eval()
    content = {
        "classifier.0.weight": torch.zeros(4, 4),
        "features.5.filt": torch.zeros(64, 1, 4, 4),
    }
    for i, j in zip(ANTIALIASED, TORCHVISION, strict=True):
        for part in ("weight", "bias"):
            tensor = theirs.get_parameter(f"{j}.{part}")
            torch.nn.init.normal_(tensor, std=0.05)
            content[f"features.{i}.{part}"] = tensor.detach().clone()
    backbone = load("vgg16-antialiased", tmp_path / "lpf4.pth", {"state_dict": content})
    x = images(backbone)
    with torch.no_grad():
        expected = x
        for layer in theirs:
            if isinstance(layer, torch.nn.MaxPool2d):
                expected = blur_by_hand(torch.max_pool2d(expected, 2, stride=1))
            else:
                expected = layer(expected)
        maps, pooled = backbone.levels(x)
    torch.testing.assert_close(maps[0], expected, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(pooled, expected.mean(dim=(2, 3)), rtol=1e-3, atol=1e-4)
    assert backbone.map_shapes == ((512, 7, 7),)


def blur_by_hand(x):
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (1, 2), (1, 2)), mode="reflect")
    taps = np.array([1, 3, 3, 1]) / 8
    height, width = x.shape[-2:]
    rows = sum(t * padded[:, :, i : i + height] for i, t in enumerate(taps))
    both = sum(t * rows[..., i : i + width] for i, t in enumerate(taps))
    return torch.from_numpy(both[:, :, ::2, ::2].astype(np.float32))


def test_a_flat_picture_stays_flat():
    x = torch.full((1, 3, 9, 9), 0.7)
    torch.testing.assert_close(BlurPool(3)(x), torch.full((1, 3, 5, 5), 0.7))


def documented(name, path):
    """Return an entry of docs/choosing.md, with a file that completes it."""
    page = (Path(__file__).parents[2] / "docs" / "choosing.md").read_text("utf-8")
    (text,) = re.findall(rf"^- name: {name}$.*?(?=^- name|^```)", page, re.MULTILINE | re.DOTALL)
    (path.parent / "faces.yaml").write_text(re.sub(r"file: [\w.-]+", f"file: {path.name}", text))
    (entry,) = load_bank(path.parent / "faces.yaml").specs
    return entry


def randomise(network):
    """Give a network's weights and statistics values that a wrong order would show."""
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.is_floating_point():
            torch.nn.init.uniform_(tensor.data, 0.01, 0.1)
    return network.eval()


def test_a_file_of_the_face_parser_completes_its_entry(tmp_path):
    torch.manual_seed(0)
    theirs, content, before = [], {}, 3
    stages = ("conv1", "conv2", "conv3", "conv4", "center")
    for name, channels in zip(stages, (16, 32, 64, 128, 256)):
        for part in ("conv1", "conv2"):
            block = torch.nn.Sequential(
                torch.nn.Conv2d(before, channels, 3, padding=1), torch.nn.BatchNorm2d(channels),
                torch.nn.ReLU(),
            )  # fmt: skip
            theirs.append(randomise(block))
            content |= {f"{name}.{part}.{k}": v for k, v in block.state_dict().items()}
            before = channels
    for width in (128, 64, 32, 16):  # the expanding half, which is left out
        content[f"up_concat{width}.up.weight"] = torch.zeros(2 * width, width, 2, 2)
    content |= {"final.weight": torch.zeros(19, 16, 1, 1), "final.bias": torch.zeros(19)}
    torch.save(content, tmp_path / "parser.pth")
    backbone = load_backbone(documented("face-parser", tmp_path / "parser.pth"), offline=True)
    picture = torch.rand(2, 3, 256, 256)
    x = backbone.prepare(picture)
    torch.testing.assert_close(x, 2 * picture - 1)  # it was trained on [-1, 1]
    with torch.no_grad():
        expected = x
        for i in range(0, 10, 2):
            expected = theirs[i + 1](theirs[i](expected))
            expected = torch.max_pool2d(expected, 2) if i < 8 else expected
        maps, pooled = backbone.levels(x)
    torch.testing.assert_close(pooled, expected.mean(dim=(2, 3)), rtol=1e-3, atol=1e-4)
    averaged = torch.nn.functional.avg_pool2d(expected, 2)
    torch.testing.assert_close(maps[0], averaged, rtol=1e-3, atol=1e-4)
    assert backbone.map_shapes == ((256, 8, 8),)


def test_a_file_of_face_normals_completes_its_entry(tmp_path):
    torch.manual_seed(0)
    theirs = randomise(resnet18(weights=None))
    trunk = {k: v for k, v in theirs.state_dict().items() if not k.startswith("fc.")}
    content = {f"encoder.{k}": v for k, v in trunk.items()}
    content |= {f"encoder2.{k}": torch.zeros_like(v) for k, v in trunk.items()}
    content["decoder.0.weight"] = torch.zeros(4)
    torch.save({"state_dict": content}, tmp_path / "normals.pth")
    backbone = load_backbone(documented("face-normals", tmp_path / "normals.pth"), offline=True)
    picture = torch.rand(2, 3, 256, 256)
    torch.testing.assert_close(backbone.prepare(picture), picture)  # it was trained on [0, 1]
    theirs.avgpool, theirs.fc = torch.nn.AdaptiveAvgPool2d(1), torch.nn.Identity()
    with torch.no_grad():
        torch.testing.assert_close(backbone.pool(picture), theirs(picture), rtol=1e-3, atol=1e-4)
    assert backbone.map_shapes == ((512, 8, 8),)


def test_the_map_of_moby_is_that_after_its_norm():
    network = SOURCES["swin"].build(BANK["swin-t-moby"], None).eval()
    with torch.no_grad():
        maps, pooled = network.levels(torch.rand(1, 3, 224, 224))
    torch.testing.assert_close(maps[-1].mean(dim=(2, 3)), pooled, rtol=1e-3, atol=1e-4)


def test_the_sources_say_what_they_cannot_build():
    swin = dataclasses.replace(BANK["swin-t-moby"], model="resnet18", args={})
    with pytest.raises(BackboneUnavailable, match="resnet18 is not a Swin Transformer of timm"):
        SOURCES["swin"].build(swin, None)
    vgg = dataclasses.replace(BANK["vgg16-antialiased"], model="vgg19")
    with pytest.raises(BackboneUnavailable, match="no model 'vgg19'"):
        SOURCES["antialiased"].build(vgg, None)
