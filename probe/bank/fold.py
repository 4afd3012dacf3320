"""BatchNorm folded into the convolution before it: a frozen network needs no normalisation.

Which convolution feeds which BatchNorm is seen in one pass, whatever library built the network, and
a network is only left folded if it gives what it gave before. In bf16 the normalisation took more
than a third of EfficientNet-Lite0's forward pass (see benchmarks/README.md).
"""

from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from probe.bank.base import FeatureNetwork

TOLERANCE = 1e-4  # of the largest value of a map or feature


@torch.no_grad()  # not inference_mode: the folded weights outlive it
def fold_batchnorm(network: nn.Module, size: int) -> None:
    """Rid a frozen network of the BatchNorms that follow a convolution, in place.

    Where that changes a feature (a convolution whose output is used beside its BatchNorm), the
    network stays as it is.

    Args:
        network: a `FeatureNetwork` in eval mode.
        size: side of its input.
    """
    if not any(isinstance(m, nn.BatchNorm2d) for m in network.modules()):
        return
    x = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    before = _outputs(network, x)
    originals = [
        (pair, pair[0].weight, pair[0].bias, _fold(*pair, network)) for pair in _pairs(network, x)
    ]
    after = _outputs(network, x)
    if all(
        (a - b).abs().max() <= TOLERANCE * b.abs().max() for a, b in zip(after, before, strict=True)
    ):
        return
    for (convolution, name), weight, bias, norm in originals:
        convolution.weight, convolution.bias = weight, bias
        _replace(network, name, norm)


def _outputs(network: Any, x: torch.Tensor) -> list[torch.Tensor]:
    typed: FeatureNetwork = network
    maps, pooled = typed.levels(x)
    return [*maps, pooled, typed.pool(x)]


def _pairs(network: nn.Module, x: torch.Tensor) -> list[tuple[nn.Conv2d, str]]:
    """Return each convolution whose output is what a BatchNorm takes, and that one's name."""
    made: dict[int, tuple[nn.Conv2d, torch.Tensor]] = {}  # the tensor is kept: ids are reused
    taken: dict[str, list[nn.Conv2d | None]] = {}
    calls: dict[nn.Module, int] = {}
    names = {module: name for name, module in network.named_modules()}

    def after(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        calls[module] = calls.get(module, 0) + 1
        made[id(output)] = (module, output)  # type: ignore[assignment]

    def before(module: nn.Module, inputs: Any) -> None:
        found = made.get(id(inputs[0]))
        taken.setdefault(names[module], []).append(None if found is None else found[0])

    handles = [
        m.register_forward_hook(after)
        if isinstance(m, nn.Conv2d)
        else m.register_forward_pre_hook(before)
        for m in network.modules()
        if isinstance(m, nn.Conv2d) or _is_fixed(m)
    ]
    typed: Any = network
    typed.levels(x)
    for handle in handles:
        handle.remove()
    users = [c for found in taken.values() for c in found if c is not None]
    return [
        (found[0], name)
        for name, found in taken.items()
        if len(found) == 1 and found[0] is not None
        and calls[found[0]] == 1 and users.count(found[0]) == 1
    ]  # fmt: skip


def _is_fixed(module: nn.Module) -> bool:
    # Without running statistics it takes those of the batch.
    return isinstance(module, nn.BatchNorm2d) and module.running_mean is not None


def _fold(convolution: nn.Conv2d, name: str, network: nn.Module) -> nn.Module:
    """Multiply a BatchNorm into the convolution before it; return the BatchNorm."""
    norm: Any = network.get_submodule(name)
    convolution.weight, convolution.bias = fuse_conv_bn_weights(
        convolution.weight, convolution.bias, norm.running_mean, norm.running_var, norm.eps,
        norm.weight, norm.bias,
    )  # fmt: skip
    # timm's BatchNorm holds the activation that follows.
    rest = [part for part in (getattr(norm, "drop", None), getattr(norm, "act", None)) if part]
    _replace(network, name, nn.Sequential(*rest))
    return norm


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(network.get_submodule(parent), leaf, module)
