"""Device, precision and random streams."""

import hashlib
from contextlib import AbstractContextManager

import numpy as np
import torch

from probe.errors import UsageError

PRECISIONS = ("auto", "fp32", "bf16")


def choose_device(name: str = "auto") -> torch.device:
    """Return the device to compute on: a CUDA GPU where there is one, else the CPU.

    Raises:
        UsageError: the named device is not on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"--device: '{name}' is not a device. Use auto, cpu or cuda.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device: there is no usable CUDA GPU here. Use --device cpu.")
    return device


def has_fast_bf16(device: torch.device) -> bool:
    """Return whether bfloat16 matrix products run on dedicated hardware here."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


def choose_precision(name: str, device: torch.device) -> str:
    """Resolve "auto" to "bf16" where the hardware has it, else "fp32".

    Raises:
        UsageError: unknown precision.
    """
    if name not in PRECISIONS:
        raise UsageError(f"--precision: '{name}' is unknown. Use one of {', '.join(PRECISIONS)}.")
    if name == "auto":
        return "bf16" if has_fast_bf16(device) else "fp32"
    return name


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Return the context under which a network runs in the given precision."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def stream_seed(seed: int, *names: object) -> int:
    """Return a 63-bit seed that is a pure function of (seed, names).

    Every random decision has a name of its own ("subset", "split", 3), so that adding one never
    shifts another.
    """
    text = repr((seed, *names)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


def numpy_stream(seed: int, *names: object) -> np.random.Generator:
    """Return a numpy generator for one named random decision."""
    return np.random.default_rng(stream_seed(seed, *names))


def torch_stream(seed: int, *names: object) -> torch.Generator:
    """Return a CPU torch generator for one named random decision."""
    return torch.Generator().manual_seed(stream_seed(seed, *names))
