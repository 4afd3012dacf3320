"""The reference procedure of model selection, written plainly; `rank.py` times it.

What "Ensembling Off-the-shelf Models for GAN Training" does to choose a backbone, in float32 and
the default memory layout: for each backbone, three times over, read the reals, generate fakes anew,
extract features of both, fit a logistic regression (C = 0.2, raw features) on one half and take
its accuracy on the other. Fakes are fed as they come, neither clamped nor rounded; images are
resized to the backbone's input by averaging or repeating pixels.

    python benchmarks/reference.py --real DIR --gen G.safetensors --backbones mobilenetv2
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from probe.accel.low_pass import low_pass
from probe.bank.file import load_bank
from probe.bank.load import input_spec
from probe.bank.sources import SOURCES
from probe.bank.spec import BackboneSpec
from probe.bank.weights.find import find_weights
from probe.generators.files.formats import load_generator
from probe.generators.networks import stylegan2

BATCH = 64  # the reference's as a script; its training driver passes the training batch, often 16
C = 0.2
ITERATIONS = 5000


class Reals(Dataset):
    """The first images of a folder, by name."""

    def __init__(self, folder: Path, count: int) -> None:
        self.files = sorted(folder.iterdir())[:count]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> torch.Tensor:
        pixels = np.array(Image.open(self.files[index]).convert("RGB"))
        return torch.from_numpy(pixels).permute(2, 0, 1)


def real_batches(folder: Path, count: int, batch: int) -> Iterator[torch.Tensor]:
    """Yield the reals in [-1, 1], in the order of their names, decoded by one worker."""
    for images in DataLoader(Reals(folder, count), batch, num_workers=1):
        yield images.float() / 127.5 - 1


def fake_batches(generator: nn.Module, count: int, batch: int) -> Iterator[torch.Tensor]:
    """Yield fresh samples, nominally in [-1, 1], in whole batches."""
    for _ in range(count // batch or 1):
        z = torch.randn(min(batch, count), generator.z_dim)
        yield generator(z, noise_mode="random")


def grouped_modulated_conv2d(
    x: torch.Tensor,
    weight: torch.Tensor,
    styles: torch.Tensor,
    *,
    demodulate: bool = True,
    up_filter: torch.Tensor | None = None,
    gain: float = 1,
) -> tuple[torch.Tensor, None]:
    """Convolve every sample with a weight of its own: the definition, as a grouped convolution."""
    n, _, h, w = x.shape
    out, inner, k, _ = weight.shape
    own = weight * styles[:, None, :, None, None]
    if demodulate:
        own = own * (own.square().sum(dim=(2, 3, 4), keepdim=True) + 1e-8).rsqrt()
    own = own * gain
    x = x.reshape(1, n * inner, h, w)
    if up_filter is None:
        x = F.conv2d(x, own.reshape(n * out, inner, k, k), padding=k // 2, groups=n)
        return x.reshape(n, out, h, w), None
    own = own.transpose(1, 2).reshape(n * inner, out, k, k)
    x = F.conv_transpose2d(x, own, stride=2, groups=n)
    taps = up_filter.shape[-1]
    before = (taps + 1) // 2 + k // 2 - (k - 1)
    after = (taps - 2) // 2 + k // 2 - (k - 1) + 1
    x = low_pass(x, up_filter, before=before, after=after, gain=4)
    return x.reshape(n, out, 2 * h, 2 * w), None


def load_network(spec: BackboneSpec) -> nn.Module:
    """Return a backbone as its library builds it, with its weights."""
    path = None if spec.weights.random is not None else find_weights(spec, offline=True)
    return SOURCES[spec.source].build(spec, path).eval()


def extract(spec: BackboneSpec, network: nn.Module, batches: Iterator[torch.Tensor]) -> np.ndarray:
    """Return the pooled features of all batches."""
    fed = input_spec(spec)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (fed.mean, fed.std))
    features = []
    for images in batches:
        x = F.interpolate(images / 2 + 0.5, size=(fed.size, fed.size), mode="area")
        features.append(network.pool((x - mean) / std))
    return torch.cat(features).numpy()


def probe_once(real: np.ndarray, fake: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """Return the accuracy and the log loss on the half that was held out."""
    real = real[rng.permutation(len(real))]
    middle_real, middle_fake = -(-len(real) // 2), -(-len(fake) // 2)
    train = np.concatenate([real[:middle_real], fake[:middle_fake]])
    test = np.concatenate([real[middle_real:], fake[middle_fake:]])
    train_y = np.repeat([0, 1], [middle_real, middle_fake])
    test_y = np.repeat([0, 1], [len(real) - middle_real, len(fake) - middle_fake])
    probe = LogisticRegression(C=C, max_iter=ITERATIONS, random_state=0).fit(train, train_y)
    loss = log_loss(test_y, probe.predict_proba(test))
    return float(probe.score(test, test_y)), float(loss)


@torch.inference_mode()
def select(
    folder: Path, gen: Path, names: list[str], *, count: int, repeats: int, batch: int
) -> dict[str, Any]:
    """Run the procedure.

    Returns:
        Per backbone its accuracies, log losses (of which the reference knows nothing) and seconds;
        the winner: the best mean accuracy, the first in the list where several have it.
    """
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    generator = load_generator(gen).generator.float().eval()
    specs = {spec.name: spec for spec in load_bank(None).select(names)}
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        started = time.perf_counter()
        network = load_network(specs[name])
        results = []
        for _ in range(repeats):
            real = extract(specs[name], network, real_batches(folder, count, batch))
            fake = extract(specs[name], network, fake_batches(generator, count, batch))
            results.append(probe_once(real, fake, rng))
        accuracies, losses = zip(*results, strict=True)
        found[name] = {
            "accuracy": float(np.mean(accuracies)),
            "log_loss": float(np.mean(losses)),
            "seconds": time.perf_counter() - started,
        }
    best = max(found[name]["accuracy"] for name in names)
    return {
        "backbones": found,
        "winner": next(name for name in names if found[name]["accuracy"] == best),
        "tied": sum(found[name]["accuracy"] == best for name in names),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="The reference procedure of model selection.")
    parser.add_argument("--real", type=Path, required=True, help="folder of images")
    parser.add_argument("--gen", type=Path, required=True, help="generator, .safetensors")
    parser.add_argument("--backbones", required=True, help="comma-separated names of the bank")
    parser.add_argument("--images", type=int, default=512, help="of each class")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--modulation", choices=("factored", "grouped"), default="factored")
    args = parser.parse_args()
    convolution = stylegan2.modulated_conv2d
    if args.modulation == "grouped":
        convolution = grouped_modulated_conv2d
    with patch.object(stylegan2, "modulated_conv2d", convolution):
        found = select(
            args.real,
            args.gen,
            args.backbones.split(","),
            count=args.images,
            repeats=args.repeats,
            batch=args.batch,
        )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
