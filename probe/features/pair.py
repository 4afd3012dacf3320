"""The features of two sets of images, reals and fakes, in every backbone of a bank.

What a ranking and a measurement share: which images are used, in which order, under which keys. So
what one of them has computed is found by the other.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import torch

from probe.bank.load import load_backbone
from probe.bank.spec import BackboneSpec
from probe.errors import BackboneUnavailable, ImagesError
from probe.features.extract import BackbonePool, Failure, extract, share_out
from probe.features.space import open_space
from probe.features.store import FeatureSpace, FeatureStore
from probe.files import digest_bytes
from probe.images.base import Broken, ImageSource
from probe.images.decode import describe_broken
from probe.runtime import World, numpy_stream

KINDS = ("real", "fake")

Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class PairFeatures:
    """What was found for two sets of images; mappings by kind have "real" and "fake".

    Attributes:
        spaces: backbone name → where its features are, of those that have all of them. Where there
            are none, the images may not have been looked at.
        failures: backbone name → why it has none.
        indices: kind → the images that are used, in their order.
        keys: kind → their content keys.
        broken: the images that were skipped.
    """

    spaces: dict[str, FeatureSpace]
    failures: dict[str, Failure]
    indices: dict[str, list[int]]
    keys: dict[str, list[str]]
    broken: list[Broken]


def digest_keys(keys: Sequence[str]) -> str:
    """Return the digest of a list of content keys, in order."""
    return digest_bytes("\n".join(keys).encode())


def draw_orders(real: ImageSource, fake: ImageSource, seed: int) -> dict[str, list[int]]:
    """Return the order in which the images of each kind are used, from a seeded shuffle."""
    return {
        kind: numpy_stream(seed, "subset", kind).permutation(len(source)).tolist()
        for kind, source in zip(KINDS, (real, fake), strict=True)
    }


def extract_pair(
    real: ImageSource,
    fake: ImageSource,
    specs: Sequence[BackboneSpec],
    *,
    orders: Mapping[str, Sequence[int]],
    counts: Mapping[str, int],
    least: int,
    resolution: int,
    precision: str,
    store: FeatureStore,
    device: torch.device,
    offline: bool,
    calibration: ImageSource,
    report: Report,
    strict: bool = False,
    world: World = World(),
) -> PairFeatures | None:
    """Make sure that reals and fakes have features in every backbone that can run here.

    Where both counts are equal they stay so: images that are broken in one set and cannot be made
    up for are left out of the other as well.

    Args:
        real: the real images.
        fake: the generated images.
        specs: the backbones.
        orders: see `draw_orders`.
        counts: how many images of each kind are wanted.
        least: how many of each kind are needed.
        resolution: side in pixels at which all images meet.
        precision: "auto", "fp32" or "bf16".
        store: where features are kept.
        device: where to compute.
        offline: never download weights.
        calibration: unlabelled images for networks with random weights.
        report: is given progress records.
        strict: raise for the first broken image instead of skipping it.
        world: the processes; all extract, and the first returns.

    Returns:
        None on every process but the first.

    Raises:
        ImagesError: fewer than `least` usable images of a kind.
        BrokenImageError: an image is broken, under `strict`.
    """
    failures: dict[str, Failure] = {}
    by_name = {spec.name: spec for spec in specs}
    spaces = {}
    for name, spec in by_name.items():
        try:
            spaces[name] = open_space(
                spec,
                store,
                resolution=resolution,
                precision=precision,
                device=device,
                offline=offline,
                calibration=calibration,
            )
        except BackboneUnavailable as error:
            failures[name] = Failure("unavailable", error.reason, error.remedy)
    if not spaces:
        return PairFeatures({}, failures, {}, {}, [])
    pool = BackbonePool(
        lambda name: load_backbone(by_name[name], offline=offline, calibration=calibration), device
    )
    sources = dict(zip(KINDS, (real, fake), strict=True))
    run: dict[str, Any] = {"resolution": resolution, "device": device}
    for kind, source in sources.items():
        share_out(world, source, orders[kind][: counts[kind]], spaces, pool, **run)
    if not world.is_first:
        return None
    equal, wanted = counts["real"] == counts["fake"], dict(counts)
    extractions = {}
    for kind, source in sources.items():
        report(
            {
                "event": "start",
                "class": kind,
                "images": wanted[kind],
                "total": sum(wanted.values()),
                "backbones": list(spaces),
            }
        )
        found = extract(
            source,
            orders[kind],
            wanted[kind],
            spaces,
            pool,
            **run,
            report=report,
            strict=strict,
        )
        extractions[kind] = found
        failures.update(found.failures)
        spaces = {name: space for name, space in spaces.items() if name not in failures}
        if not spaces:
            return PairFeatures({}, failures, {}, {}, found.broken)
        if len(found.indices) < least:
            refuse(source, len(found.indices), least, found.broken)
        wanted[kind] = len(found.indices)
        if equal:
            wanted = dict.fromkeys(KINDS, wanted[kind])
    return PairFeatures(
        spaces=spaces,
        failures=failures,
        indices={kind: found.indices[: wanted[kind]] for kind, found in extractions.items()},
        keys={kind: found.keys[: wanted[kind]] for kind, found in extractions.items()},
        broken=[b for found in extractions.values() for b in found.broken],
    )


def refuse(source: ImageSource, usable: int, least: int, broken: Sequence[Broken] = ()) -> NoReturn:
    """Say that a source has too few images.

    Raises:
        ImagesError: always.
    """
    skipped = f" {describe_broken(broken)}" if broken else ""
    raise ImagesError(
        f"{source.name}: {usable} usable images are too few; at least {least} of each class are "
        f"needed.{skipped}"
    )


def no_backbone(
    failures: Mapping[str, Failure], what: str = "No backbone of the bank can run here"
) -> NoReturn:
    """Say why no backbone can run here.

    Raises:
        BackboneUnavailable: always.
    """
    reasons = "\n".join(
        f"  {name}: {f.reason}{f'; {f.remedy}' if f.remedy else ''}" for name, f in failures.items()
    )
    raise BackboneUnavailable(f"{what}:\n{reasons}")
