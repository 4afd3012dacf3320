"""Merge convolutions with the modules after them, found in one pass; undo if a feature changes.

Running the network shows which convolution feeds which module, whatever library built it.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from probe.accel.private import changes

TOLERANCE = 1e-4  # relative to the largest value of a map or feature

Undo = Callable[[], None]


@torch.inference_mode(False)  # merged weights are used in graphs later, and need version counters
@torch.no_grad()
def merge_convolutions(
    network: nn.Module,
    size: int,
    follows: Callable[[nn.Module], bool],
    join: Callable[[nn.Module, str, str], Undo | None],
) -> None:
    """Merge convolutions in place with the modules that are the only users of their outputs.

    If that changes a feature (because a convolution's output is also used elsewhere), the network
    is left unchanged.

    Args:
        network: a `probe.bank.base.FeatureNetwork` in eval mode.
        size: side of its input.
        follows: whether a module is of the kind to merge.
        join: called with the network, the convolution's name and the follower's name; merges them
            and returns an undo function, or None if it leaves them alone.
    """
    if not any(follows(module) for module in network.modules()):
        return
    x = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    before = _outputs(network, x)
    joined = [join(network, *names) for names in _pairs(network, x, follows)]
    if not any(joined):
        return
    after = _outputs(network, x)
    if all(  # False if there is a NaN
        (a - b).abs().max() <= TOLERANCE * b.abs().max() for a, b in zip(after, before, strict=True)
    ):
        return
    for undo in joined:
        if undo is not None:
            undo()


def replace(network: nn.Module, name: str, module: nn.Module) -> None:
    """Replace the module of that name."""
    parent, _, leaf = name.rpartition(".")
    setattr(network.get_submodule(parent), leaf, module)


def _outputs(network: Any, x: torch.Tensor) -> list[torch.Tensor]:
    maps, pooled = network.levels(x)
    return [*maps, pooled, network.pool(x)]


def _pairs(
    network: nn.Module, x: torch.Tensor, follows: Callable[[nn.Module], bool]
) -> list[tuple[str, str]]:
    """Return (convolution, follower) pairs of names, for followers that take its output."""
    # Keyed by id and in-place change count, to notice an added shortcut for example. The tensor is
    # kept alive because ids are reused.
    made: dict[tuple[int, int], tuple[str, torch.Tensor]] = {}
    taken: dict[str, list[str | None]] = {}
    calls: dict[str, int] = {}
    names = {module: name for name, module in network.named_modules()}

    def after(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        name = names[module]
        calls[name] = calls.get(name, 0) + 1
        made[id(output), changes(output)] = (name, output)

    def before(module: nn.Module, inputs: Any) -> None:
        found = made.get((id(inputs[0]), changes(inputs[0])))
        taken.setdefault(names[module], []).append(None if found is None else found[0])

    handles = [
        m.register_forward_hook(after)
        if isinstance(m, nn.Conv2d)
        else m.register_forward_pre_hook(before)
        for m in network.modules()
        if isinstance(m, nn.Conv2d) or follows(m)
    ]
    typed: Any = network
    typed.levels(x)
    for handle in handles:
        handle.remove()
    users = [name for found in taken.values() for name in found if name is not None]
    return [
        (found[0], follower)
        for follower, found in taken.items()
        if len(found) == 1 and found[0] is not None
        and calls[found[0]] == 1 and users.count(found[0]) == 1
    ]  # fmt: skip
