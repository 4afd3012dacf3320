"""Random streams: one per named decision, each a pure function of the seed and the name."""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def stream_seed(seed: int, *names: object) -> int:
    """Return a 63-bit seed that is a pure function of (seed, names).

    Every random decision has its own name ("subset", "split", 3), so adding one never changes
    another.
    """
    text = repr((seed, *names)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


def stream_keys(seeds: Sequence[int], *names: object) -> "torch.Tensor":
    """Return the stream seed of each (seed, names), int64 (N,) on the CPU."""
    import torch

    return torch.tensor([stream_seed(seed, *names) for seed in seeds], dtype=torch.int64)


def numpy_stream(seed: int, *names: object) -> np.random.Generator:
    """Return a numpy generator for one named random decision."""
    return np.random.default_rng(stream_seed(seed, *names))


def torch_stream(seed: int, *names: object) -> "torch.Generator":
    """Return a CPU torch generator for one named random decision."""
    import torch  # here, because processes that only fit probes do without

    return torch.Generator().manual_seed(stream_seed(seed, *names))
