"""The processes that torchrun starts, and how they split work."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from torch import distributed

from probe.errors import UsageError


@dataclass(frozen=True)
class Processes:
    """The processes that work on one job, and the rank of this one.

    Batches are split in strides: process r of W takes samples r, r + W, r + 2W, … of the global
    batch. With a single process every method is the identity.

    Attributes:
        rank: of this process, from 0.
        size: number of processes.
        device: this process's device; exchanged tensors must be on it.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")  # noqa: RUF009

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes files."""
        return self.rank == 0

    def share(self, items: Sequence[Any]) -> Sequence[Any]:
        """Return this process's share of a sequence."""
        return items[self.rank :: self.size]

    @torch.no_grad()
    def average_(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace tensors of one dtype and device by their mean over processes, in place."""
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
        """Return the sum over processes, on the tensor's own device."""
        if self.size == 1:
            return tensor
        total = tensor.to(self.device, copy=True)
        distributed.all_reduce(total)
        return total.to(tensor.device)

    def broadcast(self, value: Any) -> Any:
        """Return the first process's plain value in every process."""
        if self.size == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, src=0)
        return box[0]

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """Return the rows of all processes in the original order, undoing `share`.

        Args:
            rows: (n_r, …), this process's share; shares differ by at most one row.
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
        """Wait until every process has reached this call."""
        if self.size > 1:
            distributed.barrier()


def joined_processes(device: torch.device) -> Processes:
    """Return the processes that this one has joined already; a single one if it has not."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return Processes()
    return Processes(distributed.get_rank(), distributed.get_world_size(), device)


@contextmanager
def join_processes(device: torch.device) -> Iterator[Processes]:
    """Join the processes that torchrun started, or yield a single process without it.

    A GPU process must first call `torch.cuda.set_device` for its own GPU (see `local_device`). The
    timeout is a day, because the first process may rank for a long time while the others wait.
    """
    if (joined := joined_processes(device)).size > 1:  # by the caller's own program
        yield joined
        return
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Processes()
        return
    backend = "nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(backend, timeout=timedelta(days=1))
    try:
        yield Processes(distributed.get_rank(), distributed.get_world_size(), device)
    finally:
        distributed.destroy_process_group()


def check_gpus(processes: int) -> None:
    """Check that this machine has a GPU for each of `processes` processes.

    Raises:
        UsageError: it has fewer.
    """
    count = torch.cuda.device_count()
    if processes > count:
        raise UsageError(
            f"--gpus: {processes} processes need a GPU each, and this machine has {count}. Ask for "
            "fewer, or use --device cpu."
        )


def local_device(device: torch.device) -> torch.device:
    """Return this process's own GPU if torchrun started several processes on this machine.

    Raises:
        UsageError: there are more processes than GPUs.
    """
    if device.type == "cuda" and "LOCAL_RANK" in os.environ:
        local = int(os.environ["LOCAL_RANK"])
        check_gpus(int(os.environ.get("LOCAL_WORLD_SIZE", local + 1)))
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    return device
