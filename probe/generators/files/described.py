"""Identify the network that bare tensors belong to, from a description stored with them.

The description is JSON, `{"architecture": "stylegan2", "init": {"z_dim": 512, …}}`, in a
safetensors file's metadata or in a `config.json` in the file's folder. `class_name` and `kwargs`
are accepted in place of the two names. If the architecture is missing, tensor names identify it; if
the arguments are missing, tensor shapes determine them, except for StyleGAN3.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probe.errors import CheckpointError
from probe.generators.checkpoint import misfits_refused
from probe.generators.files.families import FAMILIES, Tensors, family_of

LARGEST = 2**20  # bytes of a config.json
WANTED = '{"architecture": …, "init": {"z_dim": …}}'


@dataclass(frozen=True)
class Description:
    """A description of the network that some tensors belong to.

    Attributes:
        where: its location, for messages.
        content: the parsed JSON.
    """

    where: str
    content: Any


def described_beside(path: Path) -> Description | None:
    """Return the description in a `config.json` in a file's folder, None if there is none.

    Raises:
        CheckpointError: if it is not JSON.
    """
    config = path.parent / "config.json"
    if not config.is_file():
        return None
    if config.stat().st_size > LARGEST:
        raise CheckpointError(f"its {config.name} is far too large")
    return Description(f"the {config.name} beside it", parse_json(config.read_bytes(), config.name))


def parse_json(text: str | bytes, where: str) -> Any:
    """Parse JSON.

    Raises:
        CheckpointError: if it is not JSON.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"its {where} is not JSON") from error


def described_in(metadata: Mapping[str, str]) -> Description | None:
    """Return the description in a safetensors file's metadata, None if there is none.

    Raises:
        CheckpointError: if it is not JSON.
    """
    if "config" in metadata:
        return Description("its metadata", parse_json(metadata["config"], "metadata"))
    for name in ("init", "kwargs"):
        if name in metadata:
            content = {**metadata, name: parse_json(metadata[name], "metadata")}
            return Description("its metadata", content)
    return None


def describe_network(
    state: Tensors,
    description: Description | None,
    attributes: Mapping[str, Any] | None = None,
) -> tuple[str, dict[str, Any], Tensors]:
    """Return the network that some tensors form, from a description or else from their shapes.

    Args:
        state: a generator's tensors under the file's names.
        description: see the top of this file; None for none.
        attributes: plain values from its modules, if there are modules.

    Returns:
        The architecture, its constructor's arguments, and the tensors under our names.

    Raises:
        CheckpointError: if no family matches, or nothing determines the arguments.
    """
    architecture = family_of(state)
    family = FAMILIES[architecture]
    with misfits_refused():
        state = family.convert(state)
    if description is not None:
        content, where = description.content, description.where
        if not isinstance(content, dict):
            raise CheckpointError(f"{where} is not a JSON object; {WANTED} is expected")
        name = content.get("architecture", content.get("class_name"))
        init = content.get("init", content.get("kwargs"))
        if isinstance(init, dict):
            if isinstance(name, str) and name in FAMILIES:
                architecture = name
            return architecture, init, state
        if not family.derives:
            raise CheckpointError(f"{where} was read and has no 'init'; {WANTED} is expected")
    if not family.derives:
        raise CheckpointError(
            f"it holds only the tensors of a {family.title}; add a config.json with {WANTED} "
            "to its folder"
        )
    with misfits_refused():
        return architecture, family.derive(state, attributes or {}), state
