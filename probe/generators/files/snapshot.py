"""Read and write safetensors, which hold no code. Our own generator file adds JSON metadata.

Tensor names match the StyleGAN2-ADA modules, so other programs can load them.
"""

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from probe.errors import CheckpointError, printable
from probe.files import atomic_path, digest_file, utf8_path
from probe.generators.checkpoint import MISFITS, Checkpoint, build_network
from probe.generators.files.contents import find_generator, passed_over
from probe.generators.files.described import describe_network, described_beside, described_in
from probe.generators.files.families import FAMILIES
from probe.generators.files.records import MOST_TENSORS

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
        metadata: plain values to store with it (kimg, seed, options).
        architecture: a name in `FAMILIES`.
        dtype: of the stored tensors; float16 halves the file size.
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
            save_file(state, temporary, metadata={**_shown(header), "probe": json.dumps(header)})
        except SafetensorError as error:  # how safetensors reports a full disk
            raise OSError(str(error)) from error
        _order_metadata(temporary)


def _order_metadata(path: Path) -> None:
    """Sort a file's metadata, whose order is random, so that equal generators make equal files."""
    with path.open("r+b") as f:
        size = int.from_bytes(f.read(8), "little")
        header = json.loads(f.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":")).encode()
        if len(text) <= size:  # as safetensors writes it: no longer than it was
            f.seek(8)
            f.write(text.ljust(size))


def _shown(header: dict[str, Any]) -> dict[str, str]:
    """Return what other programs show of a file: keys of safetensors' and of ModelSpec's."""
    side = header["init"].get("img_resolution", 0)
    title = FAMILIES[header["architecture"]].title
    size = {"modelspec.resolution": f"{side}x{side}"} if side else {}
    kimg = _number(header.get("kimg"))
    shown = "" if kimg is None else f", after {kimg:g} kimg"
    return {
        "format": "pt",
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": header["architecture"],
        "modelspec.implementation": "probe",
        "modelspec.title": f"{title}{f', {side} px' if side else ''}{shown}",
        **size,
    }


def read_safetensors(path: Path) -> Checkpoint:
    """Read a generator from `save_snapshot`, or tensors of a known family with a description.

    Raises:
        CheckpointError: if it is damaged, of another kind, or its tensors do not fit.
    """
    metadata, state = read_tensors(path)
    kimg, place, ignored = None, "", []
    if "probe" in metadata:
        architecture, init, kimg = _own(metadata["probe"])
    else:
        held = find_generator(state)
        place, ignored = held.place, passed_over(state, held)
        description = described_in(metadata) or described_beside(path)
        architecture, init, state = describe_network(held.tensors, description)
    odd = next((name for name, tensor in state.items() if tensor.dtype not in DTYPES), None)
    if odd is not None:
        kind = str(state[odd].dtype).removeprefix("torch.")
        name = printable(odd, 100)
        raise CheckpointError(f"its tensor '{name}' holds {kind} numbers, not plain floats")
    return Checkpoint(
        generator=build_network(architecture, init, state),
        architecture=architecture,
        digest=digest_file(path),
        init=init,
        place=place,
        kimg=kimg,
        ignored=ignored,
    )


def read_tensors(path: Path) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    """Return a safetensors file's metadata and tensors.

    Raises:
        CheckpointError: if it is damaged, or has more tensors than any network.
    """
    try:
        with utf8_path(path) as known, safe_open(known, framework="pt") as f:
            names = f.keys()
            if len(names) > MOST_TENSORS:
                raise CheckpointError(f"it holds {len(names)} tensors, more than any network has")
            return f.metadata() or {}, {name: f.get_tensor(name) for name in names}
    except (SafetensorError, OSError, *MISFITS) as error:
        what = str(error).partition("\n")[0]  # torch adds lines for its developers
        raise CheckpointError(f"it is damaged ({what})") from error


def _own(text: str) -> tuple[str, dict[str, Any], float | None]:
    """Return architecture, constructor arguments and kimg from a header that we wrote."""
    try:
        header = json.loads(text)
        known = header["format"] == FORMAT and header["version"] == VERSION
        init, architecture = header["init"], header["architecture"]
        kimg = _number(header.get("kimg"))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError("it is a safetensors file whose header is damaged") from error
    known = known and isinstance(architecture, str) and architecture in FAMILIES
    if not known or not isinstance(init, dict):
        raise CheckpointError("it is a generator of a kind or version this release cannot read")
    return architecture, init, kimg


def _number(value: Any) -> float | None:
    # JSON may hold integers beyond a float's range, and Python's parser accepts NaN.
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None
