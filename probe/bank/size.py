"""Limit the size of a network built from a bank entry."""

from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from probe.errors import BackboneUnavailable

SHARE = 0.75  # of this machine's memory, with parameters in float32


@contextmanager
def bounded_size() -> Iterator[None]:
    """Stop building a network that outgrows this machine's memory, before it is filled.

    Otherwise `depth: 9999` in a bank would make the system kill the process, and with it the work
    of all other backbones.

    Raises:
        BackboneUnavailable: inside the body, as soon as the network has too many parameters.
    """
    most, count = most_parameters(), 0

    def add(module: nn.Module, name: str, parameter: torch.Tensor | None) -> None:
        nonlocal count
        count += 0 if parameter is None else parameter.numel()
        if count > most:
            raise BackboneUnavailable(
                f"its network would have more than {most / 1e9:.3g} billion parameters, too many "
                "for the memory of this machine",
                "see model and args of the entry",
            )

    handle = register_module_parameter_registration_hook(add)
    try:
        yield
    finally:
        handle.remove()


def most_parameters() -> int:
    """Return how many float32 parameters fit this machine's memory next to everything else."""
    return int(SHARE * psutil.virtual_memory().total / 4)
