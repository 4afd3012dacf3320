"""Generators in pickles and torch files: the NVlabs family, TensorFlow, and plain tensors."""

import math
from pathlib import Path
from typing import Any

from probe.errors import CheckpointError
from probe.files import digest_file
from probe.generators.checkpoint import Checkpoint, build_network, misfits_refused
from probe.generators.files import tensorflow
from probe.generators.files.contents import FoundNetwork, find_generator, passed_over
from probe.generators.files.described import describe_network, described_beside
from probe.generators.files.families import FAMILIES, Tensors, family_of
from probe.generators.files.records import (
    Array,
    LazyTensor,
    Record,
    make_tensors,
    module_attributes,
    plain,
)
from probe.generators.files.torch_file import is_old, read_torch_file, zip_kind
from probe.generators.files.unpickle import pickle_file, read_pickle


def read_content(path: Path) -> tuple[Any, list[str]]:
    """Return a pickle's or torch file's content, and every global it refers to.

    Raises:
        UnsafeCheckpoint: if it refers to something outside the allow-list.
        CheckpointError: if it is damaged.
    """
    if zip_kind(path) or is_old(path):
        return read_torch_file(path)
    with pickle_file(path) as data:
        return read_pickle(data)


def read_pickled(path: Path) -> Checkpoint:
    """Read the generator of a pickle or torch file without running any of it.

    `described` explains how the arguments of a network without its module are found.

    Raises:
        UnsafeCheckpoint: if it refers to something outside the allow-list.
        CheckpointError: if it is damaged, holds no generator, or one of an unknown family.
    """
    content, names = read_content(path)
    place, ignored = "", []
    if tensorflow.is_tensorflow(content):
        with misfits_refused():
            init, state = tensorflow.read_network(content)
        architecture = "stylegan2"
    else:
        held = find_generator(content)
        place, ignored = held.place, passed_over(content, held)
        architecture, init, state = _describe(held, path)
    return Checkpoint(
        generator=build_network(architecture, init, state),
        architecture=architecture,
        digest=digest_file(path),
        init=init,
        place=place,
        kimg=_kimg(content),
        globals=names,
        ignored=ignored,
    )


def _describe(held: FoundNetwork, path: Path) -> tuple[str, dict[str, Any], Tensors]:
    """Return a generator's architecture, its constructor's arguments and its tensors."""
    state = make_tensors(held.tensors)
    if held.module is None:
        return describe_network(state, described_beside(path))
    family = FAMILIES[architecture := family_of(state)]
    init = arguments(held.module, family.arguments)
    if init is not None or not family.derives:
        return architecture, init or {}, state
    return describe_network(state, None, module_attributes(held.module))


def _kimg(content: Any) -> float | None:
    """Return the thousands of images seen in training, None if a snapshot does not count them.

    Snapshots from Projected GAN and R3GAN have `cur_nimg`, a number or a tensor of one, sometimes
    inside `progress`.
    """
    found = content.get("progress", content) if isinstance(content, dict) else None
    count = found.get("cur_nimg") if isinstance(found, dict) else None
    if isinstance(count, LazyTensor) and math.prod(count.size) == 1:
        count = count.tensor().item()
    elif isinstance(count, Array) and count.value is not None and count.value.size == 1:
        count = count.value.item()
    if not isinstance(count, int | float) or isinstance(count, bool):
        return None
    return count / 1000 if 0 <= count < 2**53 else None


def arguments(module: Record, names: tuple[str, ...]) -> dict[str, Any] | None:
    """Return a module's constructor arguments, with names for the positional ones.

    Args:
        module: of any class.
        names: of the positional arguments.

    Returns:
        None if the module does not store them; modules of "persistent" classes do.

    Raises:
        CheckpointError: if they are malformed.
    """
    if not {"_init_args", "_init_kwargs"} & module.state.keys():
        return None
    positional = plain(module.state.get("_init_args") or ())
    keywords = plain(module.state.get("_init_kwargs") or {})
    well_formed = isinstance(positional, list) and isinstance(keywords, dict)
    if not well_formed or len(positional) > len(names):
        raise CheckpointError("its constructor arguments are malformed")
    return {**dict(zip(names, positional, strict=False)), **keywords}
