"""How images are drawn from a generator. No torch here: the command line imports this."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from probe.options import Range, check_choices, check_numbers, option

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class SampleOptions:
    """Options for drawing images from a checkpoint; image folders take none."""

    trunc: float = option(
        1.0, "Truncation psi: 1 disables it, 0 gives the mean image.", Range(-100, 100)
    )
    noise: str = option(
        "random", "Per-pixel noise: random, const or none.", choices=("random", "const", "none")
    )
    class_index: int | None = option(
        None,
        "Class to draw from a conditional generator; by default as in the real labels.",
        Range(0, 99_999),
        flags="--class",
    )
    run_code: bool = option(False, "Allow a TorchScript or torch.export program to run.")
    z_dim: int | None = option(
        None, "Latent width of a program that does not declare it.", Range(1, 16384)
    )

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            UsageError: names the flag.
        """
        check_choices(self)
        check_numbers(self)


@dataclass(frozen=True)
class Drawing:
    """Which images a generator draws, and on which device.

    Attributes:
        count: how many.
        seed: of the run.
        sample: see `SampleOptions`.
        device: the device that runs a checkpoint.
        precision: "fp32" keeps a checkpoint from using half precision.
    """

    count: int
    seed: int
    sample: SampleOptions
    device: "torch.device"
    precision: str = "auto"
