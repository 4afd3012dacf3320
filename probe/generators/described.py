"""Tensors without a network: a description beside them says which one they belong to.

The description is JSON, `{"architecture": "stylegan2", "init": {"z_dim": 512, …}}`, in the
metadata of a safetensors file or in a `config.json` in the file's folder. `class_name` and `kwargs`
are taken for the two names as well. Without an architecture the tensors' names tell it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from probe.errors import CheckpointError, printable
from probe.generators.families import FAMILIES, family_of

LARGEST = 2**20  # bytes of a config.json
WANTED = 'a config.json beside it with {"architecture": …, "init": {"z_dim": …}} would say which'


def described_beside(path: Path) -> Any:
    """Return the content of `config.json` in a file's folder, None where there is none.

    Raises:
        CheckpointError: it is no JSON.
    """
    config = path.parent / "config.json"
    if not config.is_file():
        return None
    if config.stat().st_size > LARGEST:
        raise CheckpointError(f"its {config.name} is far too large")
    return parse(config.read_bytes(), config.name)


def parse(text: str | bytes, where: str) -> Any:
    """Return JSON's value.

    Raises:
        CheckpointError: it is no JSON.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"its {where} is not JSON") from error


def described_in(metadata: Mapping[str, str]) -> Any:
    """Return the description in a safetensors file's metadata, None where there is none.

    Raises:
        CheckpointError: it is no JSON.
    """
    if "config" in metadata:
        return parse(metadata["config"], "metadata")
    for name in ("init", "kwargs"):
        if name in metadata:
            return {**metadata, name: parse(metadata[name], "metadata")}
    return None


def describe(state: Mapping[str, torch.Tensor], description: Any) -> tuple[str, dict[str, Any]]:
    """Return the architecture of some tensors and its constructor's arguments.

    Args:
        state: the tensors by name.
        description: see the top of this file; None for none.

    Raises:
        CheckpointError: no description, or of no network that is known.
    """
    found = family_of(state)
    if description is None:
        known = f"those of a {FAMILIES[found].title}" if found else "of an unknown network"
        raise CheckpointError(f"it holds tensors alone, {known}; {WANTED}")
    if not isinstance(description, dict):
        raise CheckpointError(f"its description is not a JSON object; {WANTED}")
    name = description.get("architecture", description.get("class_name"))
    init = description.get("init", description.get("kwargs"))
    if not isinstance(init, dict):
        raise CheckpointError(f"its description has no 'init'; {WANTED}")
    architecture = name if isinstance(name, str) and name in FAMILIES else found
    if architecture is None:
        families = ", ".join(FAMILIES)
        given = printable(repr(name), 40)
        raise CheckpointError(f"its architecture {given} is unknown. Supported are {families}")
    return architecture, init
