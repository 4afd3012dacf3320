"""Fold BatchNorm into the convolution before it: a frozen network needs no separate normalisation.

In bf16, normalisation took more than a third of EfficientNet-Lite0's forward pass.
"""

from typing import Any

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from probe.accel.merge import Undo, merge_convolutions, replace


def fold_batchnorm(network: nn.Module, size: int) -> None:
    """Fold BatchNorms into the convolutions before them, in place; see `merge_convolutions`.

    Args:
        network: a frozen `FeatureNetwork` in eval mode.
        size: side of its input.
    """
    merge_convolutions(network, size, _is_fixed, _fold)


def _is_fixed(module: nn.Module) -> bool:
    # Without running statistics, BatchNorm uses those of the batch.
    return isinstance(module, nn.BatchNorm2d) and module.running_mean is not None


def _fold(network: nn.Module, convolution_name: str, norm_name: str) -> Undo:
    """Fold a BatchNorm into the convolution before it; return an undo function."""
    convolution: Any = network.get_submodule(convolution_name)
    norm: Any = network.get_submodule(norm_name)
    weight, bias = convolution.weight, convolution.bias
    convolution.weight, convolution.bias = fuse_conv_bn_weights(
        weight, bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    # timm's BatchNorm includes the activation after it.
    rest = [part for part in (getattr(norm, "drop", None), getattr(norm, "act", None)) if part]
    replace(network, norm_name, nn.Sequential(*rest))

    def undo() -> None:
        convolution.weight, convolution.bias = weight, bias
        replace(network, norm_name, norm)

    return undo
