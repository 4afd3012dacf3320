"""Generator files: which generator a file holds, read without running any of it.

`families.FAMILIES` names what is read; `FORMATS` names what is written for other programs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probe.registry import Place


@dataclass(frozen=True, kw_only=True)
class Format:
    """How another program wants a network.

    Attributes:
        suffix: of its files.
        save: (path, generator, discriminator or None) → what the program cannot know of it; raises
            CheckpointError if it has no place for the generator.
        architecture: of the generators that it holds, a name of `families.FAMILIES`.
    """

    suffix: str
    save: Place[Callable[[Path, Any, Any], list[str]]]
    architecture: str = "stylegan2"


FORMATS: dict[str, Format] = {
    "rosinality": Format(suffix=".pt", save="probe.generators.files.export:save_rosinality"),
    "stylegan2-ada": Format(
        suffix=".safetensors", save="probe.generators.files.export:save_stylegan2_ada"
    ),
}
