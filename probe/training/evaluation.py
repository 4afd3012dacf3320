"""Snapshot quality: distances in features that no discriminator has been trained on."""

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from probe.bank.layers import networks
from probe.bank.spec import BackboneSpec
from probe.context import Context
from probe.devices import autocast, send
from probe.discriminators.member import Member
from probe.errors import BackboneUnavailable, ProbeError
from probe.features.extract import Extractor, pooled_features
from probe.features.space import open_space
from probe.generators.checkpoint import Checkpoint
from probe.generators.networks.stylegan2 import Generator
from probe.generators.sampler import GeneratorSource
from probe.images.base import ImageSource
from probe.images.subset import Subset
from probe.metrics.frechet import FrechetReference
from probe.metrics.kernel import MOST, kernel_distance
from probe.metrics.prdc import neighbourhoods
from probe.streams import numpy_stream
from probe.training.own import OwnNetwork
from probe.training.reals import Reals, one_hot, refuse_broken

PART = 64
MOST_REALS = 50_000  # of a set too large to examine, that snapshots are compared with
WATCHED = 256  # images of each kind used for the discriminators' accuracies


@dataclass(frozen=True)
class SnapshotDistances:
    """Distances between a snapshot and the training images.

    Attributes:
        frechet: Fréchet distance in the evaluator's features; lower is better.
        kernel: unbiased kernel distance, with its 95 % interval.
        precision: share of the samples within the support of the training images.
        recall: share of the training images within the support of the samples.
        seconds: time spent measuring.
    """

    frechet: float
    kernel: float
    kernel_low: float
    kernel_high: float
    precision: float
    recall: float
    seconds: float


def sample_source(generator: Generator, reals: Reals, *, count: int, seed: int) -> GeneratorSource:
    """Return samples of a copy of a network in training as an image source.

    Drawing may take another memory layout than training.
    """
    generator = copy.deepcopy(generator)
    checkpoint = Checkpoint(
        generator=generator, architecture="stylegan2", digest="", init=generator.init_kwargs
    )
    return GeneratorSource(
        checkpoint,
        name="the generator in training",
        count=count,
        seed=seed,
        labels=reals.training.labels if reals.c_dim else None,
        device=next(generator.parameters()).device,
    )


class Evaluator:
    """Measures snapshots in the features of the bank's evaluator, against the training images.

    Of a set that was examined by sample, they are 50 000 drawn by the seed.
    """

    def __init__(
        self, spec: BackboneSpec, reals: Reals, ctx: Context, *, count: int, seed: int
    ) -> None:
        """Load the evaluator.

        Raises:
            BackboneUnavailable: its weights are missing.
        """
        self.name, self.reals, self.count, self.seed = spec.name, reals, count, seed
        self.ctx = ctx
        self.space = open_space(spec, ctx, resolution=reals.resolution)
        self.extractor = Extractor(
            {spec.name: self.space},
            networks([spec]),
            ctx.quiet(),
            resolution=reals.resolution,
        )
        self.backbone = self.extractor.pool.get(spec.name)
        self.features: np.ndarray | None = None

    def _see_reals(self) -> None:
        """Extract the training images' features, in the first process for keeps.

        Raises:
            BackboneUnavailable: the evaluator failed.
            ProbeError: an image that was examined has changed since the run began.
        """
        training, count = self.reals.training, len(self.reals.training)
        order: Sequence[int] = range(count)
        if self.reals.marks is not None and count > MOST_REALS:
            drawn = numpy_stream(self.seed, "evaluated").choice(count, MOST_REALS, replace=False)
            order = drawn.tolist()
        self.extractor.share_out(training, order)
        if not self.ctx.processes.is_first:
            self.features = np.empty(0)
            return
        found = self.extractor.extract(training, order, len(order))
        for failure in found.failures.values():
            raise BackboneUnavailable(f"the evaluator {self.name}: {failure.reason}")
        if self.reals.marks is None:
            refuse_broken(training, found.broken)
        self.features = self.space.read(found.keys)
        self.reference = FrechetReference(self.features)

    def measure(self, generator: Generator) -> SnapshotDistances | None:
        """Return the distances of a generator's samples; None except on the first process."""
        started = time.monotonic()
        if self.features is None:
            self._see_reals()
        source = sample_source(generator, self.reals, count=self.count, seed=self.seed)
        mine, rows = self.ctx.processes.share(range(self.count)), []
        for start in range(0, len(mine), PART):
            images = source.load(mine[start : start + PART], self.reals.resolution).images
            rows.append(
                pooled_features(
                    self.backbone, images, device=self.ctx.device, precision=self.ctx.precision
                )
            )
        fakes = self.ctx.processes.gather(np.concatenate(rows))
        if not self.ctx.processes.is_first:
            return None
        if not np.isfinite(fakes).all():
            raise ProbeError(
                f"The evaluator {self.name} gives NaN or infinite features of the fakes. Use "
                "--precision fp32, or another evaluator."
            )
        assert self.features is not None
        kernel = kernel_distance(self.features, fakes, seed=self.seed)
        # As many of each kind: the shares depend on the numbers, and all pairs of the reals of a
        # large set would take longer than the training.
        count = min(len(self.features), len(fakes), MOST)
        order = numpy_stream(self.seed, "precision and recall").permutation(len(self.features))
        near = neighbourhoods(self.features[order[:count]], fakes[:count])
        return SnapshotDistances(
            frechet=self.reference.distance(fakes),
            kernel=kernel.value,
            kernel_low=kernel.low,
            kernel_high=kernel.high,
            precision=near.precision,
            recall=near.recall,
            seconds=time.monotonic() - started,
        )


@torch.no_grad()
def accuracies(
    members: Sequence[Member],
    generator: Generator,
    reals: Reals,
    ctx: Context,
    *,
    seed: int,
) -> dict[str, float]:
    """Return the share of images that each discriminator classifies correctly, unaugmented.

    Measured on training images, held-out ones if there are any, and fakes. As a discriminator
    overfits, the accuracies on training and held-out images drift apart.

    Returns:
        "Accuracy/<name>/train", "…/holdout" and "…/fake", from 0 to 1.
    """
    fakes = sample_source(generator, reals, count=min(WATCHED, len(reals.training)), seed=seed)
    groups: dict[str, ImageSource] = {"train": reals.training, "fake": fakes}
    if len(reals.holdout):
        groups["holdout"] = reals.holdout
    found = {}
    for kind, source in groups.items():
        indices = list(range(min(WATCHED, len(source))))
        labels = source.labels if reals.c_dim else None
        right = {member.name: torch.zeros([], device=ctx.device) for member in members}
        for start in range(0, len(indices), PART):
            part = indices[start : start + PART]
            if isinstance(source, Subset):
                pixels, part = reals.load(source, part)
            else:
                pixels = source.load(part, reals.resolution).images
            images = send(pixels, ctx.device).float() / 127.5 - 1
            c = one_hot(reals, None if labels is None else [labels[i] for i in part])
            c = None if c is None else send(c, ctx.device)
            for member in members:
                with autocast(ctx.device, ctx.precision):
                    logits = _in_groups(member, images, c)
                right[member.name] += ((logits > 0) == (kind != "fake")).sum()
        found |= {f"Accuracy/{name}/{kind}": n.item() / len(indices) for name, n in right.items()}
    return found


def _in_groups(member: Member, images: torch.Tensor, c: torch.Tensor | None) -> torch.Tensor:
    """Return the final logits (N,), repeating images so that minibatch-std groups divide them."""
    n, network = len(images), member.network
    group = network.discriminator.b4.group_size if isinstance(network, OwnNetwork) else 1
    rows = torch.arange(-(-n // group) * group, device=images.device) % n
    full = network(images[rows], None if c is None else c[rows])
    return full[-1][:n].float()
