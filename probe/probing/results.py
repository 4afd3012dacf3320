"""The probes of a ranking: fitted or recalled, and made into leaderboards."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from probe.context import Context
from probe.events import Note, ProbeStarted
from probe.features.pair import KINDS
from probe.probing.config import LEAST_IMAGES, RankOptions
from probe.probing.fits import Fit, Rows, fit_all
from probe.probing.growth import SHARES, learning_curve
from probe.probing.leaderboard import Leaderboard
from probe.probing.protocol import PROTOCOLS, ProbePlan, ProbeResult, Protocol
from probe.probing.rounds import beaten_by
from probe.probing.standing import Entry, Setting, build_leaderboard
from probe.probing.units import images_of, strata
from probe.streams import numpy_stream
from probe.workers import Workers

# How much of all fitting the scores are; the null row and the learning curves are the rest.
SCORING = 0.7


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
            results = self.score(names, joined, options.protocols, workers, share=SCORING)
            nulls = self.null({p: _best(entries, results[p], p) for p in results}, workers)
            self.ctx.on_event(ProbeStarted("all backbones on fewer images", "", SCORING))
            for protocol, scored in results.items():
                board = build_leaderboard(
                    entries, scored, nulls[protocol], setting, protocol=protocol, options=options
                )
                ranked = [row.name for row in board.ranked]
                fewer = self.fewer(ranked, joined, protocol, workers)
                leaderboards[protocol] = replace(board, curve=learning_curve(board, fewer))
        return leaderboards, results

    def compare(
        self, names: Sequence[str], options: RankOptions, level: float
    ) -> dict[str, str | None]:
        """Return name → who is clearly better by the leading protocol, None if nobody is."""
        protocol = options.protocols[0]
        with Workers() as workers:
            results = self.score(names, (), [protocol], workers)[protocol]
        told = beaten_by(results, protocol, options.seed, level)
        left = sum(better is None for better in told.values())
        count = len(self.keys["real"])
        self.ctx.on_event(Note(f"{count} images of each class: {left} of {len(told)} go on."))
        return told

    def score(
        self,
        names: Sequence[str],
        joined: Sequence[str],
        protocols: Sequence[str],
        workers: Workers,
        share: float = 1.0,
    ) -> dict[str, dict[str, ProbeResult]]:
        """Return the results of reals against fakes, protocol → backbone → result.

        Args:
            names: the backbones.
            joined: those whose features join each one's.
            protocols: names.
            workers: see `fit_all`.
            share: how much of all fitting this is.
        """
        given = self.keys["real"], self.keys["fake"], self.groups
        wanted = [(protocol, name) for protocol in protocols for name in names]
        fits = [self._fit([name, *joined], *given, PROTOCOLS[p]) for p, name in wanted]
        found: dict[str, dict[str, ProbeResult]] = {protocol: {} for protocol in protocols}
        results = fit_all(fits, self.ctx.store, workers)
        for i, (protocol, name) in enumerate(wanted):
            self.ctx.on_event(ProbeStarted(name, protocol, share * i / len(wanted)))
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
        plan = ProbePlan(
            n_real=len(real), n_fake=len(fake), protocol=protocol, seed=self.seed, groups=groups
        )
        return Fit(tuple(self.spaces[name] for name in names), real, fake, plan)
