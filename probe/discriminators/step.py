"""What every part of one training step is given: the images, and the settings of the step."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import nn

from probe.accel.replay import Pass, Replays
from probe.devices import autocast
from probe.processes import Processes


class Minibatch(NamedTuple):
    """Images with their classes.

    Attributes:
        images: (n, 3, R, R) float32 in [-1, 1], this process's share.
        c: (n, c_dim) one-hot, or None.
    """

    images: torch.Tensor
    c: torch.Tensor | None = None


@dataclass(frozen=True)
class Step:
    """Settings that all parts of one training step share.

    Attributes:
        seen: images seen so far; part of the name of every random stream.
        precision: of the networks, "fp32" or "bf16"; None keeps the caller's autocast.
        processes: the processes that split each batch.
        span: context manager that times a named part of the step.
        replays: runs passes of networks, from recordings if it has them.
    """

    seen: int = 0
    precision: str | None = "fp32"
    processes: Processes = field(default_factory=Processes)
    span: Callable[[str], AbstractContextManager[None]] = lambda name: nullcontext()
    replays: Replays | None = None

    def run(self, work: Pass, network: nn.Module, *given: torch.Tensor | None) -> Any:
        """Return `work(network, *given)`; see `Replays`."""
        return (
            work(network, *given) if self.replays is None else self.replays(work, network, *given)
        )

    def autocast(self, device: torch.device) -> AbstractContextManager[object]:
        """Return the context in which networks run."""
        return nullcontext() if self.precision is None else autocast(device, self.precision)
