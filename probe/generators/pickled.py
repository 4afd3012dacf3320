"""Generators in pickles and torch files: the NVlabs family, TensorFlow's, and plain tensors."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from probe.errors import CheckpointError, kind_of, printable, shown
from probe.files import digest_file
from probe.generators import tensorflow
from probe.generators.checkpoint import Checkpoint, build_network, misfits_refused
from probe.generators.described import describe, described_beside
from probe.generators.families import FAMILIES, family_of, without_prefix
from probe.generators.records import (
    Array,
    LazyTensor,
    Record,
    make_tensors,
    module_attributes,
    module_state,
    plain,
    unwrapped,
)
from probe.generators.run_folder import checkpoint_file
from probe.generators.torch_file import read_torch_file, zip_kind
from probe.generators.unpickle import pickle_file, read_pickle

# What the constructor's positional arguments are called.
DISCRIMINATOR_ARGUMENTS = ("c_dim", "img_resolution", "img_channels")


def _content(path: Path) -> tuple[Any, list[str]]:
    if zip_kind(path):
        return read_torch_file(path)
    with pickle_file(path) as data:
        return read_pickle(data)


def read_pickled(path: Path) -> Checkpoint:
    """Read the generator of a pickle or torch file; nothing of it is run.

    Tensors alone, as a state dict, need a description beside them (see `described`).

    Raises:
        UnsafeCheckpoint: it refers to something outside the allow-list.
        CheckpointError: damaged, without a generator, or of an unknown family.
    """
    content, names = _content(path)
    ignored: list[str] = []
    if tensorflow.is_tensorflow(content):
        with misfits_refused():
            init, state = tensorflow.read_network(content)
        architecture = "stylegan2"
    else:
        network, ignored = _network(content)
        if isinstance(network, Record):
            architecture, init, state = _of_module(network)
        else:
            state = without_prefix(make_tensors(network))
            architecture, init = describe(state, described_beside(path))
    return Checkpoint(
        generator=build_network(architecture, init, state),
        architecture=architecture,
        digest=digest_file(path),
        init=init,
        kimg=_kimg(content),
        globals=names,
        ignored=ignored,
    )


def _network(content: Any) -> tuple[Record | dict[str, LazyTensor], list[str]]:
    """Return the module or the tensors of the generator, and what else there is."""
    if _are_tensors(content):
        return content, []
    if not isinstance(content, dict):
        raise CheckpointError(f"it holds a {_kind(content)}, not a dict with G_ema")
    network = content.get("G_ema")
    if not isinstance(network, Record) and not _are_tensors(network):
        held = ", ".join(_key(key) for key in list(content)[:8])
        only = f"only {held}" if held else "nor anything else"
        raise CheckpointError(f"it holds no generator under 'G_ema', {only}")
    return network, [_key(key) for key in content if key != "G_ema"]


def _kimg(content: Any) -> float | None:
    """Return the thousands of images seen in training, None where a snapshot does not count them.

    Projected GAN's and R3GAN's have `cur_nimg`, as a number or a tensor of one, some in `progress`.
    """
    found = content.get("progress", content) if isinstance(content, dict) else None
    count = found.get("cur_nimg") if isinstance(found, dict) else None
    if isinstance(count, LazyTensor) and math.prod(count.size) == 1:
        count = count.tensor().item()
    elif isinstance(count, Array) and count.value is not None and count.value.size == 1:
        count = count.value.item()
    return count / 1000 if type(count) in (int, float) and 0 <= count < 2**53 else None


def _key(key: Any) -> str:
    return printable(key, 60) if isinstance(key, str) else shown(key)


def _are_tensors(content: Any) -> bool:
    return (
        isinstance(content, dict)
        and bool(content)
        and all(isinstance(k, str) and isinstance(v, LazyTensor) for k, v in content.items())
    )


def _of_module(network: Record) -> tuple[str, dict[str, Any], dict[str, torch.Tensor]]:
    network = unwrapped(network)
    state = module_state(network)
    architecture = family_of(state)
    if architecture is None:
        families = ", ".join(family.title for family in FAMILIES.values())
        raise CheckpointError(
            f"its generator is a {_kind(network)} of an unknown kind. Supported are {families}"
        )
    family = FAMILIES[architecture]
    if family.derives and not {"_init_args", "_init_kwargs"} & network.state.keys():
        with misfits_refused():
            state = family.convert(state)
            return architecture, family.derive(state, module_attributes(network)), state
    return architecture, _init(network.state, family.arguments), state


def read_modules(path: Path) -> dict[str, tuple[dict[str, Any], dict[str, torch.Tensor]]]:
    """Return what else a StyleGAN2-ADA pickle holds to train on: "G" and "D", where they are.

    Returns:
        Name → the constructor's arguments and the tensors by their dotted names.

    Raises:
        CheckpointError: damaged; see `load_generator`, which should have read the file before.
    """
    content, _ = _content(checkpoint_file(path))
    found = {}
    for name, names in (("G", FAMILIES["stylegan2"].arguments), ("D", DISCRIMINATOR_ARGUMENTS)):
        network = content.get(name) if isinstance(content, dict) else None
        if isinstance(network, Record) and (state := module_state(network)):
            found[name] = (_init(network.state or {}, names), state)
    return found


def _kind(content: Any) -> str:
    return printable(content.type.name, 100) if isinstance(content, Record) else kind_of(content)


def _init(state: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Return the constructor's arguments, positional ones by their names."""
    positional = plain(state.get("_init_args") or ())
    keywords = plain(state.get("_init_kwargs") or {})
    well_formed = isinstance(positional, list) and isinstance(keywords, dict)
    if not well_formed or len(positional) > len(names):
        raise CheckpointError("its constructor arguments are malformed")
    return {**dict(zip(names, positional, strict=False)), **keywords}
