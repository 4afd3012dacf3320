"""Read what a file holds for further training: the generator itself and the discriminator."""

from pathlib import Path
from typing import Any

import torch

from probe.generators.checkpoint import misfits_refused
from probe.generators.files import tensorflow
from probe.generators.files.contents import (
    FoundNetwork,
    find_discriminator,
    find_generator,
    find_trained,
)
from probe.generators.files.described import described_in
from probe.generators.files.families import FAMILIES
from probe.generators.files.formats import format_of
from probe.generators.files.pickled import arguments, read_content
from probe.generators.files.records import LazyTensor, make_tensors
from probe.generators.files.rosinality import DISCRIMINATOR_SIGN, discriminator_to_ours
from probe.generators.files.run_folder import checkpoint_file
from probe.generators.files.snapshot import read_tensors
from probe.generators.networks.shapes import discriminator_arguments

DISCRIMINATOR = "discriminator"  # key of its constructor's arguments in a description
# Names of the constructor's positional arguments.
DISCRIMINATOR_ARGUMENTS = ("c_dim", "img_resolution", "img_channels")

Network = tuple[dict[str, Any], dict[str, torch.Tensor]]


def read_companions(path: Path) -> dict[str, Network]:
    """Return what else a StyleGAN2 file holds for training: "G" and "D", if present.

    Args:
        path: a file that `load_generator` has read, or a run's directory.

    Returns:
        Name → the constructor's arguments, and the tensors under StyleGAN2-ADA's names.

    Raises:
        CheckpointError: if it is damaged; without the path.
    """
    path = checkpoint_file(path)
    description: Any = None
    if format_of(path) == "safetensors":
        metadata, content = read_tensors(path)
        if "probe" in metadata:  # our own snapshots hold only the average
            return {}
        found = described_in(metadata)
        if found is not None and isinstance(found.content, dict):
            description = found.content.get(DISCRIMINATOR)
    else:
        content, _ = read_content(path)
        if tensorflow.is_tensorflow(content):
            return {}
    companions = {}
    with misfits_refused():
        if trained := find_trained(content, find_generator(content)):
            companions["G"] = _generator(trained)
        if discriminator := find_discriminator(content):
            companions["D"] = _discriminator(discriminator, description)
    return companions


def _tensors(held: FoundNetwork) -> dict[str, torch.Tensor]:
    lazy = {n: t for n, t in held.tensors.items() if isinstance(t, LazyTensor)}
    return {**held.tensors, **make_tensors(lazy)}


def _generator(held: FoundNetwork) -> Network:
    family, state = FAMILIES["stylegan2"], _tensors(held)
    init = None if held.module is None else arguments(held.module, family.arguments)
    if init is None:
        state = dict(family.convert(state))
        init = family.derive(state, {})
    return init, state


def _discriminator(held: FoundNetwork, description: Any) -> Network:
    state = _tensors(held)
    init = None if held.module is None else arguments(held.module, DISCRIMINATOR_ARGUMENTS)
    if init is not None:
        return init, state
    if DISCRIMINATOR_SIGN in state:
        state = discriminator_to_ours(state)
    return description if isinstance(description, dict) else discriminator_arguments(state), state
