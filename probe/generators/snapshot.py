"""Our own generator file: safetensors with JSON metadata, nothing executable.

Tensor names are those of the StyleGAN2-ADA modules, so that others can load them.
"""

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from probe.errors import CheckpointError, printable
from probe.files import atomic_path, digest_file
from probe.generators.checkpoint import Checkpoint, build_network
from probe.generators.families import FAMILIES

FORMAT, VERSION = "probe-generator", 1
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)  # of stored tensors


def save_snapshot(
    path: Path,
    generator: Any,
    *,
    metadata: dict[str, Any],
    architecture: str = "stylegan2",
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write a generator atomically.

    Args:
        path: ends in .safetensors.
        generator: the network, a `Generator` of its family.
        metadata: plain values to keep beside it (kimg, seed, options).
        architecture: a name of `FAMILIES`.
        dtype: of the stored tensors; float16 halves the file.
    """
    header = {
        **metadata,
        "format": FORMAT,
        "version": VERSION,
        "architecture": architecture,
        "init": generator.init_kwargs,
    }
    state = {
        name: tensor.detach().to("cpu", dtype).contiguous()
        for name, tensor in generator.state_dict().items()
    }
    with atomic_path(path) as temporary:
        try:
            save_file(state, temporary, metadata={"probe": json.dumps(header)})
        except SafetensorError as error:  # its way to speak of a full disk
            raise OSError(str(error)) from error


def read_snapshot(path: Path) -> Checkpoint:
    """Read a generator that `save_snapshot` wrote.

    Raises:
        CheckpointError: damaged, of another kind, or with tensors that do not fit.
    """
    try:
        with safe_open(path, framework="pt") as f:
            text = (f.metadata() or {}).get("probe", "")
            state = {name: f.get_tensor(name) for name in f.keys()}
        odd = next((name for name, tensor in state.items() if tensor.dtype not in DTYPES), None)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"it is damaged ({error})") from error
    try:
        header = json.loads(text)
        known = header["format"] == FORMAT and header["version"] == VERSION
        init, architecture = header["init"], header["architecture"]
        kimg = _number(header.get("kimg"))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError("it is a safetensors file, but no generator of ours") from error
    if not known or architecture not in FAMILIES or not isinstance(init, dict):
        raise CheckpointError("it is a generator of a kind or version this release cannot read")
    if odd is not None:
        kind = str(state[odd].dtype).removeprefix("torch.")
        name = printable(odd, 100)
        raise CheckpointError(f"its tensor '{name}' holds {kind} numbers, not plain floats")
    return Checkpoint(
        generator=build_network(architecture, init, state),
        architecture=architecture,
        digest=digest_file(path),
        init=init,
        kimg=kimg,
    )


def _number(value: Any) -> float | None:
    # JSON can hold integers beyond a float's range, and Python's reader takes NaN.
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None
