"""Differentiable augmentations in front of a discriminator, by name."""

from collections.abc import Callable, Mapping

import torch

from probe.training.ada import ada
from probe.training.diffaugment import diffaugment
from probe.training.draws import Draw

# Name → function of (images, p, draw) that returns images of the same shape.
AUGMENTATIONS: Mapping[str, Callable[[torch.Tensor, float, Draw], torch.Tensor]] = {
    "ada": ada,
    "diffaugment": lambda images, p, draw: diffaugment(images, draw),  # has no p: always applies
    "none": lambda images, p, draw: images,
}
