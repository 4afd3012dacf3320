"""Load tensors from a weight file into a network, strictly."""

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from probe.bank.spec import BackboneSpec
from probe.bank.weights.file import read_weights
from probe.bank.weights.keys import StateDict, map_keys
from probe.errors import BackboneUnavailable


def load_state(
    spec: BackboneSpec, path: Path, network: nn.Module, *, leave_out: Sequence[str] = ()
) -> None:
    """Load a weight file into a network; its tensors must match the network's exactly.

    Args:
        spec: the entry; its key map is applied first.
        path: its weight file.
        network: loaded in place.
        leave_out: prefixes of names to skip, such as the classifier's.

    Raises:
        BackboneUnavailable: if tensors are missing, unexpected, or of another shape.
    """
    state = map_keys(read_weights(spec, path), spec.keys, network)
    state = {k: v for k, v in state.items() if not k.startswith(tuple(leave_out))}
    fit_state(spec, path, state, network)


def fit_state(spec: BackboneSpec, path: Path, state: StateDict, network: nn.Module) -> None:
    """Load tensors that already have the network's names; see `load_state`."""
    own = network.state_dict()
    # Batch counters have no effect, and old files lack them.
    missing = [k for k in own if k not in state and not _is_counter(k)]
    unknown = [k for k in state if k not in own and not _is_counter(k)]
    if missing:
        raise BackboneUnavailable(
            f"{path} lacks {len(missing)} of the {len(own)} tensors of {spec.model} "
            f"({_few(missing)})" + (f"; it has {_few(unknown)} instead" if unknown else ""),
            "give the entry a key map (keys:)",
        )
    if unknown:
        raise BackboneUnavailable(
            f"{path} has {len(unknown)} tensors for which {spec.model} has no place "
            f"({_few(unknown)})",
            "take the architecture that fits, or leave them out (keys: [{pattern: …}])",
        )
    for key, value in own.items():
        if key in state and state[key].shape != value.shape:
            raise BackboneUnavailable(
                f"{path}: {key} has shape {tuple(state[key].shape)}, {spec.model} needs "
                f"{tuple(value.shape)}"
            )
    network.load_state_dict({**own, **{k: state[k] for k in own if k in state}})


def _is_counter(key: str) -> bool:
    return key.endswith("num_batches_tracked")


def _few(keys: Sequence[str]) -> str:
    return ", ".join(keys[:3]) + (", …" if len(keys) > 3 else "")
