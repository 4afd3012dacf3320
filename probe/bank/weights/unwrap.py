"""Find the named tensors inside a training program's checkpoint."""

from typing import Any

import torch

from probe.bank.weights.keys import StateDict

# Keys under which training programs save a network, in order of preference.
WRAPPERS = ("state_dict", "model_state_dict", "model", "teacher", "student", "ema", "module")
DEEPEST = 16  # records within records
MOST_MODULES = 10_000
LONGEST_PREFIX = 10_000  # characters


class SeveralNetworks(Exception):
    """A record holds several sets of named tensors, and nothing decides between them."""


def named_tensors(record: Any) -> StateDict:
    """Return the named tensors of a record: its own, or one of its parts'.

    A part under one of `WRAPPERS` takes precedence over the record's own tensors, and these over
    its only other part with tensors. Sets of single numbers, such as losses, come last. Parts may
    be nested. A whole model, with the attributes of a `torch.nn.Module`, gets the names of its
    state dict.

    Args:
        record: a dict, whose attributes count too.

    Raises:
        SeveralNetworks: if no part takes precedence; names them.
        ValueError: if a model has more modules than any network.
    """
    return _find(record, {}, 0)


def _find(record: Any, seen: dict[int, StateDict], depth: int) -> StateDict:
    """Return a part's named tensors, examining each part once even if it appears repeatedly."""
    if not isinstance(record, dict) or depth > DEEPEST:
        return {}
    if id(record) not in seen:
        seen[id(record)] = {}  # it may contain itself
        seen[id(record)] = _look(record, seen, depth + 1)
    return seen[id(record)]


def _look(record: dict[Any, Any], seen: dict[int, StateDict], depth: int) -> StateDict:
    everything = {**getattr(record, "__dict__", {}), **record}
    parts = {name: part for name, part in everything.items() if isinstance(name, str)}
    if "_modules" in parts and "_parameters" in parts:
        return _of_module(record)
    for name in WRAPPERS:
        if found := _find(parts.get(name), seen, depth):
            return found
    own = {name: part.detach() for name, part in parts.items() if isinstance(part, torch.Tensor)}
    if any(tensor.ndim for tensor in own.values()):
        return own
    inner = {name: found for name, part in parts.items() if (found := _find(part, seen, depth))}
    if len(inner) > 1:
        raise SeveralNetworks(", ".join(inner))
    return next(iter(inner.values()), own)


def _of_module(module: Any) -> StateDict:
    """Return the tensors of a module's state dict, under their dotted names."""
    found: StateDict = {}
    left, count = [("", module)], 0
    while left:
        prefix, module = left.pop()
        count += 1
        if count > MOST_MODULES or len(prefix) > LONGEST_PREFIX:
            raise ValueError("it has more modules than any network")
        attributes = vars(module)
        transient = attributes.get("_non_persistent_buffers_set") or ()
        for group in ("_parameters", "_buffers"):
            for name, value in (attributes.get(group) or {}).items():
                if isinstance(value, torch.Tensor) and name not in transient:
                    found[f"{prefix}{name}"] = value.detach()
        children = (attributes.get("_modules") or {}).items()
        left += [(f"{prefix}{name}.", child) for name, child in children if child is not None]
    return found
