"""The generator's loss against an ensemble, one member after the other.

The loss is the sum of the members' losses, each with weight 1 (Kumari et al. 2022, section 3)
unless `Discriminators` is told otherwise. The gradient of a sum is the sum of the gradients, so
each member runs forward and backward by itself and only one graph is in memory. The bundled
trainer and `Discriminators` both use this.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from probe.discriminators.critic import Critic
from probe.discriminators.step import Minibatch, Step


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Treat a network's parameters as constants in the graphs built inside."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)


def generator_gradient(
    members: Sequence[Critic],
    fakes: Minibatch,
    step: Step,
    weights: Mapping[str, float] | None = None,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the gradient of the generator's loss with respect to its images.

    Each member runs forward and backward by itself, so that only one graph is in memory.

    Args:
        members: the ensemble.
        fakes: images without a graph.
        step: see `Step`.
        weights: member → weight of its loss; 1 unless given.

    Returns:
        Gradient (n, 3, R, R), and each member's loss before weighting, scalars on the device.
    """
    images = fakes.images.detach().requires_grad_()
    losses = {}
    for member in members:
        with frozen(member.network):
            loss = member.generator_loss(Minibatch(images, fakes.c), step)
            # The backward pass takes its types from the forward pass, not from autocast.
            with step.span(member.name), torch.autocast(images.device.type, enabled=False):
                (loss * (weights or {}).get(member.name, 1.0)).backward()  # adds to images.grad
        losses[f"Loss/G/{member.label}"] = loss.detach()
    return torch.zeros_like(images) if images.grad is None else images.grad, losses


def generator_loss(
    members: Sequence[Critic], fakes: Minibatch, step: Step, weights: Mapping[str, float]
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the weighted sum of the members' losses, whose gradient flows to the images.

    That gradient is computed at once, by `generator_gradient`, if it will be needed; it has no
    second derivative. In float16 it is left to the caller's `backward`, because a gradient scaler
    has to scale the loss before the backbones' backward pass.

    Args:
        members: the ensemble.
        fakes: images with a graph.
        step: see `Step`.
        weights: member → weight of its loss.

    Returns:
        A scalar, 0 without members, and each member's loss before weighting.
    """
    images = fakes.images.float()
    is_needed = images.requires_grad and torch.is_grad_enabled()
    if is_needed and not _is_float16(images.device):
        gradient, losses = generator_gradient(members, Minibatch(images, fakes.c), step, weights)
        total = _sum(members, losses, weights, images)
        return _KnownGradient.apply(images, total, gradient), losses
    losses = {}
    for member in members:
        with frozen(member.network):
            losses[f"Loss/G/{member.label}"] = member.generator_loss(
                Minibatch(images, fakes.c), step
            )
    return _sum(members, losses, weights, images), losses


class _KnownGradient(torch.autograd.Function):
    """A loss of images whose gradient has been computed already."""

    @staticmethod
    def forward(
        ctx: Any, images: torch.Tensor, loss: torch.Tensor, gradient: torch.Tensor
    ) -> torch.Tensor:
        """Return the loss."""
        ctx.save_for_backward(gradient)
        return loss.clone()

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *gradients: torch.Tensor
    ) -> tuple[torch.Tensor, None, None]:
        """Return the gradient, times that of the loss."""
        (scale,), (gradient,) = gradients, ctx.saved_tensors
        return gradient * scale, None, None


def _sum(
    members: Sequence[Critic],
    losses: Mapping[str, torch.Tensor],
    weights: Mapping[str, float],
    images: torch.Tensor,
) -> torch.Tensor:
    """Return the weighted sum of losses, a scalar."""
    if not members:
        return images.sum() * 0
    each = [weights.get(m.name, 1.0) * losses[f"Loss/G/{m.label}"].float() for m in members]
    return torch.stack(each).sum()


def _is_float16(device: torch.device) -> bool:
    """Return whether the caller's autocast is to float16."""
    kind = device.type
    return torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.float16
