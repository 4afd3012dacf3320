"""Adversarial losses and their regularisers: pure functions of logits and images.

A discriminator's logits come in levels: a plain one has a single level (N,), a head on several
feature maps has maps of logits (N, h, w) and a final logit. A loss is the sum over levels of each
level's mean.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from probe.discriminators.draws import as_float

Levels = Sequence[torch.Tensor]


def _over_levels(levels: Levels, loss: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    return torch.stack([loss(logits).mean() for logits in levels]).sum()


@dataclass(frozen=True)
class AdversarialLoss:
    """The three terms of an adversarial loss, each logits → loss of the same shape.

    Attributes:
        real: (logits of reals, target) for the discriminator; the target is the desired
            probability of "real", 1 or a smoothed value.
        fake: logits of fakes, for the discriminator.
        fool: (logits of fakes, target) for the generator.
    """

    real: Callable[[torch.Tensor, float], torch.Tensor]
    fake: Callable[[torch.Tensor], torch.Tensor]
    fool: Callable[[torch.Tensor, float], torch.Tensor]

    def discriminator(self, real: Levels, fake: Levels, target: float = 1.0) -> torch.Tensor:
        """Return the discriminator's loss, a scalar."""
        return _over_levels(real, lambda x: self.real(x, target)) + _over_levels(fake, self.fake)

    def generator(self, fake: Levels, target: float = 1.0) -> torch.Tensor:
        """Return the generator's loss, a scalar."""
        return _over_levels(fake, lambda x: self.fool(x, target))


def _cross_entropy(logits: torch.Tensor, target: float) -> torch.Tensor:
    """Return the elementwise binary cross-entropy with logits against a constant target."""
    # -t·log σ(x) - (1-t)·log(1-σ(x)), in a form that is stable at any logit.
    return target * F.softplus(-logits) + (1 - target) * F.softplus(logits)


# The non-saturating logistic loss (Goodfellow et al. 2014, section 3).
SIGMOID = AdversarialLoss(
    real=_cross_entropy, fake=lambda x: _cross_entropy(x, 0.0), fool=_cross_entropy
)
# A hinge loss has no probabilities, so it ignores smoothed targets.
HINGE = AdversarialLoss(
    real=lambda x, _: F.relu(1 - x), fake=lambda x: F.relu(1 + x), fool=lambda x, _: -x
)


def r1_penalty(inputs: Sequence[torch.Tensor], levels: Levels) -> torch.Tensor:
    """Return R1, the mean squared norm of a discriminator's gradient at its real inputs, a scalar.

    Mescheder et al. 2018, equation 9, without the factor gamma/2. A level with several logits
    enters as their mean, as it does in the loss.

    Args:
        inputs: images (N, C, R, R), or a frozen backbone's features (N, …) each, requiring
            gradient; inputs that no logit depends on contribute 0.
        levels: (N,) or (N, h, w) each, computed from `inputs`.
    """
    total = len(levels[0]) * _over_levels(levels, lambda logits: logits)
    gradients = torch.autograd.grad(total, inputs, create_graph=True, allow_unused=True)
    squares = [as_float(g).square().flatten(1).sum(dim=1) for g in gradients if g is not None]
    return torch.stack(squares).sum(dim=0).mean()


def path_lengths(images: torch.Tensor, ws: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Return how far each image moves per step in its latents, along a random image direction.

    Karras et al. 2020a, section 3.2: the norm of Jᵀy with y = noise / sqrt(H·W), with squares
    averaged over layers and summed over the width of w.

    Args:
        images: (N, C, H, W), computed from `ws`.
        ws: (N, L, w_dim), requiring gradient.
        noise: standard normal, in the images' shape.

    Returns:
        (N,) float32, differentiable again.
    """
    scaled = noise / math.sqrt(images.shape[2] * images.shape[3])
    (gradient,) = torch.autograd.grad((images * scaled).sum(), ws, create_graph=True)
    return gradient.float().square().sum(dim=2).mean(dim=1).sqrt()


def path_length_penalty(
    lengths: torch.Tensor, running: torch.Tensor, mean: torch.Tensor, decay: float
) -> torch.Tensor:
    """Return the mean squared distance of path lengths from their running mean, a scalar.

    Karras et al. 2020a, equation 4. The running mean already includes a share `decay` of this
    batch's mean, and the gradient flows through that share too, as in the original.

    Args:
        lengths: (n,), this process's share of the batch.
        running: the running mean, a scalar without a graph.
        mean: mean length over all processes, a scalar without a graph.
        decay: the share of `mean` in `running`.
    """
    # The mean over all processes has no graph, so this term adds its gradient: the derivative with
    # respect to the running mean, times each length's contribution. The term itself is zero.
    pull = -2 * decay * (mean - running)
    distance = (lengths - running.to(lengths.dtype)).square().mean()
    return distance + pull.to(lengths.dtype) * (lengths - lengths.detach()).mean()
