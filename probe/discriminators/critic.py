"""One discriminator of an ensemble: its network, augmentation and losses, without an optimizer.

It returns losses, for any training loop. `Member` is a critic that the bundled trainer steps.
"""

from typing import Any, NamedTuple

import torch
from torch import nn

from probe.discriminators import AUGMENTATIONS, LOSSES
from probe.discriminators.adaptive import AdaptiveAugment
from probe.discriminators.draws import Draw
from probe.discriminators.losses import Levels, r1_penalty
from probe.discriminators.options import DiscriminatorOptions
from probe.discriminators.step import Minibatch, Step
from probe.discriminators.vision import VisionNetwork
from probe.registry import load
from probe.streams import torch_stream

SMOOTHED = 0.8  # target of reals if smoothed
P_INTERVAL = 4  # steps between updates of an augmentation's p


class Judgement(NamedTuple):
    """A discriminator's loss on a batch of reals and a batch of fakes, and its logits.

    Attributes:
        loss: a scalar.
        reals, fakes: levels of logits, the final one (n,) last.
    """

    loss: torch.Tensor
    reals: Levels
    fakes: Levels


class Critic:
    """One discriminator of the ensemble, without an optimizer.

    Args:
        name: "D" for the GAN's own discriminator, else the backbone's name.
        network: its trainable part; maps images (N, 3, R, R) in [-1, 1] and classes to levels of
            logits, the final one (N,) last. Unless it is a `VisionNetwork`, it also takes
            `batches`: how many batches of equal size the images are.
        options: loss, augmentation, seed.
        target: target probability of "real" for reals: 1, or 0.8 if smoothed.

    Attributes:
        adaptive: controls the p of its augmentation.
        is_adaptive: whether that p moves.
        generator_target: target probability of "real" for fakes in the generator's loss.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        options: DiscriminatorOptions,
        *,
        target: float = 1.0,
    ) -> None:
        self.name, self.network = name, network
        self.augmentation = AUGMENTATIONS[options.augmentation]
        self.loss = load(LOSSES[options.loss])
        self.adaptive = AdaptiveAugment(options.target, interval=P_INTERVAL)
        self.is_adaptive = self.augmentation.adaptive and options.p is None
        if options.p is not None and self.augmentation.adaptive:
            self.adaptive.p = options.p
        self.target = target
        self.generator_target = target if options.smooth_generator else 1.0
        self.seed = options.seed

    @property
    def label(self) -> str:
        """Key of its losses in the statistics; D's is "loss", which existing tools parse."""
        return "loss" if self.name == "D" else self.name

    def augment(self, images: torch.Tensor, purpose: str, step: Step) -> torch.Tensor:
        """Augment images with this member's own random stream.

        Args:
            images: (n, 3, R, R), this process's share.
            purpose: part of the stream's name; keeps the draws of one step different.
            step: numbers are drawn for the global batch, and each process takes its share.
        """
        rng = torch_stream(self.seed, "augment", self.name, purpose, step.seen)
        rank, size = step.processes.rank, step.processes.size
        draw = Draw(rng, len(images) * size, rank, size)
        augmented = self.augmentation(images, self.adaptive.p, draw)
        more = self.augmentation.before_backbones
        if more is not None and isinstance(self.network, VisionNetwork):
            augmented = load(more)(augmented, draw)
        return augmented

    def generator_loss(self, fakes: Minibatch, step: Step) -> torch.Tensor:
        """Return the generator's loss, a scalar; gradients flow to the images."""
        with step.span("augment"):
            images = self.augment(fakes.images, "generator", step)
        with step.span(self.name), step.autocast(images.device):
            levels = step.run(_logits, self.network, images, fakes.c)
            return self.loss.generator(levels, self.generator_target)

    def discriminator_loss(self, reals: Minibatch, fakes: Minibatch, step: Step) -> Judgement:
        """Return the discriminator's loss; gradients flow to the network alone."""
        with step.span("augment"), torch.no_grad():
            reals = reals._replace(images=self.augment(reals.images, "real", step))
            fakes = fakes._replace(images=self.augment(fakes.images, "fake", step))
        with step.span(self.name), step.autocast(reals.images.device):
            both = step.run(_logits_of_both, self.network, *_joined(reals, fakes))
            n = len(reals.images)
            on_reals, on_fakes = [x[:n] for x in both], [x[n:] for x in both]
            loss = self.loss.discriminator(on_reals, on_fakes, self.target)
        return Judgement(loss, on_reals, on_fakes)

    def feature_penalty(self, reals: Minibatch, step: Step) -> torch.Tensor:
        """Return R1 of a backbone's head at the features of the reals, a scalar; see `r1_penalty`.

        The backbone is fixed, so the penalty leaves out its derivative, which costs nothing then.
        """
        assert isinstance(self.network, VisionNetwork)
        device = reals.images.device
        with torch.no_grad(), step.autocast(device):
            maps, pooled = self.network.features(self.augment(reals.images, "r1", step))
        features = [x.float().requires_grad_() for x in (*maps, pooled)]
        with torch.autocast(device.type, enabled=False):  # half precision rounds double gradients
            levels = self.network.head(features[:-1], features[-1], reals.c)
        return r1_penalty(features, levels)

    def observe(self, judged: Judgement) -> dict[str, torch.Tensor]:
        """Tell ADA how the reals were judged.

        Returns:
            Loss and mean final logits, by their names in the statistics; scalars on the device.
        """
        final = judged.reals[-1].detach()
        self.adaptive.observe(final.sign().sum(), len(final))
        prefix = "Loss/scores" if self.name == "D" else f"Loss/scores/{self.name}"
        return {
            f"Loss/D/{self.label}": judged.loss.detach(),
            f"{prefix}/real": final.mean(),
            f"{prefix}/fake": judged.fakes[-1].detach().mean(),
        }


def _logits(network: nn.Module, images: torch.Tensor, c: torch.Tensor | None) -> Any:
    """Return the logits of images; gradients flow to them."""
    return network(images, c)


def _joined(reals: Minibatch, fakes: Minibatch) -> Minibatch:
    """Return reals and fakes as one batch."""
    c = None if reals.c is None or fakes.c is None else torch.cat([reals.c, fakes.c])
    return Minibatch(torch.cat([reals.images, fakes.images]), c)


def _logits_of_both(network: nn.Module, images: torch.Tensor, c: torch.Tensor | None) -> Any:
    """Return the logits of reals and fakes from one pass; a backbone runs without gradients."""
    if not isinstance(network, VisionNetwork):
        return network(images, c, batches=2)
    with torch.no_grad():
        maps, pooled = network.features(images)
    return network.head(maps, pooled, c)
