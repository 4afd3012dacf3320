"""Every option of a training run, written once. No torch here: the command line reads this."""

from dataclasses import dataclass

from probe.errors import UsageError
from probe.options import option


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Options of `probe train`. `None` means: chosen from the resolution and the batch."""

    kimg: float = option(1000, "Training length in thousands of real images shown.")
    batch: int = option(32, "Images per step.")
    resolution: int | None = option(None, "Side in pixels; the images' own unless given.")
    channel_base: int = option(16384, "Channels at resolution r are channel-base // r, at most …")
    channel_max: int = option(512, "… this many.")
    z_dim: int = option(512, "Width of the latent.")
    w_dim: int = option(512, "Width of the intermediate latent.")
    map_layers: int = option(2, "Layers of the mapping network.")
    lr: float = option(0.0025, "Learning rate of both networks (Adam, betas 0 and 0.99).")
    gamma: float | None = option(None, "R1 weight; 0.0002 · resolution² / batch unless given.")
    ema_kimg: float | None = option(
        None, "Half-life of the weight average; batch · 10/32 if unset."
    )
    ema_rampup: float = option(0.05, "The half-life is at most this share of the images so far.")
    r1_interval: int = option(16, "Steps between R1 steps (lazy regularisation).")
    mbstd_group: int = option(4, "Samples per minibatch-std group of the discriminator.")
    mirror: bool = option(True, "Show every image flipped half of the time.")
    tick: float = option(4, "Thousands of images between two lines of the log.")
    snap: int = option(10, "Ticks between two snapshots.")
    seed: int = option(0, "Seed of every random decision.")

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            UsageError: names the flag.
        """
        for name in ("kimg", "batch", "channel_base", "channel_max", "z_dim", "w_dim", "map_layers",
                     "lr", "r1_interval", "mbstd_group", "tick", "snap"):  # fmt: skip
            if getattr(self, name) <= 0:
                flag = name.replace("_", "-")
                raise UsageError(f"--{flag}: must be above zero, not {getattr(self, name)}.")
        if self.batch % min(self.mbstd_group, self.batch):
            raise UsageError(
                f"--batch: {self.batch} does not divide into groups of {self.mbstd_group} "
                "(--mbstd-group)."
            )
        r = self.resolution
        if r is not None and (r < 8 or r & (r - 1)):
            raise UsageError(f"--resolution: {r} is not a power of two from 8.")

    def resolved_gamma(self, resolution: int) -> float:
        """Return the R1 weight: the given one, or 0.0002 · resolution² / batch."""
        return 0.0002 * resolution**2 / self.batch if self.gamma is None else self.gamma

    def resolved_ema_kimg(self) -> float:
        """Return the half-life of the weight average in thousands of images."""
        return self.batch * 10 / 32 if self.ema_kimg is None else self.ema_kimg
