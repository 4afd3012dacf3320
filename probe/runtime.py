"""Device, precision, random streams and the processes of a run."""

import hashlib
import os
import re
import resource
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from torch import distributed

from probe.errors import UsageError, shown

PRECISIONS = ("auto", "fp32", "bf16")


def choose_device(name: str = "auto") -> torch.device:
    """Return the device to compute on: a CUDA GPU where there is one, else the CPU.

    Convolutions in float32 are to be in float32 from here on: by itself PyTorch lets a GPU round
    what goes into them to the 10 bits of TF32, which moves scores.

    Args:
        name: "auto", "cpu", "cuda" or "cuda:N". AMD's GPUs are "cuda" in PyTorch as well.

    Raises:
        UsageError: another kind of device, or one that is not on this machine.
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
    """Return a GPU with its number: without one, each thread takes it for that thread's own.

    Raises:
        UsageError: it is not on this machine.
    """
    if not torch.cuda.is_available():
        raise UsageError("--device: there is no usable CUDA GPU here. Use --device cpu.")
    if number is None:
        # To ask for the current one starts CUDA, which a ranking that has its features never needs.
        return torch.device(
            "cuda", torch.cuda.current_device() if torch.cuda.is_initialized() else 0
        )
    count = torch.cuda.device_count()
    if number >= count:
        known = "cuda:0" if count == 1 else f"cuda:0 to cuda:{count - 1}"
        raise UsageError(f"--device: there is no cuda:{number} here, only {known}.")
    return torch.device("cuda", number)


def pin(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a CPU tensor in memory from which a GPU copies by itself; for a CPU, as it is."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.contiguous().pin_memory()
    return tensor


def send(tensor: torch.Tensor, like: torch.Tensor | torch.device) -> torch.Tensor:
    """Return a tensor on a device, without waiting for a GPU that is at work.

    Args:
        tensor: on the CPU, or where it is wanted already.
        like: the device, or a tensor whose device and dtype are wanted.
    """
    device = like if isinstance(like, torch.device) else like.device
    if isinstance(like, torch.Tensor):
        tensor = tensor.to(like.dtype)
    return pin(tensor, device).to(device, non_blocking=device.type == "cuda")


def has_fast_bf16(device: torch.device) -> bool:
    """Return whether bfloat16 matrix products run on dedicated hardware here."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # PyTorch before 2.11 has no public way to ask: float32, which is right everywhere.
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
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


@dataclass(frozen=True)
class World:
    """The processes that work on one job together, and which of them this is.

    Batches are shared out in strides: process r of W takes samples r, r + W, r + 2W, … of the
    global batch. With a single process every method is the identity.

    Attributes:
        rank: of this process, from 0.
        size: number of processes.
        device: where this one computes; what is exchanged has to lie there.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")  # noqa: RUF009

    @property
    def is_first(self) -> bool:
        """Return whether this process is the one that writes files."""
        return self.rank == 0

    def share(self, items: Sequence[Any]) -> Sequence[Any]:
        """Return this process's share of a sequence."""
        return items[self.rank :: self.size]

    @torch.no_grad()
    def average_(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace tensors of one dtype and device by their mean over the processes, in place."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([t.reshape(-1) for t in tensors])
        distributed.all_reduce(flat)
        flat /= self.size
        start = 0
        for t in tensors:
            t.copy_(flat[start : start + t.numel()].view_as(t))
            start += t.numel()

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the sum over the processes, on the tensor's own device."""
        if self.size == 1:
            return tensor
        total = tensor.to(self.device, copy=True)
        distributed.all_reduce(total)
        return total.to(tensor.device)

    def broadcast(self, value: Any) -> Any:
        """Return the first process's plain value everywhere."""
        if self.size == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, src=0)
        return box[0]

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """Return all processes' rows in the order in which `share` dealt them out.

        Args:
            rows: (n_r, …), this process's share; the shares differ by one row at most.
        """
        if self.size == 1:
            return rows
        parts: list[Any] = [None] * self.size
        distributed.all_gather_object(parts, rows)
        whole = np.empty((sum(map(len, parts)), *rows.shape[1:]), rows.dtype)
        for rank, part in enumerate(parts):
            whole[rank :: self.size] = part
        return whole

    def wait(self) -> None:
        """Wait until every process has come here."""
        if self.size > 1:
            distributed.barrier()


@contextmanager
def join_world(device: torch.device) -> Iterator[World]:
    """Join the processes that torchrun started; alone without it.

    A GPU process should have called `torch.cuda.set_device` for its own GPU (see `local_device`).
    The first process may rank for a long time while the others wait: the limit is a day.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World()
        return
    backend = "nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(backend, timeout=timedelta(days=1))
    try:
        yield World(distributed.get_rank(), distributed.get_world_size(), device)
    finally:
        distributed.destroy_process_group()


def check_gpus(processes: int) -> None:
    """Check that as many processes have a GPU each on this machine.

    Raises:
        UsageError: they do not.
    """
    count = torch.cuda.device_count()
    if processes > count:
        raise UsageError(
            f"--gpus: {processes} processes need a GPU each, and this machine has {count}. Ask for "
            "fewer, or use --device cpu."
        )


def local_device(device: torch.device) -> torch.device:
    """Return this process's own GPU where torchrun started several processes on one machine.

    Raises:
        UsageError: there are more processes than GPUs.
    """
    if device.type == "cuda" and "LOCAL_RANK" in os.environ:
        local = int(os.environ["LOCAL_RANK"])
        check_gpus(int(os.environ.get("LOCAL_WORLD_SIZE", local + 1)))
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    return device


def free_bytes(gpu: torch.device) -> int:
    """Return the memory of a GPU that this process could take, what it keeps unused included."""
    kept = torch.cuda.memory_reserved(gpu) - torch.cuda.memory_allocated(gpu)
    return torch.cuda.mem_get_info(gpu)[0] + kept


def peak_gib(device: torch.device) -> float:
    """Return the most memory this process has used so far, of the GPU where it computes on one."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def ignore(record: dict[str, Any]) -> None:
    """Report progress to nobody."""
