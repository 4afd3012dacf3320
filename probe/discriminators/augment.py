"""Differentiable augmentations in front of a discriminator, by name."""

from collections.abc import Callable, Mapping

import torch

from probe.discriminators.ada import ada
from probe.discriminators.diffaugment import diffaugment
from probe.discriminators.draws import Draw

# Name → function of (images, p, draw) that returns images of the same shape.
AUGMENTATIONS: Mapping[str, Callable[[torch.Tensor, float, Draw], torch.Tensor]] = {
    "ada": ada,
    "diffaugment": lambda images, p, draw: diffaugment(images, draw),  # has no p: always applies
    "none": lambda images, p, draw: images,
}
