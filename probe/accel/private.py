"""All uses of private PyTorch names, each behind one function with a fallback.

They all exist in torch 2.6 to 2.14. tests/accel/test_private.py shows what a release has broken.
"""

import functools
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

try:
    from torch.utils._python_dispatch import TorchDispatchMode
except ImportError:
    TorchDispatchMode = None


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


def multiply_adds(run: Callable[[], object]) -> int:
    """Return how many multiply-adds a call takes, in this thread alone.

    torch's own counter watches the modules of all threads, and passes over attention on a CPU.
    """
    from torch.utils.flop_counter import FlopCounterMode, flop_registry

    if TorchDispatchMode is None:
        with FlopCounterMode(display=False) as counter:
            run()
        return counter.get_total_flops() // 2
    aten, total = torch.ops.aten, 0
    attention = flop_registry[aten._scaled_dot_product_flash_attention]
    of_cpu = getattr(aten, "_scaled_dot_product_flash_attention_for_cpu", None)
    known = {**flop_registry, of_cpu: attention}

    class Counter(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal total
            result = func(*args, **(kwargs or {}))
            count = known.get(func.overloadpacket)
            total += 0 if count is None else count(*args, **(kwargs or {}), out_val=result)
            return result

    with Counter():
        run()
    return total // 2


def changes(tensor: torch.Tensor) -> int:
    """Return how often a tensor was changed in place, 0 if torch does not say.

    With 0, a merge across such a change is tried, found to change a feature, and undone.
    """
    return getattr(tensor, "_version", 0)
