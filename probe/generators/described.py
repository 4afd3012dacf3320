"""Tensors without a network: a description beside them says which one they belong to.

The description is JSON, `{"architecture": "stylegan2", "init": {"z_dim": 512, …}}`, in the
metadata of a safetensors file or in a `config.json` in the file's folder. `class_name` and `kwargs`
are taken for the two names as well. Without an architecture the tensors' names tell it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from probe.errors import CheckpointError, shown
from probe.generators.families import FAMILIES, family_of

LARGEST = 2**20  # bytes of a config.json
WANTED = '{"architecture": …, "init": {"z_dim": …}}'


@dataclass(frozen=True)
class Description:
    """What says which network some tensors belong to.

    Attributes:
        where: it was found, for sentences.
        content: of the JSON.
    """

    where: str
    content: Any


def described_beside(path: Path) -> Description | None:
    """Return what the `config.json` in a file's folder says, None where there is none.

    Raises:
        CheckpointError: it is no JSON.
    """
    config = path.parent / "config.json"
    if not config.is_file():
        return None
    if config.stat().st_size > LARGEST:
        raise CheckpointError(f"its {config.name} is far too large")
    return Description(f"the {config.name} beside it", parse(config.read_bytes(), config.name))


def parse(text: str | bytes, where: str) -> Any:
    """Return JSON's value.

    Raises:
        CheckpointError: it is no JSON.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"its {where} is not JSON") from error


def described_in(metadata: Mapping[str, str]) -> Description | None:
    """Return the description in a safetensors file's metadata, None where there is none.

    Raises:
        CheckpointError: it is no JSON.
    """
    if "config" in metadata:
        return Description("its metadata", parse(metadata["config"], "metadata"))
    for name in ("init", "kwargs"):
        if name in metadata:
            content = {**metadata, name: parse(metadata[name], "metadata")}
            return Description("its metadata", content)
    return None


def describe(
    state: Mapping[str, torch.Tensor], description: Description | None
) -> tuple[str, dict[str, Any]]:
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
        remedy = f"a config.json beside it with {WANTED} would say which"
        raise CheckpointError(f"it holds tensors alone, {known}; {remedy}")
    content, where = description.content, description.where
    if not isinstance(content, dict):
        raise CheckpointError(f"{where} is not a JSON object; {WANTED} is expected")
    name = content.get("architecture", content.get("class_name"))
    init = content.get("init", content.get("kwargs"))
    if not isinstance(init, dict):
        raise CheckpointError(f"{where} was read and has no 'init'; {WANTED} is expected")
    architecture = name if isinstance(name, str) and name in FAMILIES else found
    if architecture is None:
        families = ", ".join(FAMILIES)
        raise CheckpointError(
            f"the architecture {shown(name)} in {where} is unknown. Supported are {families}"
        )
    return architecture, init
