"""A full measurement: takes two image sources and a bank, returns distances per backbone.

Features come from the same store as a ranking's: after `probe rank` of the same images, nothing is
extracted.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from probe.bank.fid import FID, fid_spec, how_to_get
from probe.bank.spec import BackboneSpec
from probe.bank.weights.find import verified_weights
from probe.context import Context
from probe.errors import BackboneUnavailable, ImagesError
from probe.events import MetricsStarted
from probe.features.copies import find_copies
from probe.features.extract import Failure
from probe.features.lent import Lent, ReferenceSource
from probe.features.pair import (
    Wanted,
    draw_orders,
    extract_pair,
    no_backbone,
    refuse_few,
)
from probe.features.space import library_versions
from probe.features.store import FeatureSpace, FeatureStore, digest_keys
from probe.images.base import Broken, ImageSource
from probe.images.decode import describe_broken
from probe.metrics import SAMPLED, all_metrics
from probe.metrics.config import LEAST_IMAGES, MeasureOptions
from probe.metrics.kernel import MOST
from probe.metrics.record import Distances, Measurement, value_names
from probe.metrics.tables import FeatureSet

FORMULAS = 3  # increase when any metric changes
AMPLE = 2  # images per dimension; with fewer, a note warns of the Fréchet distance's bias
PUBLISHED = 50_000  # generated images used for FIDs in papers


def measure(
    real: ImageSource,
    fake: ImageSource,
    specs: Sequence[BackboneSpec],
    options: MeasureOptions,
    ctx: Context,
    *,
    trained_against: Collection[str] | None = None,
    config: Mapping[str, Any] | None = None,
) -> Measurement:
    """Measure how far generated images are from real ones.

    Args:
        real: the real images.
        fake: the generated images.
        specs: the backbones whose features are used.
        options: see `MeasureOptions`.
        ctx: its precision must match `options`; one process.
        trained_against: names of the backbones used in the generator's discriminators, None if
            unknown.
        config: plain values to record along with the options.

    Raises:
        ImagesError: too few usable or distinct images of a class, or images that change during
            the measurement.
        BrokenImageError: an image is broken, under `strict`.
        BackboneUnavailable: no backbone can run here.
    """
    resolution = options.resolution or fake.resolution
    wanted = Wanted(
        orders=draw_orders(real, fake, options.seed),
        counts=_counts(real, fake, options),
        least=LEAST_IMAGES,
        strict=options.strict,
    )
    passes = [(list(specs), ctx)]
    failures: dict[str, Failure] = {}
    if options.fid:
        inception = fid_spec()
        try:
            verified_weights(inception, offline=ctx.offline)
            passes.append(([inception], ctx.in_precision("fp32")))
        except BackboneUnavailable as error:
            failures[inception.name] = Failure(error.status, error.reason, how_to_get(inception))
        specs = [*specs, inception]
    spaces, measured, remarks = {}, None, []
    for some, within in passes:
        found = extract_pair(real, fake, some, wanted, within, resolution=resolution)
        assert found is not None  # since there is one process
        failures |= found.failures
        spaces |= found.spaces
        remarks += found.remarks
        if measured is not None and found.spaces and found.keys != measured.keys:
            raise ImagesError(
                f"{real.name} or {fake.name} changed while it was read. Repeat the command when "
                "nothing writes there."
            )
        measured = found if found.spaces else measured
    if measured is None:
        no_backbone(failures)

    keys, rows = measured.keys, []
    copies = find_copies(real, fake, measured)
    copies.require(LEAST_IMAGES, (real.name, fake.name), apart=False)
    for spec in specs:
        described: dict[str, Any] = {"name": spec.name, "role": spec.role, "license": spec.license}
        if spec.name in failures:
            rows.append(Distances(**described, **asdict(failures[spec.name])))
            continue
        ctx.on_event(MetricsStarted(spec.name))
        rows.append(
            Distances(
                **described,
                values=_measure(spaces[spec.name], keys, options.seed, ctx.store),
                trained_against=None if trained_against is None else spec.name in trained_against,
                dim=spaces[spec.name].facts().get("dim"),
                computed_in=spaces[spec.name].record["precision"],
            )
        )
    n_real, n_fake = len(keys["real"]), len(keys["fake"])
    return Measurement(
        seed=options.seed,
        n_real=n_real,
        n_fake=n_fake,
        resolution=resolution,
        rows=tuple(rows),
        notes=[
            *real.notes,
            *fake.notes,
            *(f"Warning: {remark}" for remark in copies.remarks()),
            *remarks,
            *_notes(rows, real, n_real, n_fake, measured.broken),
        ],
        config={
            **(config or {}),
            "options": asdict(options),
            "device": str(ctx.device),
            "real": {**real.identity(), "images_digest": digest_keys(keys["real"])},
            "fake": {**fake.identity(), "images_digest": digest_keys(keys["fake"])},
            "versions": library_versions(spaces.values()),
            "weights": {name: space.record["weights"] for name, space in spaces.items()},
        },
    )


def _counts(real: ImageSource, fake: ImageSource, options: MeasureOptions) -> dict[str, int]:
    """Return how many images of each kind to use.

    Raises:
        ImagesError: too few.
    """
    counts = {"real": min(options.num, len(real)), "fake": min(options.num, len(fake))}
    if options.num_gen is None:
        counts = dict.fromkeys(counts, min(counts.values()))
    else:
        counts["fake"] = min(options.num_gen, len(fake))
    for source in (real, fake):
        if len(source) < LEAST_IMAGES:
            refuse_few(source.name, len(source), LEAST_IMAGES)
    return counts


def _measure(
    space: FeatureSpace, keys: Mapping[str, list[str]], seed: int, store: FeatureStore
) -> dict[str, Any]:
    """Return all metrics of one backbone, from the store if they are there."""
    record = {
        "space": space.key,
        "real": digest_keys(keys["real"]),
        "fake": digest_keys(keys["fake"]),
        "seed": seed,
        "formulas": FORMULAS,
        "values": value_names(),
    }
    arrays = store.recall(record)
    if arrays is None:
        known = space.moments if isinstance(space, Lent) else None
        real, fake = FeatureSet(space, keys["real"], known), FeatureSet(space, keys["fake"])
        found: dict[str, float] = {}
        for metric in all_metrics():
            found |= metric.measure(real, fake, seed)
        arrays = {name: np.array([value]) for name, value in found.items()}
        store.remember(record, arrays)
    numbers = {name: float(arrays[name][0]) for name in value_names()}
    return {name: value if math.isfinite(value) else None for name, value in numbers.items()}


def _notes(
    rows: Sequence[Distances], real: ImageSource, n_real: int, n_fake: int, broken: Sequence[Broken]
) -> list[str]:
    """Return the sentences the reader must see."""
    notes, compared = [describe_broken(broken)] if broken else [], n_real
    if isinstance(real, ReferenceSource):
        compared = real.images
        notes.append(
            f"The Fréchet distance compares with the moments of all {compared} images that "
            f"{real.name} was made of, the other values with {n_real} of them."
        )
    least = min(n_real, n_fake)
    width = max(row.dim or 0 for row in rows)
    if least < AMPLE * width:
        notes.append(
            f"{least} images are few for {width} dimensions: the Fréchet distance is biased "
            "upwards; only compare it at equal numbers. The kernel distance has no such bias."
        )
    if n_real != n_fake:
        notes.append(
            "Precision, recall, density and coverage depend on the numbers of images: only compare "
            "them at equal numbers."
        )
    if least > MOST:
        notes.append(f"The kernel distance uses {MOST} random images of each class.")
    if max(n_real, n_fake) > SAMPLED:
        notes.append(
            f"Precision, recall, density and coverage use {SAMPLED} random images of a class if it "
            "has more; the Fréchet distance uses all."
        )
    if (
        any(row.name == FID and row.values["frechet"] is not None for row in rows)
        and n_fake != PUBLISHED
    ):
        notes.append(
            f"Published FIDs compare {PUBLISHED} generated images with all reals; {FID} here "
            f"compares {n_fake} with {compared} (--num, --num-gen)."
        )
    flattered = [row.name for row in rows if row.trained_against]
    if flattered:
        notes.append(
            f"Warning: this generator was trained against a discriminator on "
            f"{', '.join(flattered)}; distances there flatter it. Judge it in another backbone."
        )
    return notes
