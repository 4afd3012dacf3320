"""Every option of a ranking, written once. No torch here: the command line reads this."""

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


@dataclass(frozen=True, kw_only=True)
class RankOptions:
    """Options of a ranking, whatever the images come from."""

    protocol: str = option(
        "fair",
        "fair, paper (C = 0.2 on raw features, ordered by accuracy), or both.",
        choices=("fair", "paper", "both"),
    )
    num: int = option(
        10_000, "Maximum number of images per class.", Range(LEAST_IMAGES, MOST_IMAGES)
    )
    k: int = option(
        3,
        "Number of backbones K-fixed would use; they are marked with *.",
        Range(1, 1000),
        flags="--k -k",
    )
    seed: int = option(0, "Seed of the subset, latents and splits.", SEEDS)
    resolution: int | None = option(
        None, "Side in pixels to resize both sets to; by default that of the fakes.", SIDE
    )
    precision: str = precision_option()
    match_jpeg: bool = option(
        False, "Compress both sets as JPEG the same way, so that encoding gives nothing away."
    )
    near_duplicates: bool = option(
        False,
        "Treat images that look alike as copies and keep them on one side of each split; reads or "
        "draws all images once more.",
    )
    until_sure: bool = option(
        False,
        "Use 250 images of each class, then twice as many again and again: backbones that are "
        "clearly not the best drop out, until one is left or all --num images are used.",
    )
    controls: int = option(
        1,
        "Random networks of each kind to rank for comparison with the whole bank; they come last, "
        "and 0 leaves them out. Those that --backbones names are ranked in any case.",
        Range(0, 100),
    )
    strict: bool = option(False, "Fail on the first broken image instead of skipping it.")

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            UsageError: names the flag.
        """
        check_choices(self)
        check_numbers(self)

    @property
    def protocols(self) -> tuple[str, ...]:
        """The names of the protocols to score by, the leading one first."""
        return ("fair", "paper") if self.protocol == "both" else (self.protocol,)
