"""A ranking from end to end: two image sources and a bank in, leaderboards out.

Knows image sources and specs, not generators: `probe rank` calls it with a generator's samples or
a folder, and training calls it in the middle of a run.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

import numpy as np
import torch

from probe.bank.spec import BackboneSpec
from probe.features.copies import find_copies
from probe.features.looks import count_look_alikes
from probe.features.pair import digest_keys, draw_orders, extract_pair, no_backbone, refuse
from probe.features.space import library_versions
from probe.features.store import FeatureSpace, FeatureStore
from probe.images.audit import audit, jpeg_quality_for
from probe.images.base import Broken, ImageSource
from probe.images.decode import describe_broken
from probe.images.jpeg import JpegMatched
from probe.memory import give_back_freed_memory, large_blocks_apart
from probe.probing.config import LEAST_IMAGES, RankOptions
from probe.probing.leaderboard import Leaderboard
from probe.probing.protocol import PROTOCOLS, ProbeResult
from probe.probing.standing import build_leaderboard
from probe.probing.units import images_of, strata
from probe.runtime import World, choose_precision, numpy_stream

AUDIT_IMAGES = 2000
SOLVER = 5  # raised whenever the probe's grid, tolerance, search or result changes

Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Ranking:
    """All that a ranking found.

    Attributes:
        leaderboards: protocol name → leaderboard, the leading protocol first.
        results: protocol name → backbone name → its probe's result.
        captions: names of the images that were scored, reals first, in the results' order.
        broken: the images that were skipped.
        keys: content keys of the images that were scored, in the same order.
        spaces: backbone name → the record of its feature space.
        indices: "real" and "fake" → which images of the source were scored, in the same order.
    """

    leaderboards: dict[str, Leaderboard]
    results: dict[str, dict[str, ProbeResult]]
    captions: list[str]
    broken: list[Broken]
    keys: list[str]
    spaces: dict[str, dict[str, Any]]
    indices: dict[str, list[int]]

    @property
    def leaderboard(self) -> Leaderboard:
        """The leading protocol's leaderboard."""
        return next(iter(self.leaderboards.values()))


def rank(
    real: ImageSource,
    fake: ImageSource,
    specs: Sequence[BackboneSpec],
    *,
    options: RankOptions,
    store: FeatureStore,
    device: torch.device,
    offline: bool,
    calibration: ImageSource,
    report: Report,
    config: Mapping[str, Any] | None = None,
    beside: Sequence[BackboneSpec] = (),
    world: World = World(),
) -> Ranking | None:
    """Rank backbones by how well a linear probe on their features tells reals from fakes.

    Args:
        real: the real images.
        fake: the generated images.
        specs: the backbones to rank, controls included.
        options: see `RankOptions`.
        store: where features and results are kept.
        device: where to compute.
        offline: never download weights.
        calibration: unlabelled images from outside both classes, on which randomly initialised
            controls get their BatchNorm statistics.
        report: is given progress records.
        config: plain values to keep in the record besides the options.
        beside: backbones whose features join each candidate's: what a candidate adds to them.
        world: the processes; features are extracted by all, the rest is done by the first.

    Returns:
        One leaderboard per protocol, the probes' results, and the images that were skipped. None
        on every process but the first.

    Raises:
        ImagesError: too few usable images of a class, or too few that are in that class alone.
        BrokenImageError: an image is broken, under `strict`.
        BackboneUnavailable: no backbone of the bank can run here.
    """
    precision = choose_precision(options.precision, device)
    resolution = options.resolution or fake.resolution
    orders = draw_orders(real, fake, options.seed)
    count = min(options.num, len(real), len(fake))
    if count < LEAST_IMAGES:
        refuse(real if len(real) <= len(fake) else fake, count, LEAST_IMAGES)

    sample = [orders[c][: min(count, AUDIT_IMAGES)] for c in ("real", "fake")]
    findings = audit(real, fake, *sample)
    plain = (real, fake)
    quality = None
    if options.match_jpeg:
        quality = jpeg_quality_for(real, fake, *sample)
        real, fake = JpegMatched(real, quality), JpegMatched(fake, quality)

    by_name = {spec.name: spec for spec in (*specs, *beside)}
    found = extract_pair(
        real,
        fake,
        list(by_name.values()),
        orders=orders,
        counts={"real": count, "fake": count},
        least=LEAST_IMAGES,
        resolution=resolution,
        precision=options.precision,
        store=store,
        device=device,
        offline=offline,
        calibration=calibration,
        report=report,
        strict=options.strict,
        world=world,
    )
    if found is None:
        return None
    give_back_freed_memory()
    if not found.spaces:
        no_backbone(found.failures)
    spaces, failures, keys, used = found.spaces, found.failures, found.keys, found.indices
    count, broken = len(keys["real"]), found.broken
    copies = find_copies(real, fake, found)
    if options.near_duplicates:
        copies = count_look_alikes(copies, plain, found, store, report)
    copies.require(LEAST_IMAGES, (real.name, fake.name), apart=True)
    notes = [f"Warning: {remark}" for remark in copies.remarks()]
    notes += _notes(options, count, real, fake, broken, quality)
    joined = [spaces[spec.name] for spec in beside if spec.name in spaces]
    if joined:
        names = ", ".join(spec.name for spec in beside if spec.name in spaces)
        notes.append(f"Each score is that of a joint probe on the backbone and {names}.")
    facts = {
        name: {**space.facts(), "precision": space.record["precision"]}
        for name, space in spaces.items()
    }
    leaderboards, results = {}, {}
    for protocol in options.protocols:
        scored = {}
        for name in [spec.name for spec in specs if spec.name in spaces]:
            report({"event": "probe", "backbone": name, "protocol": protocol})
            together = [spaces[name], *joined]
            scored[name] = _probe(
                together, keys["real"], keys["fake"], copies.groups, protocol, options.seed, store
            )
        null = _null(
            spaces, scored, by_name, keys["real"], copies.groups, protocol, options.seed, store
        )
        leaderboards[protocol] = build_leaderboard(
            specs,
            scored,
            failures={name: asdict(failure) for name, failure in failures.items()},
            facts=facts,
            null=null,
            protocol=protocol,
            seed=options.seed,
            k=options.k,
            resolution=resolution,
            audit=[asdict(finding) for finding in findings],
            notes=notes,
            config={
                **(config or {}),
                "options": asdict(options),
                "precision": precision,
                "device": str(device),
                "jpeg_quality": quality,
                "real": {**real.identity(), "images_digest": digest_keys(keys["real"])},
                "fake": {**fake.identity(), "images_digest": digest_keys(keys["fake"])},
                "versions": library_versions(spaces.values()),
                "beside": [spec.name for spec in beside],
                "weights": {name: space.record["weights"] for name, space in spaces.items()},
            },
        )
        results[protocol] = scored
    return Ranking(
        leaderboards,
        results,
        list(copies.names),
        broken,
        keys=[*keys["real"], *keys["fake"]],
        spaces={name: space.record for name, space in spaces.items()},
        indices=used,
    )


def _probe(
    spaces: Sequence[FeatureSpace],
    real: list[str],
    fake: list[str],
    groups: np.ndarray,
    protocol: str,
    seed: int,
    store: FeatureStore,
) -> ProbeResult:
    """Score features, those of several spaces side by side, or recall that very score.

    Args:
        spaces: where the features are.
        real: content keys.
        fake: content keys.
        groups: int (n,), reals first, the same for copies of one image.
        protocol: a name of `PROTOCOLS`.
        seed: of splits and folds.
        store: of results.
    """
    record = {
        "spaces": [space.key for space in spaces],
        "real": digest_keys(real),
        "fake": digest_keys(fake),
        "groups": groups.tolist(),
        "protocol": asdict(PROTOCOLS[protocol]),
        "solver": SOLVER,
        "seed": seed,
        "sklearn": metadata.version("scikit-learn"),
    }
    arrays = store.recall(record)
    if arrays is None:
        from probe.probing.evaluate import evaluate  # scikit-learn is slow to import

        with large_blocks_apart():
            x_real, x_fake = (_side_by_side(spaces, keys) for keys in (real, fake))
            result = evaluate(
                x_real, x_fake, protocol=PROTOCOLS[protocol], seed=seed, groups=groups
            )
        store.remember(record, result.to_arrays())
        return result
    return ProbeResult.from_arrays(arrays)


def _side_by_side(spaces: Sequence[FeatureSpace], keys: Sequence[str]) -> np.ndarray:
    """Return the rows of all keys, the columns of one space after those of another."""
    tables = [space.read(keys) for space in spaces]
    return tables[0] if len(tables) == 1 else np.concatenate(tables, axis=1)


def _null(
    spaces: Mapping[str, FeatureSpace],
    scored: Mapping[str, ProbeResult],
    specs: Mapping[str, BackboneSpec],
    real: list[str],
    groups: np.ndarray,
    protocol: str,
    seed: int,
    store: FeatureStore,
) -> tuple[str, ProbeResult] | None:
    """Probe reals against other reals in the best backbone's features; it must sit at chance."""
    unit, (units,) = strata(np.zeros(len(real)), groups[: len(real)])
    if len(units) < 2 * LEAST_IMAGES:
        return None
    candidates = [n for n in scored if specs[n].role != "control"] or list(scored)
    criterion = PROTOCOLS[protocol].criterion
    best = max(candidates, key=lambda name: getattr(scored[name], criterion))
    order = numpy_stream(seed, "null").permutation(units)
    half = len(units) // 2
    halves = [images_of(part, unit) for part in (order[:half], order[half : 2 * half])]
    first, second = ([real[i] for i in half] for half in halves)
    return best, _probe(
        [spaces[best]], first, second, groups[np.concatenate(halves)], protocol, seed, store
    )


def _notes(
    options: RankOptions,
    count: int,
    real: ImageSource,
    fake: ImageSource,
    broken: Sequence[Broken],
    quality: int | None,
) -> list[str]:
    """Return what a reader of the leaderboard must know about the images, as sentences."""
    notes = []
    if count < options.num:
        least = min((real, fake), key=len)
        notes.append(
            f"{count} images of each class were used: {least.name} has no more "
            f"({options.num} asked for)."
        )
    notes += [*real.notes, *fake.notes]
    if broken:
        notes.append(describe_broken(broken))
    if quality is not None:
        notes.append(f"Reals and fakes were both compressed as JPEG, quality {quality}.")
    return notes
