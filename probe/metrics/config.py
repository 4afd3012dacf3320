"""Every option of a measurement, written once. No torch here: the command line reads this."""

from dataclasses import dataclass

from probe.errors import UsageError
from probe.options import option

LEAST_IMAGES = 16


@dataclass(frozen=True, kw_only=True)
class MeasureOptions:
    """Options of a measurement, whatever the images come from."""

    num: int = option(10_000, "Images of each class, at most.")
    num_gen: int | None = option(
        None, "Generated images, at most, where that is not as many as reals."
    )
    seed: int = option(0, "Seed of the subset, the latents and the kernel distance's groups.")
    resolution: int | None = option(
        None, "Side in pixels at which reals and fakes meet; the fakes' own unless given."
    )
    precision: str = option("auto", "auto (bf16 where the hardware has it), fp32 or bf16.")
    fid: bool = option(
        False, "Also the canonical FID: Inception of 2015 as in TensorFlow, in float32."
    )
    strict: bool = option(False, "Stop at the first broken image instead of skipping it.")

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            UsageError: names the flag.
        """
        for flag, number in (("--num", self.num), ("--num-gen", self.num_gen)):
            if number is not None and number < LEAST_IMAGES:
                raise UsageError(
                    f"{flag}: {number} is too few for a distance; use {LEAST_IMAGES} or more."
                )
        if not 0 <= self.seed < 2**31:
            raise UsageError(f"--seed: must be from 0 to 2147483647, not {self.seed}.")
        if self.resolution is not None and not 8 <= self.resolution <= 4096:
            raise UsageError(f"--resolution: must be from 8 to 4096, not {self.resolution}.")
        if self.precision not in ("auto", "fp32", "bf16"):
            raise UsageError(f"--precision: '{self.precision}' is unknown. Use auto, fp32 or bf16.")
