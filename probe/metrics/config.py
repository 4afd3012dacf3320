"""Every option of a measurement. Imports no torch, because the command line reads this."""

from dataclasses import dataclass

from probe.options import (
    MOST_IMAGES,
    SEEDS,
    SIDE,
    Range,
    check_choices,
    check_numbers,
    option,
    precision_option,
)

LEAST_IMAGES = 16
COUNT = Range(LEAST_IMAGES, MOST_IMAGES)


@dataclass(frozen=True, kw_only=True)
class MeasureOptions:
    """Options of a measurement, for any source of images."""

    num: int = option(10_000, "Maximum number of images per class.", COUNT)
    num_gen: int | None = option(
        None, "Maximum number of generated images, if not the same as --num.", COUNT
    )
    seed: int = option(0, "Seed of the subset, latents and kernel distance.", SEEDS)
    resolution: int | None = option(
        None, "Side in pixels to resize both sets to; by default that of the fakes.", SIDE
    )
    precision: str = precision_option()
    fid: bool = option(False, "Add canonical FID: TensorFlow's Inception of 2015, in float32.")
    strict: bool = option(False, "Fail on the first broken image instead of skipping it.")

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            UsageError: names the flag.
        """
        check_choices(self)
        check_numbers(self)
