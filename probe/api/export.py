"""A generator, and its discriminator, as other programs load them."""

from pathlib import Path
from typing import Any

from probe.errors import CheckpointError, UsageError
from probe.events import Note, OnEvent, ignore
from probe.generators.files import FORMATS
from probe.generators.files.families import FAMILIES
from probe.generators.files.formats import load_generator
from probe.generators.files.run_folder import checkpoint_file
from probe.registry import load, lookup
from probe.training.inherit import read_discriminator


def export(
    checkpoint: Path | str,
    format: str,
    *,
    out: Path | str | None = None,
    on_event: OnEvent = ignore,
) -> Path:
    """Write a StyleGAN2 as another program loads it, with its discriminator if the file holds one.

    Args:
        checkpoint: any StyleGAN2 that can be read, or a run's directory (its best snapshot).
        format: a name of `probe.generators.files.FORMATS`: "rosinality" or "stylegan2-ada".
        out: a file that does not exist; one named after checkpoint and format, in the working
            directory, unless given.
        on_event: is given what is to be known before the file is loaded, as notes.

    Returns:
        The file.

    Raises:
        CheckpointError: no generator that can be read, or none that the format can hold.
        UsageError: an unknown format, or `out` exists.
    """
    chosen = lookup(FORMATS, format, "format")
    source = checkpoint_file(Path(checkpoint))
    found = load_generator(source)
    path = Path(out) if out is not None else Path(f"{source.stem}-{format}{chosen.suffix}")
    if path.exists():
        raise UsageError(f"--out: {path} exists already. Choose another name.")
    if found.architecture != chosen.architecture:
        title, wanted = (FAMILIES[a].title for a in (found.architecture, chosen.architecture))
        raise CheckpointError(f"{source}: is a {title} generator; only a {wanted} is exported.")
    notes: list[str] = []
    discriminator: Any = None
    try:
        if chosen.architecture == "stylegan2":  # of no other family one is read
            discriminator = read_discriminator(source)
    except CheckpointError as error:
        notes.append(f"The discriminator is left out. {error}")
    try:
        notes += load(chosen.save)(path, found.generator, discriminator)
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}.") from error
    for note in notes:
        on_event(Note(note))
    return path
