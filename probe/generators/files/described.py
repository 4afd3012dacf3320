"""Tensors without a network: a description beside them says which one they belong to.

The description is JSON, `{"architecture": "stylegan2", "init": {"z_dim": 512, …}}`, in the
metadata of a safetensors file or in a `config.json` in the file's folder. `class_name` and `kwargs`
are taken for the two names as well. Without an architecture the tensors' names tell it, and without
arguments their shapes do, but for StyleGAN3.
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
    state: Tensors,
    description: Description | None,
    attributes: Mapping[str, Any] | None = None,
) -> tuple[str, dict[str, Any], Tensors]:
    """Return what network some tensors make, by a description or else by their shapes.

    Args:
        state: a generator's tensors by the names of its file.
        description: see the top of this file; None for none.
        attributes: plain values of its modules, if there are modules.

    Returns:
        The architecture, its constructor's arguments, and the tensors under our names.

    Raises:
        CheckpointError: of no family, or nothing says the arguments.
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
            f"it holds tensors alone, those of a {family.title}; a config.json beside it with "
            f"{WANTED} would say which"
        )
    with misfits_refused():
        return architecture, family.derive(state, attributes or {}), state
