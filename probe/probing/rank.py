"""A ranking from end to end: two image sources and a bank in, leaderboards out.

Knows image sources and specs, not generators: `probe rank` calls it with a generator's samples or
a folder, and training calls it in the middle of a run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from typing import Any, Protocol

import numpy as np

from probe.accel.memory import give_back_freed_memory, large_blocks_apart
from probe.bank.spec import BackboneSpec
from probe.context import Context
from probe.devices import choose_precision
from probe.events import Note, ProbeStarted
from probe.features.copies import Copies, find_copies
from probe.features.looks import count_look_alikes
from probe.features.pair import (
    KINDS,
    PairFeatures,
    Wanted,
    digest_keys,
    draw_orders,
    extract_pair,
    no_backbone,
    refuse,
)
from probe.features.space import library_versions
from probe.files import digest_bytes
from probe.images.audit import Finding, audit, jpeg_quality_for
from probe.images.base import Broken, ImageSource
from probe.images.decode import describe_broken
from probe.images.jpeg import JpegMatched
from probe.probing.config import LEAST_IMAGES, RankOptions
from probe.probing.growth import SHARES, learning_curve
from probe.probing.leaderboard import Leaderboard
from probe.probing.protocol import PROTOCOLS, ProbeResult
from probe.probing.protocol import Protocol as ProbeProtocol
from probe.probing.rounds import Race, beaten_by, race
from probe.probing.standing import Entry, Setting, build_leaderboard
from probe.probing.uncertainty import LEVEL
from probe.probing.units import images_of, strata
from probe.streams import numpy_stream

AUDIT_IMAGES = 2000
SOLVER = 6  # raised whenever the probe's grid, tolerance, search or result changes


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


class Rows(Protocol):
    """Features of one backbone, whose rows are read by key; `FeatureSpace` is one."""

    @property
    def key(self) -> str:
        """A digest of all that determines a row besides its own key."""
        ...

    def read(self, keys: Sequence[str]) -> np.ndarray:
        """Return the rows of keys, float32 (n, d)."""
        ...


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
        leaderboards, results = {}, {}
        names = [entry.name for entry in entries if entry.name in self.spaces]
        for protocol in options.protocols:
            scored = {name: self.score([name, *joined], protocol) for name in names}
            null = self.null(_best(entries, scored, protocol), protocol)
            board = build_leaderboard(
                entries, scored, null, setting, protocol=protocol, options=options
            )
            fewer = self.fewer([row.name for row in board.ranked], protocol, joined)
            leaderboards[protocol] = replace(board, curve=learning_curve(board, fewer))
            results[protocol] = scored
        return leaderboards, results

    def compare(
        self, names: Sequence[str], options: RankOptions, level: float
    ) -> dict[str, str | None]:
        """Return name → who is clearly better by the leading protocol, None if nobody is."""
        protocol = options.protocols[0]
        results = {name: self.score([name], protocol) for name in names}
        told = beaten_by(results, protocol, options.seed, level)
        left = sum(better is None for better in told.values())
        count = len(self.keys["real"])
        self.ctx.tell(Note(f"{count} images of each class: {left} of {len(told)} go on."))
        return told

    def fewer(
        self, names: Sequence[str], protocol: str, joined: Sequence[str]
    ) -> dict[int, dict[str, ProbeResult]]:
        """Return images of each class → backbone → its result on so many, the first in order.

        From one repeat, so that all of it takes a quarter of the time of the whole.
        """
        (real, fake), found = (self.keys[kind] for kind in KINDS), {}
        once = replace(PROTOCOLS[protocol], repeats=1)
        for share in SHARES:
            count = min(len(real), len(fake)) // share
            parts = [self.groups[:count], self.groups[len(real) : len(real) + count]]
            if min(len(np.unique(part)) for part in parts) < LEAST_IMAGES:
                continue
            given = real[:count], fake[:count], np.concatenate(parts)
            found[count] = {name: self._fit([name, *joined], *given, once) for name in names}
        return found

    def score(self, names: Sequence[str], protocol: str) -> ProbeResult:
        """Return the result of reals against fakes, the features of several backbones joined."""
        self.ctx.tell(ProbeStarted(names[0], protocol))
        return self._fit(
            names, self.keys["real"], self.keys["fake"], self.groups, PROTOCOLS[protocol]
        )

    def null(self, name: str, protocol: str) -> tuple[str, ProbeResult] | None:
        """Return the result of reals against other reals, which must sit at chance.

        None if there are too few reals.
        """
        real, seed = self.keys["real"], self.seed
        unit, (units,) = strata(np.zeros(len(real)), self.groups[: len(real)])
        if len(units) < 2 * LEAST_IMAGES:
            return None
        order = numpy_stream(seed, "null").permutation(units)
        half = len(units) // 2
        halves = [images_of(part, unit) for part in (order[:half], order[half : 2 * half])]
        first, second = ([real[i] for i in half] for half in halves)
        groups = self.groups[np.concatenate(halves)]
        return name, self._fit([name], first, second, groups, PROTOCOLS[protocol])

    def _fit(
        self,
        names: Sequence[str],
        real: Sequence[str],
        fake: Sequence[str],
        groups: np.ndarray,
        protocol: ProbeProtocol,
    ) -> ProbeResult:
        """Score two sets of images, given by content key."""
        spaces = [self.spaces[name] for name in names]
        record = {
            "spaces": [space.key for space in spaces],
            "real": digest_keys(real),
            "fake": digest_keys(fake),
            "groups": digest_bytes(groups.astype("<i8").tobytes()),
            "protocol": asdict(protocol),
            "solver": SOLVER,
            "seed": self.seed,
            "sklearn": metadata.version("scikit-learn"),
        }
        arrays = self.ctx.store.recall(record)
        if arrays is not None:
            return ProbeResult.from_arrays(arrays)
        from probe.probing.fit import evaluate  # scikit-learn is slow to import

        with large_blocks_apart():
            x_real, x_fake = (_side_by_side(spaces, keys) for keys in (real, fake))
            result = evaluate(x_real, x_fake, protocol=protocol, seed=self.seed, groups=groups)
        self.ctx.store.remember(record, result.to_arrays())
        return result


def _side_by_side(spaces: Sequence[Rows], keys: Sequence[str]) -> np.ndarray:
    """Return the rows of all keys, the columns of one space after those of another."""
    tables = [space.read(keys) for space in spaces]
    return tables[0] if len(tables) == 1 else np.concatenate(tables, axis=1)


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
    if count < options.num and not (options.until_sure and count < min(map(len, sources))):
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
