"""What tests are fed: small images, scripted backbones, a tiny generator."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from probe.generators.networks.stylegan2 import Generator


def photo(rng: np.random.Generator, size: int = 32, blue: int = 0) -> Image.Image:
    """Return a smooth random image, its blue channel raised by `blue`."""
    small = rng.integers(20, 200, (6, 6, 3)).astype(np.uint8)
    small[:, :, 2] += blue
    return Image.fromarray(small).resize((size, size), Image.Resampling.BICUBIC)


def write_images(folder: Path, count: int, *, seed: int, blue: int = 0, size: int = 32) -> Path:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for i in range(count):
        photo(rng, size, blue).save(folder / f"{i:03d}.png")
    return folder


class Colour(torch.nn.Module):
    """Sees the mean of each channel."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(2, 3))


class Edges(torch.nn.Module):
    """Sees horizontal edges and no colour."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        grey = x.mean(dim=1)
        grey = grey - grey.mean(dim=(1, 2), keepdim=True)
        return (grey[:, :, 1:] - grey[:, :, :-1]).abs().mean(dim=1)


class Mixed(torch.nn.Module):
    """Sees colour and a little of the layout."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(x, 8).flatten(1)


class Grid(torch.nn.Module):
    """Sees the layout as a map."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(x, 4)


ENTRY = """
- name: {name}
  source: torchscript
  model: {name}
  weights: {{file: {name}.pt}}
  input: 32
  mean: [0.5, 0.5, 0.5]
  std: [0.5, 0.5, 0.5]
  task: none
  data: none
  license: none
"""


def write_bank(folder: Path) -> Path:
    """A bank of two scripted backbones, `colour` and `edges`, and one random control."""
    for name, module in (("colour", Colour()), ("edges", Edges())):
        torch.jit.script(module).save(str(folder / f"{name}.pt"))
    control = """
- name: random
  source: timm
  model: test_resnet
  weights: {random: 0}
  input: 32
  mean: [0.5, 0.5, 0.5]
  std: [0.5, 0.5, 0.5]
  task: none
  data: none
  license: none
  role: control
"""
    path = folder / "bank.yaml"
    path.write_text(ENTRY.format(name="colour") + ENTRY.format(name="edges") + control)
    return path


def write_judged_bank(folder: Path) -> Path:
    """The same with `grid`, which has a map, and the evaluator `mixed`."""
    bank = write_bank(folder)
    for name, module in (("mixed", Mixed()), ("grid", Grid())):
        torch.jit.script(module).save(str(folder / f"{name}.pt"))
    text = ENTRY.format(name="grid") + ENTRY.format(name="mixed") + "  role: evaluator\n"
    path = folder / "judged.yaml"
    path.write_text(bank.read_text() + text)
    return path


def tiny_generator(c_dim: int = 0, seed: int = 0) -> Generator:
    """Return a 32 px generator whose every term is non-zero."""
    torch.manual_seed(seed)
    network = Generator(
        16, c_dim, 16, 32, 3, {"num_layers": 2}, {"channel_base": 256, "channel_max": 16}
    )
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith(("bias", "noise_strength")):
                parameter.add_(torch.randn_like(parameter) * 0.2)
        network.mapping.w_avg.copy_(torch.randn(16) * 0.3)
    return network.eval().requires_grad_(False)
