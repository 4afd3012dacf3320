"""The processes that torchrun starts, and how they split work."""

import hashlib
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import distributed

from probe.errors import ProbeError, UsageError
from probe.heartbeat import LOST, Heartbeat, heartbeat_key
from probe.launchers import launched_size

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

MEETING = timedelta(minutes=10)  # in which all processes of a job must have started
# How PyTorch's backends say that another process cannot be reached.
UNREACHABLE = re.compile(r"connection|peer|socket|broken pipe|timed? ?out|nccl|remote", re.I)


class ProcessLost(ProbeError):
    """Another process of this job has ended or cannot be reached."""


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
        with _reaching():
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
        with _reaching():
            distributed.all_reduce(total)
        return total.to(tensor.device)

    def broadcast(self, value: Any) -> Any:
        """Return the first process's plain value in every process."""
        if self.size == 1:
            return value
        box = [value]
        with _reaching():
            distributed.broadcast_object_list(box, src=0)
        return box[0]

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """Return the rows of all processes in the original order, undoing `share`.

        Args:
            rows: (n_r, …), this process's share; shares differ by at most one row.
        """
        if self.size == 1:
            return rows
        parts = self.collect(rows)
        whole = np.empty((sum(map(len, parts)), *rows.shape[1:]), rows.dtype)
        for rank, part in enumerate(parts):
            whole[rank :: self.size] = part
        return whole

    def collect(self, value: Any) -> list[Any]:
        """Return the plain values of all processes, by rank, in every process."""
        parts: list[Any] = [value] * self.size
        if self.size > 1:
            with _reaching():
                distributed.all_gather_object(parts, value)
        return parts

    def wait(self) -> None:
        """Wait until every process has reached this call."""
        if self.size > 1:
            with _reaching():
                distributed.barrier()


@contextmanager
def _reaching() -> Iterator[None]:
    """Turn a backend's error on a process that is gone into a sentence.

    Raises:
        ProcessLost: another process cannot be reached.
    """
    try:
        yield
    except RuntimeError as error:
        if not UNREACHABLE.search(str(error)):
            raise
        raise ProcessLost(
            f"Another process of this job has ended or cannot be reached. {LOST}"
        ) from error


def joined_processes(device: torch.device) -> Processes:
    """Return the processes that this one has joined already; a single one if it has not."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return Processes()
    return Processes(distributed.get_rank(), distributed.get_world_size(), device)


@contextmanager
def join_processes(device: torch.device) -> Iterator[Processes]:
    """Join the processes that torchrun started, or yield a single process without it.

    A GPU process must first call `torch.cuda.set_device` for its own GPU (see `local_device`). The
    first process may rank for a long time while the others wait, so no exchange has a time limit.
    Instead, a process ends, with exit code 1, if another writes no heartbeat for two minutes.
    A `ProbeError` is marked as repeated if another process of this machine says why the job ends.

    Raises:
        UsageError: see `launched_size`.
        ProbeError: the processes do not find each other, or one of them is lost.
    """
    if (joined := joined_processes(device)).size > 1:  # by the caller's own program
        yield joined
        return
    if launched_size() == 1:
        yield Processes()
        return
    from torch.distributed.distributed_c10d import PrefixStore

    store, rank, size = _meet()
    backend = "nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(
        backend,
        store=PrefixStore("group", store),
        rank=rank,
        world_size=size,
        timeout=timedelta(days=1),
    )
    heartbeat = Heartbeat(lambda: _connect()[0], rank, size, _end)
    try:
        yield Processes(rank, size, device)
    except BaseException as error:
        heartbeat.stop("failed")
        if _is_repeated(store, error) and isinstance(error, ProbeError):
            error.repeated = True
        if backend == "gloo":  # NCCL would wait for the others
            distributed.destroy_process_group()
        raise
    heartbeat.stop("done")
    distributed.destroy_process_group()


def _meet() -> "tuple[Store, int, int]":
    """Return the store that all processes share, this one's rank, and their number.

    Raises:
        ProbeError: they do not find each other.
    """
    place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    try:
        store, rank, size = _connect()
        store.set(heartbeat_key(rank), "0")
        store.wait([heartbeat_key(other) for other in range(size)], MEETING)
    except (RuntimeError, ValueError) as error:
        raise ProbeError(
            f"The {os.environ['WORLD_SIZE']} processes of this job did not find each other at "
            f"{place} (MASTER_ADDR, MASTER_PORT). Check that all have started and can reach it."
        ) from error
    return store, rank, size


def _connect() -> "tuple[Store, int, int]":
    """Return a new connection to the launcher's store, this process's rank, and their number."""
    from torch.distributed.rendezvous import rendezvous

    return next(rendezvous("env://"))


def _end(text: str) -> None:
    """End this process, whose main thread may wait for another one forever."""
    sys.stderr.write(f"\nError: {text}\n")
    sys.stderr.flush()
    os._exit(1)


def _is_repeated(store: "Store", error: BaseException) -> bool:
    """Return whether another process of this machine has said, or will say, why the job ends."""
    ends = f"ends of {os.environ.get('GROUP_RANK', '0')}"
    digest = hashlib.sha256(str(error).encode("utf-8", "replace")).hexdigest()
    try:
        if isinstance(error, ProcessLost):
            return store.add(ends, 0) > 0
        store.add(ends, 1)
        return store.add(f"{ends} {digest}", 1) > 1
    except RuntimeError:  # the store has ended
        return False


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
