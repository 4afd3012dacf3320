"""Everything that is state in a training run, in one named list, and its file.

Randomness is a function of (seed, images seen) and progress counts images, so that no generator
state is stored: the same options and this file continue the run exactly.
"""

import copy
from pathlib import Path
from typing import Any

import torch

from probe.errors import ProbeError
from probe.files import atomic_path
from probe.generators import stylegan2
from probe.training.config import TrainConfig
from probe.training.discriminator import Discriminator

STATE_FILE = "training-state-latest.pt"


class TrainState:
    """The networks, their optimizers and the image counter.

    Attributes:
        generator, discriminator: the networks being trained.
        average: the exponential moving average of the generator, what is shipped.
        generator_optimizer, discriminator_optimizer: Adam, betas (0, 0.99).
        images: number of real images shown so far.
        digest: digest of the training data and the options; a state continues only its own run.
    """

    NAMES = (
        "generator",
        "discriminator",
        "average",
        "generator_optimizer",
        "discriminator_optimizer",
    )

    def __init__(
        self, config: TrainConfig, resolution: int, device: torch.device, digest: str
    ) -> None:
        widths = {"channel_base": config.channel_base, "channel_max": config.channel_max}
        self.generator = stylegan2.Generator(
            config.z_dim,
            0,
            config.w_dim,
            resolution,
            3,
            mapping_kwargs={"num_layers": config.map_layers},
            synthesis_kwargs=dict(widths),
        )
        self.discriminator = Discriminator(
            0, resolution, 3, mbstd_group_size=config.mbstd_group, **widths
        )
        for network in (self.generator, self.discriminator):
            network.to(device, memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.generator).eval().requires_grad_(False)
        self.generator_optimizer = torch.optim.Adam(
            self.generator.parameters(), lr=config.lr, betas=(0.0, 0.99), eps=1e-8
        )
        # Lazy regularisation adds one step in `r1_interval`; the rates are scaled so that the
        # sum of steps moves as far as before (Karras et al. 2020a, appendix B).
        share = config.r1_interval / (config.r1_interval + 1)
        self.discriminator_optimizer = torch.optim.Adam(
            self.discriminator.parameters(),
            lr=config.lr * share,
            betas=(0.0, 0.99**share),
            eps=1e-8,
        )
        self.images = 0
        self.digest = digest

    def save(self, folder: Path) -> None:
        """Write the state atomically to `folder`: tensors and plain values only."""
        record: dict[str, Any] = {name: getattr(self, name).state_dict() for name in self.NAMES}
        record["images"] = self.images
        record["digest"] = self.digest
        with atomic_path(folder / STATE_FILE) as temporary:
            torch.save(record, temporary)

    def load(self, folder: Path) -> None:
        """Continue from the state in `folder`.

        Raises:
            ProbeError: the file is damaged, or belongs to other data or options.
        """
        path = folder / STATE_FILE
        try:
            record = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many kinds for a damaged file
            raise ProbeError(f"{path}: cannot be read ({error}). Start a new run.") from error
        if record["digest"] != self.digest:
            raise ProbeError(
                f"{path}: belongs to a run with other images or options. Repeat that run's "
                "options (training_options.json beside it) or start a new run."
            )
        for name in self.NAMES:
            getattr(self, name).load_state_dict(record[name])
        self.images = record["images"]

    def is_finite(self) -> bool:
        """Return whether no weight of the trained networks is NaN or infinite."""
        networks = (self.generator, self.discriminator)
        return all(bool(p.isfinite().all()) for n in networks for p in n.parameters())

    @torch.no_grad()
    def update_average(self, batch: int, half_life_images: float) -> None:
        """Move the average towards the generator: after `half_life_images` half is forgotten."""
        beta = 0.5 ** (batch / max(half_life_images, 1e-8))
        for ours, theirs in zip(
            self.average.parameters(), self.generator.parameters(), strict=True
        ):
            ours.lerp_(theirs, 1 - beta)
        for ours, theirs in zip(self.average.buffers(), self.generator.buffers(), strict=True):
            ours.copy_(theirs)
