"""Faster gradients through the convolutions of frozen networks on a CPU."""

from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from probe.accel import depthwise, patches


class QuickGradients(TorchFunctionMode):
    """Replaces convolutions whose gradient is slow in torch; see `depthwise` and `patches`."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> torch.Tensor:
        """Call `func`, or the replacement for a convolution with a slow gradient."""
        # torch.nn, torchvision and timm pass all arguments by position.
        if func is torch.conv2d and len(args) == 7 and not kwargs:
            if depthwise.is_slow_depthwise(*args):
                return depthwise.convolve_depthwise(*args[:5])
            if patches.has_slow_patches(*args):
                return patches.map_patches(*args[:3])
        return func(*args, **(kwargs or {}))
