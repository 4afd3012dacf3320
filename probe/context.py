"""The context shared by all parts of a command. Imports no torch."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from probe.events import OnEvent, ignore

if TYPE_CHECKING:
    import torch

    from probe.features.store import FeatureStore
    from probe.images.base import ImageSource
    from probe.processes import Processes


@dataclass(frozen=True, kw_only=True)
class Context:
    """How a command computes, and whom it notifies.

    Attributes:
        store: holds features and results.
        device: device to compute on.
        precision: "auto", "fp32", "tf32" or "bf16".
        offline: never download weights.
        bn_images: unlabelled images from neither class; networks with random weights take their
            BatchNorm statistics from them.
        processes: the processes that split the work.
        on_event: called with every event.
    """

    store: "FeatureStore"
    device: "torch.device"
    precision: str
    offline: bool
    bn_images: "ImageSource"
    processes: "Processes"
    on_event: OnEvent = ignore

    def in_precision(self, precision: str) -> "Context":
        """Return this context with another precision."""
        return replace(self, precision=precision)

    def quiet(self) -> "Context":
        """Return this context with events ignored."""
        return replace(self, on_event=ignore)
