"""Export a generator and its discriminator for other programs."""

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
    """Write a StyleGAN2 in another program's format, with its discriminator if the file has one.

    Args:
        checkpoint: any readable StyleGAN2, or a run's directory (its best snapshot).
        format: a name in `probe.generators.files.FORMATS`: "rosinality" or "stylegan2-ada".
        out: a new file; default one named after checkpoint and format, in the working directory.
        on_event: called with notes on what to know before loading the file.

    Returns:
        The file.

    Raises:
        CheckpointError: no generator can be read, or the format cannot hold it.
        UsageError: unknown format, or `out` exists or has another format's suffix.
    """
    chosen = lookup(FORMATS, format, "format")
    source = checkpoint_file(Path(checkpoint))
    found = load_generator(source)
    path = Path(out) if out is not None else Path(f"{source.stem}-{format}{chosen.suffix}")
    if path.suffix.lower() != chosen.suffix:
        raise UsageError(f"--out: {path.name}: a {format} file ends in {chosen.suffix}.")
    if path.exists():
        raise UsageError(f"--out: {path} exists already. Choose another name.")
    if found.architecture != chosen.architecture:
        title, wanted = (FAMILIES[a].title for a in (found.architecture, chosen.architecture))
        raise CheckpointError(f"{source}: is a {title} generator; only a {wanted} is exported.")
    notes: list[str] = []
    discriminator: Any = None
    try:
        if chosen.architecture == "stylegan2":  # the only family with a readable discriminator
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
