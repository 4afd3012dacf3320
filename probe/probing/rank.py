"""A ranking from end to end: two image sources and a bank in, leaderboards out.

Knows image sources and specs, not generators: `probe rank` calls it with a generator's samples or
a folder, and training calls it in the middle of a run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from probe.accel.memory import give_back_freed_memory
from probe.bank.spec import BackboneSpec
from probe.context import Context
from probe.devices import choose_precision
from probe.errors import UsageError
from probe.features.copies import Copies, find_copies
from probe.features.extract import FINGERPRINT
from probe.features.lent import ReferenceSource
from probe.features.looks import count_look_alikes
from probe.features.pair import (
    PairFeatures,
    Wanted,
    draw_orders,
    extract_pair,
    no_backbone,
    refuse_few,
)
from probe.features.space import library_versions
from probe.features.store import digest_keys
from probe.images.audit import Shortcut, audit, jpeg_quality_for
from probe.images.base import Broken, ImageSource
from probe.images.decode import describe_broken
from probe.images.jpeg import JpegMatched
from probe.probing.config import LEAST_IMAGES, RankOptions
from probe.probing.fits import Rows
from probe.probing.leaderboard import Leaderboard
from probe.probing.protocol import ProbeResult
from probe.probing.results import Probes
from probe.probing.rounds import Race, race
from probe.probing.standing import Setting
from probe.probing.uncertainty import LEVEL
from probe.shown import Shown

AUDIT_IMAGES = 2000


@dataclass(frozen=True)
class Ranking(Shown):
    """All that a ranking found.

    Attributes:
        leaderboards: protocol name → leaderboard, the leading protocol first.
        results: protocol name → backbone name → its probe's result.
        captions: names of the images that were scored, reals first, in the results' order.
        broken: the images that were skipped.
        keys: content keys of the images that were scored, in the same order.
        spaces: backbone name → the record of its feature space; empty if features were given.
        indices: "real" and "fake" → which images of the source were scored, in the same order.
        rows: backbone name → its features, read by key.
    """

    as_text = "probe.reports.ranking_view:as_table"
    as_html = "probe.reports.ranking_view:as_html"

    leaderboards: dict[str, Leaderboard]
    results: dict[str, dict[str, ProbeResult]]
    captions: list[str]
    broken: list[Broken]
    keys: list[str]
    spaces: dict[str, dict[str, Any]]
    indices: dict[str, list[int]]
    rows: Mapping[str, Rows]

    @property
    def leaderboard(self) -> Leaderboard:
        """The leading protocol's leaderboard."""
        return next(iter(self.leaderboards.values()))


def rank(
    real: ImageSource,
    fake: ImageSource,
    specs: Sequence[BackboneSpec],
    options: RankOptions,
    ctx: Context,
    *,
    config: Mapping[str, Any] | None = None,
    joint_with: Sequence[BackboneSpec] = (),
) -> Ranking | None:
    """Rank backbones by how well a linear probe on their features tells reals from fakes.

    All processes extract features; the first does the rest.

    Args:
        real: the real images.
        fake: the generated images.
        specs: the backbones to rank, controls included.
        options: see `RankOptions`.
        ctx: its precision is that of `options`.
        config: plain values to keep in the record besides the options.
        joint_with: backbones whose features join each candidate's: what a candidate adds to them.

    Returns:
        One leaderboard per protocol, the probes' results, and the images that were skipped. None
        on every process but the first.

    Raises:
        ImagesError: too few usable images of a class, or too few that are in that class alone.
        BrokenImageError: an image is broken, under `strict`.
        BackboneUnavailable: no backbone of the bank can run here.
    """
    resolution = options.resolution or fake.resolution
    specs = sorted(specs, key=lambda spec: spec.role == "control")  # what decides comes first
    pair = _prepare(real, fake, options)
    able, raced = specs, None
    if options.until_sure:
        raced = _race(pair, specs, options, ctx, resolution)
        pair = replace(pair, count=raced.images)
        able = [spec for spec in specs if spec.name in raced.left]
    found = _extract(pair, (*able, *joint_with), options, ctx, resolution)
    if found is None:
        return None
    give_back_freed_memory()
    if not found.spaces:
        no_backbone(found.failures)
    copies = _copies(pair, found, options, ctx)
    joined = [spec.name for spec in joint_with if spec.name in found.spaces]
    setting = Setting(
        failures={
            **{name: asdict(failure) for name, failure in found.failures.items()},
            **(raced.failures if raced else {}),
        },
        facts={
            name: {
                **{k: v for k, v in space.facts().items() if k != FINGERPRINT},
                "precision": space.record["precision"],
            }
            for name, space in found.spaces.items()
        },
        resolution=resolution,
        audit=[asdict(finding) for finding in pair.findings],
        notes=[
            *(f"Warning: {remark}" for remark in copies.remarks()),
            *found.remarks,
            *_notes(options, pair, found, joined),
        ],
        config={**(config or {}), **_record(options, pair, found, joint_with, ctx)},
        level=raced.level if raced else LEVEL,
    )
    probes = Probes(found.spaces, found.keys, copies.groups, options.seed, ctx)
    leaderboards, results = probes.leaderboards(specs, setting, options, joined)
    return Ranking(
        leaderboards,
        results,
        list(copies.names),
        found.broken,
        keys=[*found.keys["real"], *found.keys["fake"]],
        spaces={name: space.record for name, space in found.spaces.items()},
        indices=found.indices,
        rows=found.spaces,
    )


def _extract(
    pair: "_Pair",
    specs: Sequence[BackboneSpec],
    options: RankOptions,
    ctx: Context,
    resolution: int,
) -> PairFeatures | None:
    """Ensure that the images of a pair have features in every backbone that can run here."""
    return extract_pair(
        pair.real,
        pair.fake,
        list({spec.name: spec for spec in specs}.values()),
        Wanted(
            orders=pair.orders,
            counts={"real": pair.count, "fake": pair.count},
            least=LEAST_IMAGES,
            strict=options.strict,
        ),
        ctx,
        resolution=resolution,
    )


def _race(
    pair: "_Pair",
    specs: Sequence[BackboneSpec],
    options: RankOptions,
    ctx: Context,
    resolution: int,
) -> Race:
    """Run the rounds of `until_sure` before the last; what they extract and fit is remembered."""
    by_name = {spec.name: spec for spec in specs}

    def compare(names: Sequence[str], count: int, level: float) -> dict[str, str | None]:
        some = replace(pair, count=count)
        found = _extract(some, [by_name[name] for name in names], options, ctx, resolution)
        told = None
        if found is not None:
            groups = _copies(some, found, options, ctx).groups if found.spaces else np.empty(0)
            probes = Probes(found.spaces, found.keys, groups, options.seed, ctx)
            told = probes.compare(list(found.spaces), options, level)
        return ctx.processes.broadcast(told)

    return race(specs, pair.count, compare)


@dataclass(frozen=True)
class _Pair:
    """The two sets of images, made ready for a ranking.

    Attributes:
        real: the real images; under `match_jpeg` compressed as the generated ones are.
        fake: the generated images, likewise.
        given: both as they were given.
        orders: "real" and "fake" → the order in which images are tried.
        count: how many of each kind are wanted.
        findings: of the audit.
        quality: of that JPEG compression; None if there is none.
    """

    real: ImageSource
    fake: ImageSource
    given: tuple[ImageSource, ImageSource]
    orders: Mapping[str, Sequence[int]]
    count: int
    findings: list[Shortcut]
    quality: int | None


def _prepare(real: ImageSource, fake: ImageSource, options: RankOptions) -> _Pair:
    """Draw the images, audit them and, under `match_jpeg`, compress both kinds alike.

    Raises:
        ImagesError: too few images of a class.
        UsageError: an option needs the images of a reference.
    """
    if isinstance(real, ReferenceSource):
        _refuse_options(real, options)
    orders = draw_orders(real, fake, options.seed)
    count = min(options.num, len(real), len(fake))
    if count < LEAST_IMAGES:
        refuse_few(min(real, fake, key=len).name, count, LEAST_IMAGES)
    sample = [orders[kind][: min(count, AUDIT_IMAGES)] for kind in ("real", "fake")]
    findings = audit(real, fake, *sample)
    given, quality = (real, fake), None
    if options.match_jpeg:
        quality = jpeg_quality_for(real, fake, *sample)
        real, fake = JpegMatched(real, quality), JpegMatched(fake, quality)
    return _Pair(real, fake, given, orders, count, findings, quality)


def _refuse_options(real: ReferenceSource, options: RankOptions) -> None:
    """Refuse options that need the pixels of images of which only features are known.

    Raises:
        UsageError: names the first.
    """
    for flag, given in (
        ("--match-jpeg", options.match_jpeg),
        ("--near-duplicates", options.near_duplicates),
    ):
        if given:
            raise UsageError(
                f"{flag} needs the real images, and {real.name} holds only their features. Leave "
                "it out, or pass the images as --real."
            )


def _copies(pair: _Pair, found: PairFeatures, options: RankOptions, ctx: Context) -> Copies:
    """Return which images are copies of each other.

    Raises:
        ImagesError: too few images are in their class alone.
    """
    copies = find_copies(pair.real, pair.fake, found)
    if options.near_duplicates:
        copies = count_look_alikes(copies, pair.given, found, ctx)
    copies.require(LEAST_IMAGES, (pair.real.name, pair.fake.name), apart=True)
    return copies


def _record(
    options: RankOptions,
    pair: _Pair,
    found: PairFeatures,
    joint_with: Sequence[BackboneSpec],
    ctx: Context,
) -> dict[str, Any]:
    """Return what decided the ranking's numbers."""
    return {
        "options": asdict(options),
        "precision": choose_precision(ctx.precision, ctx.device),
        "device": str(ctx.device),
        "jpeg_quality": pair.quality,
        "real": {**pair.real.identity(), "images_digest": digest_keys(found.keys["real"])},
        "fake": {**pair.fake.identity(), "images_digest": digest_keys(found.keys["fake"])},
        "versions": library_versions(found.spaces.values()),
        "beside": [spec.name for spec in joint_with],
        "weights": {name: space.record["weights"] for name, space in found.spaces.items()},
    }


def few_note(count: int, source: str, options: RankOptions) -> str:
    """Return the sentence that a source has fewer images than were asked for."""
    return (
        f"{count} images of each class were used, not {options.num}: there are no more in {source}."
    )


def _notes(
    options: RankOptions, pair: _Pair, found: PairFeatures, joined: Sequence[str]
) -> list[str]:
    """Return what a reader of the leaderboard must know, as sentences."""
    notes, count, sources = [], len(found.keys["real"]), (pair.real, pair.fake)
    if count < options.num and not (options.until_sure and count < min(map(len, sources))):
        notes.append(few_note(count, min(sources, key=len).name, options))
    notes += [note for source in sources for note in source.notes]
    if isinstance(pair.real, ReferenceSource):
        notes.append(
            f"{pair.real.name} holds features of the real images, not the images: how the sets "
            "are encoded was not compared, and no pictures of the reals are shown."
        )
    if found.broken:
        notes.append(describe_broken(found.broken))
    if pair.quality is not None:
        notes.append(f"Reals and fakes were both compressed as JPEG, quality {pair.quality}.")
    if joined:
        notes.append(
            f"Each score is that of a joint probe on the backbone and {', '.join(joined)}."
        )
    return notes
