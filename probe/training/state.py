"""The complete state of a training run, and its record.

Randomness is a function of (seed, images seen) and progress counts images, so no generator state
is stored: the same options and this state continue the run exactly.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

from probe.discriminators.member import Member, make_adam
from probe.generators.networks import stylegan2
from probe.processes import Processes
from probe.streams import stream_seed
from probe.training.config import ResolvedConfig
from probe.training.discriminator import Discriminator
from probe.training.inherit import Inherited
from probe.training.own import own_member


@dataclass(frozen=True)
class Networks:
    """The networks of a GAN before training.

    Attributes:
        generator: the one to train.
        discriminator: the GAN's own.
        average: the generator's weight average; None to start from the generator itself.
    """

    generator: stylegan2.Generator
    discriminator: Discriminator
    average: stylegan2.Generator | None = None


def make_networks(
    config: ResolvedConfig, resolution: int, c_dim: int = 0, given: Inherited | None = None
) -> Networks:
    """Return networks initialised from the seed, except for given ones.

    Args:
        config: the resolved options.
        resolution: side in pixels.
        c_dim: number of classes.
        given: networks read from a file, or None.
    """
    widths = {"channel_base": config.channel_base, "channel_max": config.channel_max}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(config.seed, "init"))
        generator = None if given is None else given.generator
        if generator is None:
            generator = stylegan2.Generator(
                config.z_dim,
                c_dim,
                config.w_dim,
                resolution,
                3,
                mapping_kwargs={"num_layers": config.map_layers},
                synthesis_kwargs=dict(widths),
            )
        discriminator = None if given is None else given.discriminator
        if discriminator is None:
            discriminator = Discriminator(
                c_dim, resolution, 3,
                architecture=config.d_architecture, mbstd_group_size=config.mbstd_group,
                **widths,
            )  # fmt: skip
    return Networks(generator, discriminator, None if given is None else given.average)


class TrainState:
    """The networks, their optimizers and the counters.

    Attributes:
        generator: the network being trained.
        average: its exponential moving average; this is what snapshots hold.
        generator_optimizer: Adam, betas (0, 0.99).
        members: the discriminators, the GAN's own first.
        images: number of real images shown so far.
        tick: ticks so far.
        snapped: `images` at the last snapshot.
        statistics: name → values, scalars on the device, of each step of the tick so far.
        stage: the current stage; 0 is the warm-up.
        shift: images by which early-ended stages shorten the schedule.
        path_mean: running mean of path lengths, float64.
        best: kimg and evaluator distance of the best snapshot so far, or None.
        stale: snapshots since the distance last improved in this stage, and the lowest distance.
        weights: digest of each backbone in use, by name; see `Run.digest`.
        judge: digest of the evaluator, "" if there is none.
        digest: digest of the training data and options; a state resumes only its own run.
        c_dim: number of classes.
    """

    def __init__(
        self,
        config: ResolvedConfig,
        networks: Networks,
        device: torch.device,
        digest: str,
        layout: torch.memory_format = torch.channels_last,
    ) -> None:
        generator, discriminator = networks.generator, networks.discriminator
        average = copy.deepcopy(generator if networks.average is None else networks.average)
        for network in (generator, average, discriminator):
            network.to(device).to(memory_format=layout)
        self.generator = generator.requires_grad_(True)
        self.average = average.eval().requires_grad_(False)
        self.generator_optimizer = make_adam(self.generator, config.lr, config.pl_interval)
        self.members: list[Member] = [own_member(config, discriminator.requires_grad_(True))]
        self.images = self.tick = self.stage = self.shift = self.snapped = 0
        self.statistics: dict[str, list[torch.Tensor]] = {}
        self.path_mean = torch.zeros([], dtype=torch.float64)
        self.best: tuple[float, float] | None = None
        self.stale: tuple[int, float] = (0, float("inf"))
        self.weights: dict[str, str] = {}
        self.judge = ""
        self.digest = digest
        self.c_dim = generator.c_dim

    NETWORKS = ("generator", "average", "generator_optimizer")
    VALUES = ("images", "tick", "snapped", "stage", "shift", "path_mean", "best", "stale",
              "weights", "judge", "digest")  # fmt: skip

    @property
    def names(self) -> list[str]:
        """The backbones in use, in the order they joined."""
        return [member.name for member in self.members[1:]]

    def record(self) -> dict[str, Any]:
        """Return everything as tensors and plain values, ready to be saved or restored."""
        record: dict[str, Any] = {n: getattr(self, n).state_dict() for n in self.NETWORKS}
        record |= {n: getattr(self, n) for n in self.VALUES}
        record["statistics"] = {n: torch.stack(v) for n, v in self.statistics.items()}
        record["members"] = {member.name: member.state_dict() for member in self.members}
        return record

    def restore(
        self, record: Mapping[str, Any], make_member: Callable[[str], Member], processes: Processes
    ) -> None:
        """Continue from what `record` returned.

        Args:
            record: of the same run.
            make_member: builds the discriminator on a backbone, given its name.
            processes: the first one takes the observations made since p was last updated.
        """
        for name in self.NETWORKS:
            getattr(self, name).load_state_dict(record[name])
        # Records of earlier releases lack some of these. They were written after a snapshot.
        for name, value in ({"snapped": record["images"]} | dict(record)).items():
            if name in self.VALUES:
                setattr(self, name, value)
        device = next(self.generator.parameters()).device
        kept = record.get("statistics", {})
        self.statistics = {name: list(v.to(device)) for name, v in kept.items()}
        for name, saved in record["members"].items():
            if name != "D":
                self.members.append(make_member(name))
            self.members[-1].load_state_dict(saved)
            if not processes.is_first:
                self.members[-1].adaptive.clear()

    def is_finite(self) -> bool:
        """Return whether no weight of the trained networks is NaN or infinite."""
        networks = (self.generator, *(member.network for member in self.members))
        return all(bool(p.isfinite().all()) for n in networks for p in n.parameters())

    @torch.no_grad()
    def update_average(self, batch: int, half_life_images: float) -> None:
        """Move the average towards the generator, with a half-life given in images."""
        beta = 0.5 ** (batch / max(half_life_images, 1e-8))
        ours: list[torch.Tensor] = list(self.average.parameters())
        theirs: list[torch.Tensor] = list(self.generator.parameters())
        get_ema_multi_avg_fn(beta)(ours, theirs, None)
        for mine, other in zip(self.average.buffers(), self.generator.buffers(), strict=True):
            mine.copy_(other)
