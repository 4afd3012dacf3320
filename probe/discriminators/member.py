"""The discriminators of the bundled trainer, each with its optimizer.

Adding one does not change the others.
"""

from typing import Any

import torch
from torch import nn

from probe.bank.base import Backbone
from probe.discriminators.critic import SMOOTHED, Critic
from probe.discriminators.options import DiscriminatorOptions
from probe.discriminators.step import Minibatch, Step
from probe.discriminators.vision import vision_network
from probe.processes import Processes


class Member(Critic):
    """A discriminator of the bundled trainer, with the optimizer of its network."""

    def __init__(
        self,
        name: str,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        options: DiscriminatorOptions,
        *,
        target: float = 1.0,
    ) -> None:
        super().__init__(name, network, options, target=target)
        self.optimizer = optimizer

    def state_dict(self) -> dict[str, Any]:
        """Return the trained state and the targets as tensors and plain values."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "adaptive": self.adaptive.state_dict(),
            "target": self.target,
            "generator_target": self.generator_target,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.adaptive.load_state_dict(state["adaptive"])
        self.target, self.generator_target = state["target"], state["generator_target"]


def make_adam(network: nn.Module, lr: float, interval: int) -> torch.optim.Adam:
    """Return the optimizer of a network: Adam with betas 0 and 0.99, scaled for `interval`.

    Lazy regularisation adds one step every `interval` steps. Learning rate and betas are scaled so
    that all steps together move the weights as far as before (Karras et al. 2020a, appendix B).
    Published learning rates assume this scaling even if the regulariser's weight is 0.
    """
    share = interval / (interval + 1)
    return torch.optim.Adam(
        network.parameters(), lr=lr * share, betas=(0.0, 0.99**share), eps=1e-8, fused=True
    )


def vision_member(
    options: DiscriminatorOptions,
    backbone: Backbone,
    *,
    c_dim: int = 0,
    smooth: bool = False,
    device: torch.device | str = "cpu",
) -> Member:
    """Return a new discriminator on a backbone; see `vision_network`.

    Args:
        options: of the discriminator.
        backbone: frozen, on the device.
        c_dim: number of classes for the head, 0 for none.
        smooth: whether the target of reals is 0.8.
        device: device to train on.
    """
    network = vision_network(options, backbone, c_dim=c_dim, device=device)
    optimizer = make_adam(network, options.lr, options.r1_interval)
    target = SMOOTHED if smooth else 1.0
    return Member(backbone.name, network, optimizer, options, target=target)


def discriminator_step(
    member: Member, reals: Minibatch, fakes: Minibatch, step: Step
) -> dict[str, torch.Tensor]:
    """Train one member on a batch of reals and a batch of fakes, both without a graph.

    Returns:
        Loss and mean final logits, scalars on the device.
    """
    judged = member.discriminator_loss(reals, fakes, step)
    with step.span(member.name):
        member.optimizer.zero_grad(set_to_none=True)
        judged.loss.backward()
        take_step(member.optimizer, step.processes)
    return member.observe(judged)


def take_step(optimizer: torch.optim.Optimizer, processes: Processes) -> None:
    """Average the gradients over the processes, then step the optimizer."""
    gradients = [
        p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None
    ]
    processes.average_(gradients)
    optimizer.step()
