"""The context of a command: what every room is given besides its objects. No torch here."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from probe.events import Event, OnEvent, ignore

if TYPE_CHECKING:
    import torch

    from probe.features.store import FeatureStore
    from probe.images.base import ImageSource
    from probe.processes import Processes


@dataclass(frozen=True, kw_only=True)
class Context:
    """Where and how a command computes, and whom it tells.

    Attributes:
        store: where features and results are kept.
        device: where to compute.
        precision: "auto", "fp32" or "bf16".
        offline: never download weights.
        bn_images: unlabelled images from outside both classes, from which networks with random
            weights take their BatchNorm statistics.
        processes: those that share the work.
        on_event: is given every event.
    """

    store: "FeatureStore"
    device: "torch.device"
    precision: str
    offline: bool
    bn_images: "ImageSource"
    processes: "Processes"
    on_event: OnEvent = ignore

    def tell(self, event: Event) -> None:
        """Tell the caller."""
        self.on_event(event)

    def in_precision(self, precision: str) -> "Context":
        """Return this context with another precision."""
        return replace(self, precision=precision)

    def quiet(self) -> "Context":
        """Return this context with nobody listening."""
        return replace(self, on_event=ignore)
