"""Acceleration: speed-ups over plain PyTorch, one per file. `PROBE_ACCEL=0` turns all of them off.

Code outside this package knows none of them: it calls these functions, which do the same in plain
PyTorch if acceleration is off.

| file | what it does | gain |
| --- | --- | --- |
| `fold` | folds BatchNorm into the convolution before it | more than a third of EfficientNet-Lite0's forward pass in bf16 |
| `fuse` | fuses ReLU and ReLU6 into the convolution before them | 14 to 24 % of a forward pass of EfficientNet-Lite0 and MobileNetV2 in bf16 |
| `merge` | finds what `fold` and `fuse` can merge, and undoes merges that change a feature | |
| `attention` | self-attention of CLIP and of torchvision's ViT over contiguous tokens; the gradient of attention on a CPU | with `patches`, a critic step against CLIP ViT-B/32 in bf16, 8 images of each class, two cores: 4.4 s to 1.1 s |
| `depthwise` | the gradient of strided depthwise convolutions in bf16 on a CPU | 98 ms to 4 ms for 16 maps of 144x56x56 |
| `patches` | the gradient of a ViT's patch embedding on a CPU | 139 ms to 21 ms for 8 images of 224 px in bf16, with the forward pass |
| `gradients` | calls `depthwise`, `patches` and the gradient of `attention` | |
| `resize` | the resize in training as matrix products | 34 ms to 11 ms for 16 images, 64 to 224 px, forward and backward |
| `winograd` | wide 3x3 convolutions on a CPU by minimal filtering | half the time at 512 channels |
| `low_pass` | layout and gradients of StyleGAN's low-pass | 11.6 ms to 2.6 ms for 32x64x256x256 in bf16 on an H100; a path-length step there from 11 times a plain one to about its time |
| `kernels` | says when Triton's kernels run and how they cut up feature maps | |
| `low_pass_kernel` | zeros, low-pass and decimation in one Triton kernel, in either layout | with `finish_kernels`, drawing at 256 px on an H200: 1.14 times as fast in float32, 0.91 in half precision, where launches from Python take most of the time |
| `finish_kernels` | scale, noise, bias, activation and clamp after a convolution in one Triton kernel, and both derivatives | see `low_pass_kernel` |
| `replay` | CUDA graphs: passes that launch the same kernels every time are replayed | unmeasured; a step at 64 px on an H200, 125 ms, kept it busy for a third of the time |
| `memory` | keeps freed memory in the process | a training step through MobileNetV2 from 0.90 s to 0.37 s |

CPU figures are for one core of an EPYC unless the file says otherwise. Imports no torch.
"""  # noqa: E501

import os
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn


def enabled() -> bool:
    """Return whether acceleration is on, which it is unless `PROBE_ACCEL` is 0."""
    return os.environ.get("PROBE_ACCEL") != "0"


def key() -> dict[str, Any]:
    """Return the extra key parts of stored features, since speed-ups change the last digits."""
    return {} if enabled() else {"accel": False}


def speed_up(network: "nn.Module", size: int) -> None:
    """Speed up the layers of a frozen `FeatureNetwork` in eval mode, in place.

    Args:
        network: its maps and features stay the same up to rounding.
        size: side of its input.
    """
    if enabled():
        from probe.accel.attention import pack_attention
        from probe.accel.fold import fold_batchnorm
        from probe.accel.fuse import fuse_activations

        fold_batchnorm(network, size)
        fuse_activations(network, size)
        pack_attention(network)


def quick_gradients(device: "torch.device") -> AbstractContextManager[Any]:
    """Return a context in which gradients through frozen networks are computed faster."""
    if device.type != "cpu" or not enabled():
        return nullcontext()
    from probe.accel.gradients import QuickGradients

    return QuickGradients()
