"""Half precision for the blocks that ran in it when the generator was trained."""

from typing import Any

import torch

from probe.accel import enabled
from probe.errors import CheckpointError
from probe.generators.base import Generator
from probe.generators.config import SampleOptions
from probe.generators.sampler import draw_images

SEEDS = range(8)
LEVELS = 2  # of 255


def choose_half(
    generator: Generator, sample: SampleOptions, device: torch.device, precision: str = "auto"
) -> None:
    """Let blocks run in float16 on a GPU, if that hardly changes a sample of images.

    Sets its `half_precision`. Only StyleGAN2 has such blocks, if its file names them and limits
    activations, which keeps them within float16's range.

    Args:
        generator: on `device`.
        sample: how images are drawn.
        device: the device that draws.
        precision: "fp32" leaves everything in float32.
    """
    able = getattr(generator, "can_halve", False)
    if not able or not _pays(device) or precision == "fp32" or not enabled():
        return
    network: Any = generator
    classes = [i % generator.c_dim for i in SEEDS] if generator.c_dim else None

    def draw() -> torch.Tensor:
        with torch.inference_mode():
            images = draw_images(
                generator,
                SEEDS,
                classes,
                sample=sample,
                device=device,
                name="the generator",
            )
        return images.int()

    exact = draw()
    network.half_precision = True
    try:
        network.half_precision = (draw() - exact).abs().max().item() <= LEVELS
    except CheckpointError:  # out of float16's range
        network.half_precision = False


def _pays(device: torch.device) -> bool:
    """Return whether float16 is faster on a device."""
    return device.type == "cuda"


def half_notes(generator: Generator, name: str) -> list[str]:
    """Return a sentence for the user if a generator runs in half precision."""
    if not getattr(generator, "half_precision", False):
        return []
    return [
        f"{name} is drawn in float16 in the layers that were trained in it; {len(SEEDS)} sample "
        f"images stay within {LEVELS} grey levels. PROBE_ACCEL=0 draws in float32."
    ]
