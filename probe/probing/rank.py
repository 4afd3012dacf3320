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
from probe.events import ProbeStarted
from probe.features.copies import Copies, find_copies
from probe.features.looks import count_look_alikes
from probe.features.pair import (
    KINDS,
    PairFeatures,
    Wanted,
    draw_orders,
    extract_pair,
    no_backbone,
    refuse,
)
from probe.features.space import library_versions
from probe.features.store import digest_keys
from probe.images.audit import Finding, audit, jpeg_quality_for
from probe.images.base import Broken, ImageSource
from probe.images.decode import describe_broken
from probe.images.jpeg import JpegMatched
from probe.probing.config import LEAST_IMAGES, RankOptions
from probe.probing.fits import Fit, Rows, fit_all
from probe.probing.growth import SHARES, learning_curve
from probe.probing.leaderboard import Leaderboard
from probe.probing.protocol import PROTOCOLS, Plan, ProbeResult, Protocol
from probe.probing.standing import Entry, Setting, build_leaderboard
from probe.probing.units import images_of, strata
from probe.probing.workers import Workers
from probe.streams import numpy_stream

AUDIT_IMAGES = 2000


@dataclass(frozen=True)
class Ranking:
    """All that a ranking found.

    Attributes:
        leaderboards: protocol name → leaderboard, the leading protocol first.
        results: protocol name → backbone name → its probe's result.
        captions: names of the images that were scored, reals first, in the results' order.
        broken: the images that were skipped.
        keys: content keys of the images that were scored, in the same order.
        spaces: backbone name → the record of its feature space; empty if features were given.
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
    pair = _prepare(real, fake, options)
    found = extract_pair(
        pair.real,
        pair.fake,
        list({spec.name: spec for spec in (*specs, *joint_with)}.values()),
        Wanted(
            orders=pair.orders,
            counts={"real": pair.count, "fake": pair.count},
            least=LEAST_IMAGES,
            strict=options.strict,
        ),
        ctx,
        resolution=resolution,
    )
    if found is None:
        return None
    give_back_freed_memory()
    if not found.spaces:
        no_backbone(found.failures)
    copies = _copies(pair, found, options, ctx)
    joined = [spec.name for spec in joint_with if spec.name in found.spaces]
    setting = Setting(
        failures={name: asdict(failure) for name, failure in found.failures.items()},
        facts={
            name: {**space.facts(), "precision": space.record["precision"]}
            for name, space in found.spaces.items()
        },
        resolution=resolution,
        audit=[asdict(finding) for finding in pair.findings],
        notes=[
            *(f"Warning: {remark}" for remark in copies.remarks()),
            *_notes(options, pair, found, joined),
        ],
        config={**(config or {}), **_record(options, pair, found, joint_with, ctx)},
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
    )


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
    orders: dict[str, list[int]]
    count: int
    findings: list[Finding]
    quality: int | None


def _prepare(real: ImageSource, fake: ImageSource, options: RankOptions) -> _Pair:
    """Draw the images, audit them and, under `match_jpeg`, compress both kinds alike.

    Raises:
        ImagesError: too few images of a class.
    """
    orders = draw_orders(real, fake, options.seed)
    count = min(options.num, len(real), len(fake))
    if count < LEAST_IMAGES:
        refuse(min(real, fake, key=len).name, count, LEAST_IMAGES)
    sample = [orders[kind][: min(count, AUDIT_IMAGES)] for kind in ("real", "fake")]
    findings = audit(real, fake, *sample)
    given, quality = (real, fake), None
    if options.match_jpeg:
        quality = jpeg_quality_for(real, fake, *sample)
        real, fake = JpegMatched(real, quality), JpegMatched(fake, quality)
    return _Pair(real, fake, given, orders, count, findings, quality)


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


def _best(specs: Sequence[Entry], scored: Mapping[str, ProbeResult], protocol: str) -> str:
    """Return the backbone in whose features reals are told from other reals: the best pretrained.

    The best of all if none is pretrained.
    """
    roles = {spec.name: spec.role for spec in specs}
    criterion = PROTOCOLS[protocol].criterion
    pretrained = [name for name in scored if roles[name] != "control"]
    return max(pretrained or scored, key=lambda name: getattr(scored[name], criterion))


@dataclass(frozen=True)
class Probes:
    """Fits probes on the features of a ranking, or recalls their results.

    Attributes:
        spaces: backbone name → its features.
        keys: "real" and "fake" → the keys of their rows.
        groups: int (n,), reals first, the same for copies of one image.
        seed: of splits and folds.
        ctx: its store remembers results.
    """

    spaces: Mapping[str, Rows]
    keys: Mapping[str, list[str]]
    groups: np.ndarray
    seed: int
    ctx: Context

    def leaderboards(
        self,
        entries: Sequence[Entry],
        setting: Setting,
        options: RankOptions,
        joined: Sequence[str] = (),
    ) -> tuple[dict[str, Leaderboard], dict[str, dict[str, ProbeResult]]]:
        """Score the entries that have features, and rank them by every protocol.

        Args:
            entries: all that were asked for.
            setting: see `Setting`.
            options: give the protocols and k.
            joined: names of backbones whose features join those of each entry.

        Returns:
            Protocol → leaderboard, and protocol → backbone → result.
        """
        names = [entry.name for entry in entries if entry.name in self.spaces]
        leaderboards = {}
        with Workers() as workers:
            results = self.score(names, joined, options.protocols, workers)
            nulls = self.null({p: _best(entries, results[p], p) for p in results}, workers)
            for protocol, scored in results.items():
                board = build_leaderboard(
                    entries, scored, nulls[protocol], setting, protocol=protocol, options=options
                )
                ranked = [row.name for row in board.ranked]
                fewer = self.fewer(ranked, joined, protocol, workers)
                leaderboards[protocol] = replace(board, curve=learning_curve(board, fewer))
        return leaderboards, results

    def score(
        self,
        names: Sequence[str],
        joined: Sequence[str],
        protocols: Sequence[str],
        workers: Workers,
    ) -> dict[str, dict[str, ProbeResult]]:
        """Return the results of reals against fakes, protocol → backbone → result.

        Args:
            names: the backbones.
            joined: those whose features join each one's.
            protocols: names.
            workers: see `fit_all`.
        """
        given = self.keys["real"], self.keys["fake"], self.groups
        wanted = [(protocol, name) for protocol in protocols for name in names]
        fits = [self._fit([name, *joined], *given, PROTOCOLS[p]) for p, name in wanted]
        found: dict[str, dict[str, ProbeResult]] = {protocol: {} for protocol in protocols}
        results = fit_all(fits, self.ctx.store, workers)
        for protocol, name in wanted:
            self.ctx.tell(ProbeStarted(name, protocol))
            found[protocol][name] = next(results)
        return found

    def null(
        self, names: Mapping[str, str], workers: Workers
    ) -> dict[str, tuple[str, ProbeResult] | None]:
        """Return the results of reals against other reals, which must sit at chance.

        Args:
            names: protocol → backbone.
            workers: see `fit_all`.

        Returns:
            Protocol → backbone and result, or None if there are too few reals.
        """
        real, seed = self.keys["real"], self.seed
        unit, (units,) = strata(np.zeros(len(real)), self.groups[: len(real)])
        if len(units) < 2 * LEAST_IMAGES:
            return dict.fromkeys(names)
        order = numpy_stream(seed, "null").permutation(units)
        half = len(units) // 2
        halves = [images_of(part, unit) for part in (order[:half], order[half : 2 * half])]
        first, second = ([real[i] for i in half] for half in halves)
        groups = self.groups[np.concatenate(halves)]
        fits = [self._fit([name], first, second, groups, PROTOCOLS[p]) for p, name in names.items()]
        found = zip(names.values(), fit_all(fits, self.ctx.store, workers), strict=True)
        return dict(zip(names, found, strict=True))

    def fewer(
        self, names: Sequence[str], joined: Sequence[str], protocol: str, workers: Workers
    ) -> dict[int, dict[str, ProbeResult]]:
        """Return images of each class → backbone → its result on so many, the first in order.

        From one repeat, so that all of it takes a quarter of the time of the whole.
        """
        real, fake = (self.keys[kind] for kind in KINDS)
        once = replace(PROTOCOLS[protocol], repeats=1)
        fits = {}
        for share in SHARES:
            count = min(len(real), len(fake)) // share
            parts = [self.groups[:count], self.groups[len(real) : len(real) + count]]
            if min(len(np.unique(part)) for part in parts) < LEAST_IMAGES:
                continue
            given = real[:count], fake[:count], np.concatenate(parts)
            fits[count] = [self._fit([name, *joined], *given, once) for name in names]
        results = fit_all([fit for some in fits.values() for fit in some], self.ctx.store, workers)
        return {count: {name: next(results) for name in names} for count in fits}

    def _fit(
        self,
        names: Sequence[str],
        real: Sequence[str],
        fake: Sequence[str],
        groups: np.ndarray,
        protocol: Protocol,
    ) -> Fit:
        """Return what scores two sets of images, given by content key."""
        plan = Plan(
            n_real=len(real), n_fake=len(fake), protocol=protocol, seed=self.seed, groups=groups
        )
        return Fit(tuple(self.spaces[name] for name in names), real, fake, plan)


def few_note(count: int, source: str, options: RankOptions) -> str:
    """Return the sentence that a source has fewer images than were asked for."""
    return (
        f"{count} images of each class were used: {source} has no more ({options.num} asked for)."
    )


def _notes(
    options: RankOptions, pair: _Pair, found: PairFeatures, joined: Sequence[str]
) -> list[str]:
    """Return what a reader of the leaderboard must know, as sentences."""
    notes, count, sources = [], len(found.keys["real"]), (pair.real, pair.fake)
    if count < options.num:
        notes.append(few_note(count, min(sources, key=len).name, options))
    notes += [note for source in sources for note in source.notes]
    if found.broken:
        notes.append(describe_broken(found.broken))
    if pair.quality is not None:
        notes.append(f"Reals and fakes were both compressed as JPEG, quality {pair.quality}.")
    if joined:
        notes.append(
            f"Each score is that of a joint probe on the backbone and {', '.join(joined)}."
        )
    return notes
