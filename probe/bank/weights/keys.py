"""Key maps: from the tensor names in a weight file to a network's parameter names."""

import re
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from probe.bank.spec import Rename
from probe.bank.weights.rename import TooCostly, rename
from probe.errors import BackboneUnavailable
from probe.registry import lookup

StateDict = dict[str, torch.Tensor]
PARALLEL = "module."


def efficientnet_lite(state: StateDict, network: nn.Module) -> StateDict:
    """Map efficientnet_lite_pytorch's names to timm's `tf_efficientnet_lite*`.

    Its blocks are numbered consecutively, timm's per stage; blocks without expansion have fewer
    layers. Unknown names stay unchanged.
    """
    stages = network.get_submodule("blocks").children()
    places = [(s, i) for s, stage in enumerate(stages) for i, _ in enumerate(stage.children())]
    top = {
        "_conv_stem": "conv_stem",
        "_bn0": "bn1",
        "_conv_head": "conv_head",
        "_bn1": "bn2",
        "_fc": "classifier",
    }
    expanded = {
        "_expand_conv": "conv_pw",
        "_bn0": "bn1",
        "_depthwise_conv": "conv_dw",
        "_bn1": "bn2",
        "_project_conv": "conv_pwl",
        "_bn2": "bn3",
    }
    plain = {
        "_depthwise_conv": "conv_dw",
        "_bn1": "bn1",
        "_project_conv": "conv_pw",
        "_bn2": "bn2",
    }
    mapped = {}
    for key, value in state.items():
        layer, _, rest = key.partition(".")
        match = re.fullmatch(r"_blocks\.(\d+)\.([^.]+)\.(.+)", key)
        if match and int(match[1]) < len(places):
            stage, i = places[int(match[1])]
            names = expanded if f"_blocks.{match[1]}._expand_conv.weight" in state else plain
            key = f"blocks.{stage}.{i}.{names.get(match[2], match[2])}.{match[3]}"
        elif layer in top:
            key = f"{top[layer]}.{rest}"
        mapped[key] = value
    return mapped


KEY_MAPS: Mapping[str, Callable[[StateDict, nn.Module], StateDict]] = {
    "efficientnet-lite": efficientnet_lite,
}


def map_keys(state: StateDict, keys: str | Sequence[Rename], network: nn.Module) -> StateDict:
    """Apply an entry's key map to a file's tensors.

    Without a key map, names lose the "module." prefix that DataParallel adds to all of them.

    Raises:
        UsageError: if the map is unknown.
        BackboneUnavailable: if its patterns take too long.
    """
    if isinstance(keys, str):
        return lookup(KEY_MAPS, keys, "key map")(state, network)
    if not keys:
        return _without_parallel(state)
    try:
        names = rename([str(name) for name in state], [(step.pattern, step.to) for step in keys])
    except TooCostly as error:
        raise BackboneUnavailable(
            "its key map takes too long, too much memory or makes endless names",
            "write patterns without a repeat inside a repeat (keys:)",
        ) from error
    return {
        name: tensor for name, tensor in zip(names, state.values(), strict=True) if name is not None
    }


def _without_parallel(state: StateDict) -> StateDict:
    while state and all(str(name).startswith(PARALLEL) for name in state):
        state = {name.removeprefix(PARALLEL): tensor for name, tensor in state.items()}
    return state
