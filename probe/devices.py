"""Choice of device and numerical precision, and transfers between devices."""

import re
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import psutil
import torch

from probe.errors import UsageError, shown
from probe.options import check_precision


def choose_device(name: str = "auto") -> torch.device:
    """Return the device to compute on: a CUDA GPU if there is one, else the CPU.

    As a side effect, float32 convolutions now run in full float32. By default, PyTorch lets a GPU
    round their inputs to the 10 mantissa bits of TF32, which changes scores.

    Args:
        name: "auto", "cpu", "cuda" or "cuda:N". PyTorch calls AMD GPUs "cuda" as well.

    Raises:
        UsageError: another kind of device, or one this machine does not have.
    """
    torch.backends.cudnn.allow_tf32 = False
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cpu":
        return torch.device("cpu")
    found = re.fullmatch(r"cuda(?::([0-9]{1,4}))?", name)
    if found is None:
        raise UsageError(
            f"--device: {shown(name)} is not supported. Use auto, cpu, cuda or cuda:N, where N is "
            "the number of a GPU; GPUs of AMD are called cuda too."
        )
    return _gpu(None if found[1] is None else int(found[1]))


def _gpu(number: int | None) -> torch.device:
    """Return a GPU with an explicit index; without one, each thread uses its own current GPU.

    Raises:
        UsageError: this machine does not have it.
    """
    if not torch.cuda.is_available():
        raise UsageError("--device: there is no usable CUDA GPU here. Use --device cpu.")
    if number is None:
        # Asking for the current GPU starts CUDA, which a ranking from stored features never needs.
        return torch.device(
            "cuda", torch.cuda.current_device() if torch.cuda.is_initialized() else 0
        )
    count = torch.cuda.device_count()
    if number >= count:
        known = "cuda:0" if count == 1 else f"cuda:0 to cuda:{count - 1}"
        raise UsageError(f"--device: there is no cuda:{number} here, only {known}.")
    return torch.device("cuda", number)


def pin(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a CPU tensor in pinned memory for asynchronous GPU copies; unchanged for a CPU."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.contiguous().pin_memory()
    return tensor


def send(tensor: torch.Tensor, like: torch.Tensor | torch.device) -> torch.Tensor:
    """Return a tensor on a device, without waiting for a busy GPU.

    Args:
        tensor: on the CPU, or already on the target device.
        like: the device, or a tensor that gives the device and dtype.
    """
    device = like if isinstance(like, torch.device) else like.device
    if isinstance(like, torch.Tensor):
        tensor = tensor.to(like.dtype)
    return pin(tensor, device).to(device, non_blocking=device.type == "cuda")


def has_fast_bf16(device: torch.device) -> bool:
    """Return whether this device has hardware for bfloat16 matrix products."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # PyTorch before 2.11 cannot say; fall back to float32, which is correct everywhere.
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


def choose_precision(name: str, device: torch.device) -> str:
    """Resolve "auto" to "bf16" if the hardware has it, else "fp32".

    Raises:
        UsageError: unknown precision, or one that the device does not have.
    """
    check_precision(name)
    if name == "tf32" and device.type != "cuda":
        raise UsageError(
            "The precision tf32 needs a CUDA GPU, and this command runs on the CPU. Use --device "
            "cuda, or --precision fp32."
        )
    if name == "auto":
        return "bf16" if has_fast_bf16(device) else "fp32"
    return name


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Return the context in which a network runs in the given precision."""
    if precision == "tf32":
        return _in_tf32()
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


_float32 = threading.RLock()  # what float32 means on a GPU belongs to the process


@contextmanager
def _in_tf32() -> Iterator[None]:
    """Let GPUs round the inputs of float32 products to TF32's 10 bits in the body."""
    kinds: tuple[Any, ...] = torch.backends.cudnn, torch.backends.cuda.matmul
    with _float32:
        before = [kind.allow_tf32 for kind in kinds]
        try:
            for kind in kinds:
                kind.allow_tf32 = True
            yield
        finally:
            for kind, allowed in zip(kinds, before, strict=True):
                kind.allow_tf32 = allowed


@contextmanager
def full_float32() -> Iterator[None]:
    """Keep other threads from switching to TF32 in the body: images are drawn in full float32."""
    with _float32:
        yield


def fast_layout(device: torch.device, precision: str) -> torch.memory_format:
    """Return the layout that a network of convolutions keeps throughout.

    Channels last, except in full float32 on a GPU: there cuDNN's kernels for it are made for TF32,
    and without that an H100 reached a fifth of its peak. (What the default layout gains there is
    unmeasured.)

    Args:
        device: where it runs.
        precision: "fp32", "tf32", "bf16" or "fp16".
    """
    if device.type == "cuda" and precision == "fp32":
        return torch.contiguous_format
    return torch.channels_last


def free_bytes(gpu: torch.device) -> int:
    """Return the GPU memory this process can still use, including PyTorch's unused cache."""
    kept = torch.cuda.memory_reserved(gpu) - torch.cuda.memory_allocated(gpu)
    return torch.cuda.mem_get_info(gpu)[0] + kept


def peak_gib(device: torch.device) -> float:
    """Return the peak memory of this process in GiB: GPU memory on a GPU, else RAM."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return _peak_bytes() / 2**30


def _peak_bytes() -> int:
    """Return the peak memory of this process, or its current memory if the system has no record.

    psutil knows the peak on Windows only.
    """
    try:
        import resource
    except ImportError:
        memory = psutil.Process().memory_info()
        return getattr(memory, "peak_wset", memory.rss)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, others KiB
