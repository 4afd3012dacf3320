"""Adversarial losses and their regulariser: pure functions of logits and images."""

import torch
from torch.nn import functional as F


def generator_loss(fake_logits: torch.Tensor) -> torch.Tensor:
    """Non-saturating logistic loss of the generator; logits (N,) → scalar.

    Goodfellow et al. 2014, section 3: mean of softplus(-D(G(z))).
    """
    return F.softplus(-fake_logits).mean()


def discriminator_loss(real_logits: torch.Tensor, fake_logits: torch.Tensor) -> torch.Tensor:
    """Logistic loss of the discriminator; logits (N,), (M,) → scalar.

    Mean of softplus(-D(x)) plus mean of softplus(D(G(z))).
    """
    return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()


def r1_penalty(real_images: torch.Tensor, real_logits: torch.Tensor) -> torch.Tensor:
    """R1: mean squared norm of the discriminator's gradient at real images, a scalar.

    Mescheder et al. 2018, equation 9, without the factor gamma/2.

    Args:
        real_images: (N, C, R, R), requiring gradient.
        real_logits: (N,), computed from `real_images`.
    """
    (gradient,) = torch.autograd.grad(real_logits.sum(), real_images, create_graph=True)
    return gradient.float().square().sum(dim=(1, 2, 3)).mean()
