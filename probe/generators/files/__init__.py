"""Generator files: find the generator in a file and read it without running any of it.

`families.FAMILIES` lists what can be read; `FORMATS` lists what can be written for other programs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probe.registry import Place


@dataclass(frozen=True, kw_only=True)
class ExportFormat:
    """A network format of another program.

    Attributes:
        suffix: of its files.
        save: (path, generator, discriminator or None) → what the program cannot know about it;
            raises CheckpointError if the format cannot represent the generator.
        architecture: of the generators it can hold, a name in `families.FAMILIES`.
    """

    suffix: str
    save: Place[Callable[[Path, Any, Any], list[str]]]
    architecture: str = "stylegan2"


FORMATS: dict[str, ExportFormat] = {
    "rosinality": ExportFormat(suffix=".pt", save="probe.generators.files.export:save_rosinality"),
    "stylegan2-ada": ExportFormat(
        suffix=".safetensors", save="probe.generators.files.export:save_stylegan2_ada"
    ),
}
