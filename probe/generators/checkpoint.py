"""A generator read from a file, and how to build its network from the file's contents."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from probe.errors import CheckpointError, UsageError, shown
from probe.generators.base import Generator
from probe.generators.files.families import FAMILIES
from probe.generators.networks.layers import ACTIVATIONS

# Limits on what a file may make us allocate, far above the largest published networks.
BOUNDS = {
    "z_dim": (1, 16384),
    "c_dim": (0, 100_000),
    "w_dim": (1, 16384),
    "img_resolution": (4, 4096),
    "channel_base": (16, 2**20),
    "channel_max": (1, 16384),
    "num_layers": (1, 64),
    "embed_features": (1, 16384),
    "layer_features": (1, 16384),
    "ngf": (1, 1024),
    "NoiseDimension": (1, 16384),
    "ConditionDimension": (0, 100_000),
    "ConditionEmbeddingDimension": (0, 16384),
    "ExpansionFactor": (1, 64),
    "KernelSize": (1, 15),
    "num_critical": (0, 64),
    "margin_size": (0, 256),
    "conv_kernel": (1, 15),
    "filter_size": (1, 64),
    "lrelu_upsampling": (1, 8),
}


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e6


def _is_positive(value: Any) -> bool:
    return _is_number(value) and value > 0


def _are_numbers(value: Any) -> bool:
    return isinstance(value, list | tuple) and 0 < len(value) <= 64 and all(map(_is_number, value))


def _are_counts(value: Any) -> bool:
    return _are_numbers(value) and all(type(v) is int and 0 < v <= 65536 for v in value)


# Other arguments. Those that affect no tensor's shape would fail only when the network is used.
ARGUMENTS: Mapping[str, Callable[[Any], bool]] = {
    "activation": lambda v: isinstance(v, str) and v in ACTIVATIONS,
    "conv_clamp": lambda v: v is None or _is_positive(v),
    "lr_multiplier": _is_positive,
    "w_avg_beta": lambda v: v is None or _is_number(v),
    "use_noise": lambda v: isinstance(v, bool),
    "track_average": lambda v: v is True,  # truncation needs the average
    "img_channels": lambda v: type(v) is int and v in (1, 3, 4),
    # An asymmetric filter would be applied the other way round.
    "resample_filter": lambda v: _are_numbers(v) and sum(v) != 0 and list(v) == list(v)[::-1],
    "ResamplingFilter": lambda v: _are_numbers(v) and sum(v) != 0,
    "WidthPerStage": _are_counts,
    "CardinalityPerStage": _are_counts,
    "BlocksPerStage": lambda v: _are_numbers(v) and all(type(n) is int and n >= 0 for n in v),
    "first_cutoff": _is_positive,
    "first_stopband": _is_positive,
    "last_stopband_rel": _is_positive,
    "output_scale": _is_number,
    "magnitude_ema_beta": _is_number,
    "use_radial_filters": lambda v: isinstance(v, bool),
    "cond": lambda v: v in (False, True),
    "lite": lambda v: v in (False, True),
}

# What code raises on arguments and tensors it was not written for.
MISFITS = (
    TypeError, ValueError, ArithmeticError, RuntimeError, LookupError, AttributeError, UsageError
)  # fmt: skip


@dataclass(frozen=True)
class Checkpoint:
    """A generator and its origin.

    Attributes:
        generator: eval mode, float32, no gradients, on the CPU.
        architecture: a name in `FAMILIES` or in `probe.generators.files.programs.TITLES`.
        digest: SHA-256 of the file.
        init: the constructor's arguments.
        place: the keys that lead to the generator in the file, "" for the file as a whole.
        kimg: images seen in training, in thousands, if the file says so.
        globals: every global the file's pickle refers to; empty for safetensors.
        ignored: what else the file holds.
    """

    generator: Generator
    architecture: str
    digest: str
    init: dict[str, Any]
    place: str = ""
    kimg: float | None = None
    globals: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)


@contextmanager
def misfits_refused() -> Iterator[None]:
    """Turn errors caused by a file's arguments and tensors into a message.

    Raises:
        CheckpointError: if the body raises one.
    """
    try:
        yield
    except MISFITS as error:
        what = str(error).partition("\n")[0]  # torch adds lines for developers
        what = what.removesuffix(".")
        raise CheckpointError(f"its generator cannot be built: {what}") from error


def build_network(
    architecture: str, init: Mapping[str, Any], state: Mapping[str, torch.Tensor]
) -> Any:
    """Build the network a file describes and load its tensors, all of them and no others.

    Shapes are compared before any memory is allocated.

    Args:
        architecture: a name in `FAMILIES`.
        init: the constructor's arguments.
        state: the file's tensors.

    Raises:
        CheckpointError: if arguments are unknown or out of bounds, or tensors are missing, unknown,
            misshapen or not finite.
    """
    check_arguments(init)
    family = FAMILIES[architecture]
    with misfits_refused():
        state = family.convert(state)
        with torch.device("meta"):
            network: Any = family.network(**init)
    wanted = {name: tuple(t.shape) for name, t in network.state_dict().items()}
    missing, unknown = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    if missing or unknown:
        name, kind = (missing[0], "lacks") if missing else (unknown[0], "has an unknown")
        raise CheckpointError(
            f"its generator {kind} tensor '{name}' ({len(missing)} missing, {len(unknown)} unknown)"
        )
    for name, tensor in state.items():
        if tuple(tensor.shape) != wanted[name]:
            raise CheckpointError(
                f"its tensor '{name}' has shape {tuple(tensor.shape)} where {wanted[name]} is "
                "expected"
            )
        if tensor.is_complex():
            raise CheckpointError(f"its tensor '{name}' holds complex numbers")
        if not tensor.isfinite().all():
            raise CheckpointError(f"its tensor '{name}' holds NaN or infinite values")
    network.load_state_dict({n: t.float().contiguous() for n, t in state.items()}, assign=True)
    return network.eval().requires_grad_(False)


def check_arguments(init: Mapping[str, Any]) -> None:
    """Refuse arguments that would need excessive memory, or with which no network could run.

    Raises:
        CheckpointError: names the argument.
    """
    for group in (init, init.get("mapping_kwargs") or {}, init.get("synthesis_kwargs") or {}):
        if not isinstance(group, Mapping):
            raise CheckpointError("its constructor arguments are malformed")
        for name, value in group.items():
            if name in BOUNDS and value is not None:
                low, high = BOUNDS[name]
                right = type(value) is int and low <= value <= high
                problem = f"; {low} to {high} is expected"
            elif name in ARGUMENTS:
                right, problem = ARGUMENTS[name](value), ", which is not valid"
            else:
                continue  # building the network refuses unknown names
            if not right:
                raise CheckpointError(f"its generator has {name} = {shown(value)}{problem}")
