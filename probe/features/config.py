"""Every option of an extraction. Imports no torch, because the command line reads this."""

import re
from dataclasses import dataclass
from typing import Any

from probe.errors import UsageError, printable
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

MOST_TASKS, MOST_WORKERS = 1_000_000, 10_000
LEAST_SAMPLE = 16  # images; as many as a ranking needs


def _side_option() -> Any:
    return option(
        None,
        "Side in pixels to resize the images to: that of the generated images they will be "
        "compared with; by default that of these images.",
        SIDE,
    )


@dataclass(frozen=True, kw_only=True)
class ExtractOptions:
    """Options of an extraction; those that a ranking has too mean the same images there."""

    num: int = option(10_000, "Number of images, as in probe rank.", Range(1, MOST_IMAGES))
    tasks: str = option(
        "0/1",
        "This task's share of the images: i/N, i from 0 to N - 1, as "
        "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT with --array=0-7.",
    )
    seed: int = option(0, "Seed of the subset, as in probe rank.", SEEDS)
    resolution: int | None = _side_option()
    precision: str = precision_option()
    strict: bool = option(False, "Fail on the first broken image instead of skipping it.")
    engine: str = option(
        "local",
        "local, or ray: actors on a Ray cluster, which share images and cache folder.",
        choices=("local", "ray"),
    )
    workers: int | None = option(
        None,
        "Actors of --engine ray; by default one on each GPU of the cluster, or else one on each "
        "node.",
        Range(1, MOST_WORKERS),
    )

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            UsageError: names the flag.
        """
        check_choices(self)
        check_numbers(self)
        parse_tasks(self.tasks)
        if self.workers is not None and self.engine != "ray":
            raise UsageError("--workers: is about --engine ray. Add that, or leave this out.")

    @property
    def share(self) -> tuple[int, int]:
        """The number of this task, from 0, and how many there are."""
        return parse_tasks(self.tasks)


@dataclass(frozen=True, kw_only=True)
class ReferenceOptions:
    """Options of a reference."""

    num: int = option(
        10_000,
        "Number of images whose features are kept; the moments are of all.",
        Range(LEAST_SAMPLE, MOST_IMAGES),
    )
    seed: int = option(
        0, "Seed of that sample; a ranking with the same seed uses the same images.", SEEDS
    )
    resolution: int | None = _side_option()
    precision: str = precision_option()
    fid: bool = option(False, "Keep canonical FID's features as well, for probe metrics --fid.")
    strict: bool = option(False, "Fail on the first broken image instead of skipping it.")

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            UsageError: names the flag.
        """
        check_choices(self)
        check_numbers(self)


def parse_tasks(text: str) -> tuple[int, int]:
    """Return the number of a task, from 0, and how many there are.

    Args:
        text: "3/8".

    Raises:
        UsageError: it is not i/N, or i lies outside 0 to N - 1.
    """
    match = re.fullmatch(r"(\d{1,7})/(\d{1,7})", text, re.ASCII)
    if match is None:
        raise UsageError(
            f"--tasks: '{printable(text, 40)}' is not i/N, such as 0/8 to 7/8 for eight tasks."
        )
    number, count = map(int, match.groups())
    if not 1 <= count <= MOST_TASKS:
        raise UsageError(f"--tasks: {count} tasks; there can be 1 to {MOST_TASKS}.")
    if number >= count:
        raise UsageError(
            f"--tasks: {text}: tasks are counted from 0, so the last of {count} is "
            f"{count - 1}/{count}. A SLURM array counts that way with --array=0-{count - 1}."
        )
    return number, count
