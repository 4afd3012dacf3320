"""What the benchmarks are fed: generators, folders of images, features."""

import math
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from probe.bundled import DEMO_REALS
from probe.generators.files.snapshot import save_snapshot
from probe.generators.networks.stylegan2 import Generator
from probe.images.open import open_images

WIDTH = 512  # of z and w, as in the presets of the StyleGAN2-ADA family
CALIBRATION_SEEDS = range(16)


@torch.no_grad()
def build_generator(
    resolution: int = 64, channel_base: int = 16384, *, seed: int = 0, mapping_layers: int = 8
) -> Generator:
    """Return a StyleGAN2 of usual size with random weights whose images have full contrast.

    Fresh noise strengths and biases are 0 and colours faint; here noise is on, and the last
    step is scaled so that the mean of the pixels is 0 and their deviation 0.5.

    Args:
        resolution: of its images.
        channel_base: channels at resolution r are this over r, at most 512.
        seed: of the weights.
        mapping_layers: of the mapping network.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        generator = Generator(
            WIDTH,
            0,
            WIDTH,
            resolution,
            3,
            mapping_kwargs={"num_layers": mapping_layers},
            synthesis_kwargs={"channel_base": channel_base},
        )
    generator.eval().requires_grad_(False)
    for name, parameter in generator.named_parameters():
        if name.endswith("noise_strength"):
            parameter.fill_(0.1)
    _give_contrast(generator)
    return generator


def _give_contrast(generator: Generator) -> None:
    """Scale and shift what every resolution adds to the image."""
    z = torch.from_numpy(
        np.concatenate([np.random.RandomState(s).randn(1, WIDTH) for s in CALIBRATION_SEEDS])
    ).float()
    images = generator(z, noise_mode="const")
    mean, factor = images.mean(dim=(0, 2, 3)), 0.5 / images.std()
    blocks = [getattr(generator.synthesis, f"b{r}") for r in generator.synthesis.resolutions]
    for block in blocks:
        block.torgb.weight *= factor
        block.torgb.bias *= factor
    # Up-sampling keeps a constant, but for the border.
    blocks[0].torgb.bias -= mean * factor


def save_generator(path: Path, generator: Generator) -> None:
    """Write a generator as `probe train` would."""
    save_snapshot(path, generator, metadata={"kimg": 0})


def write_demo_reals(folder: Path, count: int, resolution: int) -> None:
    """Write the first bundled images, resized where `resolution` is not their 64 px, as PNG."""
    source = open_images(DEMO_REALS)
    if count > len(source):
        raise SystemExit(f"--images: there are {len(source)} bundled images, not {count}.")
    batch = source.load(range(count), resolution)
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(batch.images):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{i:05d}.png")


def write_noise(folder: Path, count: int, side: int, *, suffix: str, seed: int) -> None:
    """Write images of smooth noise, whose detail falls off as that of photographs does.

    Args:
        folder: where to.
        count: how many, all different.
        side: in pixels.
        suffix: "png" or "jpg".
        seed: of the noise; sets of different seeds have nothing in common but their kind.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # A process per core, forked: they need no more of this one than what is imported.
    shares = np.array_split(np.arange(count), os.cpu_count() or 1)
    with ProcessPoolExecutor(len(shares), mp_context=get_context("fork")) as processes:
        futures = [
            processes.submit(_write_share, folder, share, side, suffix, seed) for share in shares
        ]
        for future in futures:
            future.result()


def _write_share(folder: Path, share: np.ndarray, side: int, suffix: str, seed: int) -> None:
    options = {"compress_level": 1} if suffix == "png" else {"quality": 90}
    for i in share.tolist():
        image = Image.fromarray(_smooth_noise(np.random.default_rng((seed, i)), side))
        image.save(folder / f"{i:06d}.{suffix}", **options)


def _smooth_noise(rng: np.random.Generator, side: int) -> np.ndarray:
    total = np.zeros((side, side, 3), np.float32)
    for octave in _octaves(side):
        noise = Image.fromarray(rng.integers(0, 256, (octave, octave, 3), dtype=np.uint8))
        total += np.asarray(noise.resize((side, side), Image.Resampling.BILINEAR), np.float32) - 128
    return (128 + total / 2).clip(0, 255).astype(np.uint8)


def _octaves(side: int) -> Iterator[int]:
    octave = 4
    while octave <= side // 4:
        yield octave
        octave *= 4


def synthetic_features(
    rows: int, width: int, *, gap: float = 1.5, decay: float = 1.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return features of reals and fakes with the spectrum that pooled features have.

    Deviations along random directions fall as 1 / k^(decay / 2) with the rank k, and the columns
    are made non-negative with a heavy tail, as after a ReLU. The classes differ by a shift that is
    spread over all directions in proportion to their deviations.

    Args:
        rows: of both classes together.
        width: number of features.
        gap: length of the shift in deviations: 0 is chance, 5 is nearly separable.
        decay: of the spectrum.
        seed: of everything.
    """
    rng = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(rng.standard_normal((width, width)).astype(np.float32))
    deviations = np.arange(1, width + 1, dtype=np.float32) ** (-decay / 2)
    shift = rng.standard_normal(width).astype(np.float32)
    shift *= gap / np.linalg.norm(shift)
    halves = []
    for sign in (-0.5, 0.5):
        latent = rng.standard_normal((rows // 2, width), dtype=np.float32) + sign * shift
        mixed = (latent * deviations) @ rotation
        scale = math.sqrt(float(np.square(deviations).sum()) / width)
        halves.append(np.maximum(mixed / scale + 0.5, 0))
    return halves[0], halves[1]
