"""Describe a checkpoint file and what its pickle would have run, without running any of it."""

from dataclasses import dataclass, field
from pathlib import Path

from probe.errors import CheckpointError
from probe.files import digest_file
from probe.generators.files.families import FAMILIES
from probe.generators.files.formats import format_of, load_generator
from probe.generators.files.listing import globals_in, globals_in_torch
from probe.generators.files.programs import TITLES
from probe.generators.files.run_folder import checkpoint_file, kimg_in_name
from probe.generators.files.unpickle import pickle_file


@dataclass(frozen=True)
class Inspection:
    """A checkpoint file, inspected.

    Attributes:
        path: the file; for a run directory its best snapshot.
        bytes: its size.
        sha256: of its bytes.
        problem: why no generator can be read from it, or None.
        family: "StyleGAN2" and so on; None if none can be read, as for all that follow.
        place: the keys that lead to the generator in the file; None for the file as a whole.
        resolution, channels: of the images.
        z_dim: width of the latent.
        classes: number of classes, 0 for none.
        parameters: number of scalar parameters.
        kimg: images seen in training, in thousands, if the file or its name says so.
        ignored: what else the file holds.
        globals: every global a pickle refers to, marked if it would have run code.
    """

    path: str
    bytes: int
    sha256: str
    problem: str | None = None
    family: str | None = None
    place: str | None = None
    resolution: int | None = None
    channels: int | None = None
    z_dim: int | None = None
    classes: int | None = None
    parameters: int | None = None
    kimg: float | None = None
    ignored: list[str] = field(default_factory=list)
    globals: list[str] = field(default_factory=list)


def inspect_file(path: Path) -> Inspection:
    """Inspect a checkpoint file, or a run directory's best snapshot.

    Raises:
        CheckpointError: if there is no such file, or it cannot be opened.
    """
    path = checkpoint_file(path)
    try:
        size, digest = path.stat().st_size, digest_file(path)
        kind = _format(path)
        names = _globals(path, kind)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}).") from error
    known = {"path": str(path), "bytes": size, "sha256": digest, "globals": names}
    if kind in TITLES:
        return Inspection(**known, family=f"{TITLES[kind]}: drawing images runs it (--run-code)")
    try:
        checkpoint = load_generator(path)
    except CheckpointError as error:
        return Inspection(**known, problem=str(error))
    network = checkpoint.generator
    return Inspection(
        **known,
        family=FAMILIES[checkpoint.architecture].title,
        place=checkpoint.place or None,
        resolution=network.img_resolution,
        channels=network.img_channels,
        z_dim=network.z_dim,
        classes=network.c_dim,
        parameters=sum(p.numel() for p in network.parameters()),
        kimg=kimg_in_name(path) if checkpoint.kimg is None else checkpoint.kimg,
        ignored=checkpoint.ignored,
    )


def _format(path: Path) -> str | None:
    try:
        return format_of(path)
    except CheckpointError:
        return None  # loading reports the problem


def _globals(path: Path, kind: str | None) -> list[str]:
    if kind == "pickle":
        with pickle_file(path) as data:
            return globals_in(data)
    return globals_in_torch(path) if kind == "torch" else []
