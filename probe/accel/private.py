"""All uses of private PyTorch names, each behind one function with a fallback.

They all exist in torch 2.6 to 2.14. tests/accel/test_private.py shows what a release has broken.
"""

import functools

import torch
from torch import nn
from torch.nn import functional


def fused_relu(x: torch.Tensor, convolution: nn.Conv2d, most: float | None) -> torch.Tensor:
    """Return a convolution followed by ReLU, in one oneDNN call.

    torch has the call for its compiler. Check `has_fused_relu` first.

    Args:
        x: (N, C, H, W) on the CPU, in float32 or bf16; the weights are converted to its dtype.
        convolution: with zero padding given as numbers.
        most: the upper limit of the ReLU, 6 for ReLU6; None for a plain one.
    """
    weight, bias = convolution.weight.to(x.dtype), convolution.bias
    return torch.ops.mkldnn._convolution_pointwise(
        x, weight, None if bias is None else bias.to(x.dtype),
        convolution.padding, convolution.stride, convolution.dilation, convolution.groups,
        *(("relu", []) if most is None else ("hardtanh", [0.0, most])), "",
    )  # fmt: skip


@functools.cache
def has_fused_relu() -> bool:
    """Return whether `fused_relu` exists and is correct; if not, use two public calls."""
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
    """Return whether oneDNN has bf16 convolutions on this CPU; False if unknown."""
    ask = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return torch.backends.mkldnn.enabled and ask is not None and ask()


def changes(tensor: torch.Tensor) -> int:
    """Return how often a tensor was changed in place, 0 if torch does not say.

    With 0, a merge across such a change is tried, found to change a feature, and undone.
    """
    return getattr(tensor, "_version", 0)
