"""What a state of `Discriminators` holds besides its heads, and what a state is checked for.

The rest of the state is JSON in a tensor of bytes, so that a state dict holds nothing but tensors:
safetensors and `torch.load(weights_only=True)` take it.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, FiniteFloat

from probe.errors import ProbeError, printable, shown
from probe.stored import Text, parse_record

VERSION = 1
EXTRA = "_extra_state"  # PyTorch's key for it
LARGEST = 2**20  # bytes of it; a member takes 300
PASS = "Pass what their state_dict() returned."

Count = Annotated[int, Field(ge=0)]
Probability = Annotated[FiniteFloat, Field(ge=0, le=1)]


@dataclass(frozen=True)
class SavedAdaptive:
    """What `AdaptiveAugment.state_dict` returns."""

    p: Probability
    signs: FiniteFloat
    count: Annotated[FiniteFloat, Field(ge=0)]


@dataclass(frozen=True)
class SavedMember:
    """One discriminator.

    Attributes:
        name: of its backbone.
        digest: of what decides the backbone's features, "" if unknown.
        norm: of its head.
        weight: of its loss.
        target, generator_target: probabilities of "real".
        adaptive: the p of its augmentation.
    """

    name: Text
    digest: Text
    norm: Literal["equalised", "spectral"]
    weight: FiniteFloat
    target: Probability
    generator_target: Probability
    adaptive: SavedAdaptive


@dataclass(frozen=True)
class Saved:
    """An ensemble.

    Attributes:
        num_classes: of the heads, 0 for none.
        counters: calls, calls of the discriminators' loss, images since p last moved.
        members: in order.
        version: of this record.
    """

    num_classes: Count
    counters: tuple[Count, Count, Count]
    members: tuple[SavedMember, ...]
    version: int = VERSION


def pack_record(saved: Saved) -> torch.Tensor:
    """Return a record as bytes, uint8 (n,)."""
    return torch.tensor(list(json.dumps(asdict(saved)).encode()), dtype=torch.uint8)


def unpack_record(state: Any) -> Saved:
    """Return the record in bytes that `pack_record` made.

    Raises:
        ProbeError: they are something else, damaged, or of another version.
    """
    if not _is_plain(state) or state.dtype != torch.uint8 or state.ndim != 1:
        raise ProbeError(
            "This is not the state of probe.Discriminators: the part that names its backbones is "
            f"missing or damaged. {PASS}"
        )
    if len(state) > LARGEST:
        raise ProbeError(f"The state of the discriminators is damaged (too long). {PASS}")
    data = bytes(state.tolist())
    version = parse_record(data, dict[str, Any], "The state of the discriminators", PASS).get(
        "version"
    )
    if version != VERSION:
        raise ProbeError(
            f"The state of the discriminators has version {shown(version)}; version {VERSION} is "
            "expected. Use the version of probe that wrote it."
        )
    return parse_record(data, Saved, "The state of the discriminators", PASS)


def require_same(theirs: Saved, ours: Saved) -> None:
    """Refuse a state of other discriminators.

    Raises:
        ProbeError: names what differs.
    """
    names = [member.name for member in theirs.members]
    if names != [member.name for member in ours.members]:
        raise ProbeError(
            f"This state is of discriminators on {_list(names)}; these are on "
            f"{_list(member.name for member in ours.members)}. "
            f'Make them with Discriminators.from_names("{_short(", ".join(names))}") first.'
        )
    if theirs.num_classes != ours.num_classes:
        raise ProbeError(
            f"This state is of heads with {theirs.num_classes} classes; these have "
            f"{ours.num_classes}. Make them with num_classes={theirs.num_classes}."
        )
    for saved, own in zip(theirs.members, ours.members, strict=True):
        if saved.digest != own.digest:
            raise ProbeError(
                f"This state was trained on other weights, input or taps of {own.name} than "
                "those loaded here. Use the bank and the weight file it was trained with."
            )
        if saved.norm != own.norm:
            raise ProbeError(
                f'The state of {own.name} is of a head with norm="{saved.norm}". Use '
                "DiscriminatorOptions with that norm."
            )


def require_tensors(given: Mapping[str, Any], own: Mapping[str, torch.Tensor]) -> None:
    """Refuse tensors that are not those of the heads. None is read before all shapes are right.

    Args:
        given: name → tensor of a state.
        own: those of the heads that are to take it.

    Raises:
        ProbeError: names the first that is missing, superfluous, or unfit.
    """
    for mistake in _mistakes(given, own):
        raise ProbeError(f"This state does not fit the heads: {printable(mistake, 200)}. {PASS}")


def _mistakes(given: Mapping[str, Any], own: Mapping[str, torch.Tensor]) -> Iterator[str]:
    yield from (f"{name} is missing" for name in own if name not in given)
    yield from (f"{_short(str(name))} is not one of theirs" for name in given if name not in own)
    for name, tensor in own.items():
        found = given[name]
        if not _is_plain(found) or not found.is_floating_point():
            yield f"{name} is not a tensor of numbers"
        elif found.shape != tensor.shape:
            yield f"{name} has the shape {tuple(found.shape)} and not {tuple(tensor.shape)}"
    for name in own:
        if not given[name].isfinite().all():
            yield f"{name} holds NaN or infinite numbers"


def _is_plain(value: Any) -> bool:
    """Return whether a value is a tensor whose numbers are in memory."""
    return (
        isinstance(value, torch.Tensor)
        and value.layout == torch.strided
        and not value.is_meta
        and not value.is_quantized
    )


def _list(names: Iterable[str]) -> str:
    return _short(", ".join(names)) or "no backbone"


def _short(text: str) -> str:
    return printable(text, 80)
