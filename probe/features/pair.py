"""The features of two sets of images, reals and fakes, in every backbone of a bank.

A ranking and a measurement share which images are used, their order and their keys, so each reuses
what the other has computed.
"""

from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass, field
from typing import NoReturn, overload

import numpy as np

from probe.bank.fingerprint import changed
from probe.bank.layers import networks
from probe.bank.lock import first_use_notes, recorded
from probe.bank.spec import BackboneSpec
from probe.context import Context
from probe.errors import BackboneUnavailable, ImagesError
from probe.events import ExtractionStarted
from probe.features.extract import FINGERPRINT, Extractor, Failure
from probe.features.lent import ReferenceSource, borrow, borrowed_remarks, refusals
from probe.features.space import open_spaces
from probe.features.store import FeatureSpace
from probe.images.base import Broken, ImageSource
from probe.images.decode import describe_broken
from probe.missing import missing_summary
from probe.streams import numpy_stream

KINDS = ("real", "fake")


@dataclass(frozen=True)
class PairFeatures:
    """The features of two sets of images; mappings by kind have "real" and "fake".

    Attributes:
        spaces: backbone name → its feature space, for backbones that have all features. If it is
            empty, the images may not have been examined.
        failures: backbone name → why it has none.
        indices: kind → the images in use, in order.
        keys: kind → their content keys.
        broken: the skipped images.
        remarks: sentences on weights that were not known before and networks that have changed.
    """

    spaces: dict[str, FeatureSpace]
    failures: dict[str, Failure]
    indices: dict[str, list[int]]
    keys: dict[str, list[str]]
    broken: list[Broken]
    remarks: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which images of two sets are wanted; mappings by kind have "real" and "fake".

    Attributes:
        orders: kind → indices in order of use; see `draw_orders`.
        counts: kind → how many.
        least: how many of each kind are needed.
        strict: raise for the first broken image instead of skipping it.
    """

    orders: Mapping[str, Sequence[int]]
    counts: Mapping[str, int]
    least: int
    strict: bool = False


class Indices(Sequence[int]):
    """Indices in order of use, in an array: as a list, ten million would take 400 MB."""

    def __init__(self, indices: np.ndarray) -> None:
        self._indices = indices

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._indices)

    @overload
    def __getitem__(self, at: int) -> int: ...
    @overload
    def __getitem__(self, at: slice) -> "Indices": ...
    def __getitem__(self, at: int | slice) -> "int | Indices":
        """Return an index, or a part without copying it."""
        return Indices(self._indices[at]) if isinstance(at, slice) else int(self._indices[at])


def draw_orders(real: Sized, fake: Sized, seed: int) -> dict[str, Indices]:
    """Return each kind's order of use, from a seeded shuffle."""
    return {
        kind: Indices(numpy_stream(seed, "subset", kind).permutation(len(source)))
        for kind, source in zip(KINDS, (real, fake), strict=True)
    }


def extract_pair(
    real: ImageSource,
    fake: ImageSource,
    specs: Sequence[BackboneSpec],
    wanted: Wanted,
    ctx: Context,
    *,
    resolution: int,
) -> PairFeatures | None:
    """Ensure that reals and fakes have features in every backbone that can run here.

    Equal counts stay equal: if an image is broken and cannot be replaced, one of the other set is
    dropped too. All processes extract.

    Args:
        real: the real images.
        fake: the generated images.
        specs: the backbones.
        wanted: which images.
        ctx: see `Context`.
        resolution: common side of all images in pixels.

    Returns:
        None on every process but the first.

    Raises:
        ImagesError: if a kind has fewer usable images than needed.
        BrokenImageError: if an image is broken, under `wanted.strict`.
    """
    by_name = {spec.name: spec for spec in specs}
    spaces, failures = open_spaces(specs, ctx, resolution=resolution)
    if isinstance(real, ReferenceSource):
        real.require_resolution(resolution)
        spaces, refused = borrow(real, spaces)
        failures |= refused
    if not spaces:
        return PairFeatures({}, failures, {}, {}, [])
    together = networks(spec for name, spec in by_name.items() if name in spaces)
    extractor = Extractor(spaces, together, ctx, resolution=resolution)
    sources = dict(zip(KINDS, (real, fake), strict=True))
    counts: dict[str, int] = dict(wanted.counts)

    def begin(kind: str) -> None:
        names, total = tuple(extractor.spaces), sum(counts.values())
        ctx.on_event(ExtractionStarted(kind, counts[kind], total, names, extractor.speeds()))

    if ctx.processes.size > 1:
        for kind, source in sources.items():
            if not isinstance(source, ReferenceSource):
                begin(kind)
                extractor.share_out(source, wanted.orders[kind][: wanted.counts[kind]])
    if not ctx.processes.is_first:
        return None
    equal = wanted.counts["real"] == wanted.counts["fake"]
    extractions = {}
    for kind, source in sources.items():
        if isinstance(source, ReferenceSource):
            found = source.extraction(wanted.orders[kind][: counts[kind]])
        else:
            begin(kind)
            order = wanted.orders[kind]
            found = extractor.extract(source, order, counts[kind], strict=wanted.strict)
        extractions[kind] = found
        failures.update(found.failures)
        if not extractor.spaces:
            return PairFeatures({}, failures, {}, {}, found.broken)
        if len(found.indices) < wanted.least:
            refuse_few(source.name, len(found.indices), wanted.least, found.broken)
        counts[kind] = len(found.indices)
        if equal:
            counts = dict.fromkeys(KINDS, counts[kind])
    for name, failure in refusals(extractor.spaces).items():
        failures[name] = failure
        del extractor.spaces[name]
    return PairFeatures(
        spaces=extractor.spaces,
        failures=failures,
        indices={kind: found.indices[: counts[kind]] for kind, found in extractions.items()},
        keys={kind: found.keys[: counts[kind]] for kind, found in extractions.items()},
        broken=[b for found in extractions.values() for b in found.broken],
        remarks=remarks_on({name: by_name[name] for name in extractor.spaces}, extractor.spaces),
    )


def remarks_on(specs: Mapping[str, BackboneSpec], spaces: Mapping[str, FeatureSpace]) -> list[str]:
    """Record what the lock file does not know yet, and return what a reader should know."""
    remarks = first_use_notes(specs)
    for name, spec in specs.items():
        numbers = spaces[name].facts().get(FINGERPRINT)
        if numbers is None:
            continue
        if spec.fingerprint is None:
            recorded(spec, fingerprint=list(numbers))
        elif difference := changed(spec.fingerprint, numbers):
            remarks.append(f"Warning: {name}: {difference}.")
    return [*remarks, *borrowed_remarks(spaces)]


def refuse_few(source: str, usable: int, least: int, broken: Sequence[Broken] = ()) -> NoReturn:
    """Raise the error for a source with too few images.

    Raises:
        ImagesError: always.
    """
    skipped = f" {describe_broken(broken)}" if broken else ""
    images = "image is" if usable == 1 else "images are"
    raise ImagesError(
        f"{source}: {usable} usable {images} too few; at least {least} of each class are "
        f"needed.{skipped}"
    )


def no_backbone(
    failures: Mapping[str, Failure], what: str = "No backbone of the bank can run here"
) -> NoReturn:
    """Raise the error for a bank without any backbone that can run here.

    Raises:
        BackboneUnavailable: always.
    """
    reasons = "\n".join(f"  {line}" for line in missing_summary(failures))
    raise BackboneUnavailable(f"{what}:\n{reasons}")
