"""Private names of PyTorch: each behind one door here, with what is done if it is gone.

All of them stand in torch 2.6 to 2.14. tests/accel/test_private.py says what a release has broken.
"""

import functools

import torch
from torch import nn
from torch.nn import functional


def fused_relu(x: torch.Tensor, convolution: nn.Conv2d, most: float | None) -> torch.Tensor:
    """Return a convolution and the ReLU after it, by one call of oneDNN.

    torch has the call for its compiler. Ask `has_fused_relu` first.

    Args:
        x: (N, C, H, W) on the CPU, in float32 or bf16; the weights are taken in the same dtype.
        convolution: padded with zeros, by numbers.
        most: the upper end of the ReLU, 6 for ReLU6; None for a plain one.
    """
    weight, bias = convolution.weight.to(x.dtype), convolution.bias
    return torch.ops.mkldnn._convolution_pointwise(
        x, weight, None if bias is None else bias.to(x.dtype),
        convolution.padding, convolution.stride, convolution.dilation, convolution.groups,
        *(("relu", []) if most is None else ("hardtanh", [0.0, most])), "",
    )  # fmt: skip


@functools.cache
def has_fused_relu() -> bool:
    """Return whether `fused_relu` is there and right; if not, two public calls do the same."""
    x = torch.linspace(-4, 4, 2 * 3 * 3, device="cpu").reshape(1, 2, 3, 3)
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        convolution = nn.Conv2d(2, 1, 2, device="cpu")
        convolution.weight.fill_(1.0)
        plain = convolution(x)
        try:
            found = [fused_relu(x, convolution, most) for most in (None, 6.0)]
        except (AttributeError, RuntimeError, TypeError):
            return False
        wanted = [functional.relu(plain), functional.relu6(plain)]
    return all(torch.allclose(a, b, atol=1e-5) for a, b in zip(found, wanted, strict=True))


def has_bf16_convolutions() -> bool:
    """Return whether oneDNN computes convolutions in bf16 on this CPU; if unknown, no."""
    ask = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return torch.backends.mkldnn.enabled and ask is not None and ask()


def changes(tensor: torch.Tensor) -> int:
    """Return how often a tensor was changed in place, 0 if torch does not tell.

    Without it a merge across such a change is tried, found to change a feature and undone.
    """
    return getattr(tensor, "_version", 0)
