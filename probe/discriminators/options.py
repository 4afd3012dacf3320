"""The options of discriminators on backbones. Imports no torch."""

from dataclasses import dataclass

from probe.discriminators import AUGMENTATIONS, LOSSES
from probe.errors import UsageError
from probe.registry import either, lookup

NORMS = ("equalised", "spectral")
SMOOTHING = ("auto", "always", "never")
SMOOTH_ABOVE = 0.9  # probe accuracy, as in the original code


@dataclass(frozen=True, kw_only=True)
class DiscriminatorOptions:
    """How discriminators on frozen backbones are built and trained.

    Attributes:
        loss: a name in `probe.discriminators.LOSSES`.
        norm: of the heads' weights, "equalised" or "spectral".
        augmentation: a name in `probe.discriminators.AUGMENTATIONS`.
        target: ADA's target.
        p: a fixed augmentation probability; None lets ADA adapt it.
        smooth: when to smooth the targets of reals: "auto", "always" or "never".
        smooth_generator: whether to smooth the generator's targets along with them.
        lr: learning rate, before scaling for lazy regularisation.
        r1_interval: steps between two R1 steps.
        seed: of the heads' weights and of every augmentation.
    """

    loss: str = "sigmoid"
    norm: str = "equalised"
    augmentation: str = "ada"
    target: float = 0.3
    p: float | None = None
    smooth: str = "auto"
    smooth_generator: bool = True
    lr: float = 0.002
    r1_interval: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the names.

        Raises:
            UsageError: names the option and what it may be.
        """
        lookup(LOSSES, self.loss, "loss")
        lookup(AUGMENTATIONS, self.augmentation, "augmentation")
        for name, known in (("norm", NORMS), ("smooth", SMOOTHING)):
            if (value := getattr(self, name)) not in known:
                raise UsageError(f"{name}: '{value}' is unknown. Use {either(known)}.")
        if self.p is not None and not 0 <= self.p <= 1:
            raise UsageError(f"p: must lie between 0 and 1, not {self.p:g}.")

    def is_smoothed(self, accuracy: float) -> bool:
        """Return whether a backbone's targets of reals are smoothed, given its probe's accuracy.

        "auto" smooths above an accuracy of 0.9, and always with an augmentation that `smooths`.
        """
        if self.smooth == "auto":
            return accuracy > SMOOTH_ABOVE or AUGMENTATIONS[self.augmentation].smooths
        return self.smooth == "always"
