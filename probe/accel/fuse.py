"""Fuse ReLU and ReLU6 into the convolution before them if no gradient is needed.

On a CPU a pass over a large map costs as much as a small convolution: ReLU6 alone was 14 to 24 % of
a forward pass of EfficientNet-Lite0 and MobileNetV2 in bf16.
"""

import torch
from torch import nn

from probe.accel.merge import Undo, merge_convolutions, replace
from probe.accel.private import fused_relu, has_bf16_convolutions, has_fused_relu


def fuse_activations(network: nn.Module, size: int) -> None:
    """Fuse each convolution with a ReLU or ReLU6, its output's only user; see `merge_convolutions`.

    Args:
        network: a `FeatureNetwork` in eval mode.
        size: side of its input.
    """
    if has_fused_relu():
        merge_convolutions(network, size, lambda module: type(module) in (nn.ReLU, nn.ReLU6), _fuse)


def _fuse(network: nn.Module, convolution_name: str, activation_name: str) -> Undo | None:
    convolution = network.get_submodule(convolution_name)
    activation = network.get_submodule(activation_name)
    if type(convolution) is not nn.Conv2d or convolution.padding_mode != "zeros":
        return None
    if isinstance(convolution.padding, str):
        return None  # it has its own padding, as in TensorFlow's "same"
    replace(network, convolution_name, ActivatedConvolution(convolution, activation))
    replace(network, activation_name, nn.Identity())

    def undo() -> None:
        replace(network, convolution_name, convolution)
        replace(network, activation_name, activation)

    return undo


class ActivatedConvolution(nn.Module):
    """A frozen convolution with its activation; on a CPU without gradient, one oneDNN call.

    Fused in bf16 only, with the same values as two calls; in float32 it gained nothing. NaN becomes
    0, but `merge_convolutions` does not change a network whose features contain one.
    """

    def __init__(self, convolution: nn.Conv2d, activation: nn.Module) -> None:
        super().__init__()
        self.convolution, self.activation = convolution, activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, C, H, W) to the activated maps (N, D, h, w)."""
        if x.device.type != "cpu" or torch.is_grad_enabled() or not _in_bf16(x):
            return self.activation(self.convolution(x))
        most = 6.0 if isinstance(self.activation, nn.ReLU6) else None
        return fused_relu(x.bfloat16(), self.convolution, most)


def _in_bf16(x: torch.Tensor) -> bool:
    """Return whether a convolution of this input runs in bf16 in a oneDNN kernel."""
    return (
        torch.is_autocast_enabled("cpu")
        and torch.get_autocast_dtype("cpu") == torch.bfloat16
        and x.dtype != torch.float64
        and has_bf16_convolutions()
    )
