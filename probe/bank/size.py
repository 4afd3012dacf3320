"""How large a network may become while it is built from what a bank says of it."""

from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from probe.errors import BackboneUnavailable

SHARE = 0.75  # of this machine's memory, in float32


@contextmanager
def bounded_size() -> Iterator[None]:
    """Stop a network that outgrows this machine's memory, before its parameters are filled.

    `depth: 9999` in a bank would otherwise end in the system killing the process, and every other
    backbone's work with it.

    Raises:
        BackboneUnavailable: in the body, as soon as the network has too many parameters.
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
    """Return how many parameters in float32 fit this machine's memory beside all else."""
    return int(SHARE * psutil.virtual_memory().total / 4)
