"""How images are drawn from a generator. No torch here: the command line reads this."""

import math
from dataclasses import dataclass

from probe.errors import UsageError
from probe.options import option

NOISE_MODES = ("random", "const", "none")


@dataclass(frozen=True, kw_only=True)
class SampleOptions:
    """Options of drawing images from a checkpoint; no folder of images takes any."""

    trunc: float = option(1.0, "Truncation psi: 1 is none, 0 the mean image.")
    noise: str = option("random", "Per-pixel noise: random, const or none.")
    class_index: int | None = option(
        None, "Class of a conditional generator; drawn from the reals' labels unless given."
    )

    run_code: bool = option(
        False, "Trust a TorchScript or torch.export program: drawing images runs it."
    )
    z_dim: int | None = option(None, "Width of a program's latent, where it does not say.")

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            UsageError: names the flag.
        """
        if not math.isfinite(self.trunc):
            raise UsageError(f"--trunc: must be a number, not {self.trunc}.")
        if self.noise not in NOISE_MODES:
            raise UsageError(f"--noise: '{self.noise}' is unknown. Use random, const or none.")
        if self.class_index is not None and self.class_index < 0:
            raise UsageError(f"--class: must not be below zero, not {self.class_index}.")
        if self.z_dim is not None and self.z_dim < 1:
            raise UsageError(f"--z-dim: must be at least 1, not {self.z_dim}.")
