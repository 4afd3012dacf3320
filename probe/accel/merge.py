"""What follows a convolution, merged with it: found in one pass, undone where it changes a feature.

Which convolution feeds which module is seen while the network runs, whatever library built it.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from probe.accel.private import changes

TOLERANCE = 1e-4  # of the largest value of a map or feature

Undo = Callable[[], None]


@torch.inference_mode(False)  # merged weights outlive it, and tensors know how often they changed
@torch.no_grad()
def merge(
    network: nn.Module,
    size: int,
    follows: Callable[[nn.Module], bool],
    join: Callable[[nn.Module, str, str], Undo | None],
) -> None:
    """Merge convolutions with the modules that alone take their output, in place.

    Where that changes a feature (a convolution whose output is used elsewhere too), the network
    stays as it is.

    Args:
        network: a `probe.bank.base.FeatureNetwork` in eval mode.
        size: side of its input.
        follows: whether a module is of the kind to merge.
        join: is given the network, the convolution's name and the follower's; merges them and
            returns what undoes that, or None where it leaves them.
    """
    if not any(follows(module) for module in network.modules()):
        return
    x = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    before = _outputs(network, x)
    joined = [join(network, *names) for names in _pairs(network, x, follows)]
    if not any(joined):
        return
    after = _outputs(network, x)
    if all(  # False where there is a NaN
        (a - b).abs().max() <= TOLERANCE * b.abs().max() for a, b in zip(after, before, strict=True)
    ):
        return
    for undo in joined:
        if undo is not None:
            undo()


def replace(network: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module in the place of the one of that name."""
    parent, _, leaf = name.rpartition(".")
    setattr(network.get_submodule(parent), leaf, module)


def _outputs(network: Any, x: torch.Tensor) -> list[torch.Tensor]:
    maps, pooled = network.levels(x)
    return [*maps, pooled, network.pool(x)]


def _pairs(
    network: nn.Module, x: torch.Tensor, follows: Callable[[nn.Module], bool]
) -> list[tuple[str, str]]:
    """Return the names of each convolution and of the module that takes what it gives."""
    # By id and the count of changes in place, such as a shortcut that is added; the tensor is kept,
    # since ids are reused.
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
