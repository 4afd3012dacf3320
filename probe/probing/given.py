"""A ranking of features that the caller already has."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

import numpy as np

from probe.bank.spec import NAME
from probe.context import Context
from probe.errors import UsageError, printable
from probe.features.copies import Copies, group
from probe.features.given import GivenFeatures
from probe.features.pair import KINDS, draw_orders, refuse_few
from probe.features.store import digest_keys
from probe.options import changed_flags
from probe.probing.config import LEAST_IMAGES, RankOptions
from probe.probing.rank import Ranking, few_note
from probe.probing.results import Probes
from probe.probing.rounds import race
from probe.probing.standing import Setting
from probe.probing.uncertainty import LEVEL

SETS = ("real features", "fake features")
OF_FEATURES = ("protocol", "num", "k", "seed", "until_sure")  # options that need no images


@dataclass(frozen=True)
class Named:
    """Features under a name, as a leaderboard's entry; nothing else is known of them."""

    name: str
    role: str = "candidate"
    task: str | None = None
    data: str | None = None
    license: str | None = None


def check_given(names: Sequence[str], options: RankOptions) -> None:
    """Check the names of backbones, and that no option is about images.

    Raises:
        UsageError: names the name or the flags.
    """
    for name in names:
        if re.fullmatch(NAME, name) is None:
            raise UsageError(
                f"'{printable(name, 100)}' cannot be a backbone's name: use at most 100 letters, "
                "digits and ._#-, as in --features NAME=FILE."
            )
    foreign = [flag for name, flag in changed_flags(options).items() if name not in OF_FEATURES]
    if foreign:
        raise UsageError(
            f"{', '.join(foreign)}: features are ranked as they are, without images. Leave this "
            "out, or rank images with --real and --gen."
        )


def rank_given(
    given: Mapping[str, GivenFeatures],
    options: RankOptions,
    ctx: Context,
    *,
    config: Mapping[str, Any],
) -> Ranking:
    """Rank features as `probe.probing.rank.rank` ranks a bank.

    As there, equal numbers of reals and fakes are drawn by the seed. Rows that are the same in
    every backbone count as copies of one image.

    Args:
        given: backbone name → its features, all of the same images.
        options: those of `OF_FEATURES` count; see `check_given`.
        ctx: its store remembers results.
        config: plain values to keep in the record besides the options.

    Raises:
        ImagesError: too few rows, or too few that are in their class alone.
    """
    counts = next(iter(given.values())).counts
    most = min(options.num, *counts)
    fewest = SETS[counts[1] < counts[0]]
    if most < LEAST_IMAGES:
        refuse_few(fewest, most, LEAST_IMAGES)
    entries = [Named(name) for name in given]
    count, able, raced = most, given, None
    if options.until_sure:

        def compare(names: Sequence[str], count: int, level: float) -> dict[str, str | None]:
            probes = _draw(given, count, options).probes(given, options, ctx)
            return probes.compare(names, options, level)

        raced = race(entries, most, compare)
        count, able = raced.images, {name: given[name] for name in raced.left}
    drawn = _draw(given, count, options)
    notes = [f"Warning: {remark}" for remark in drawn.copies.remarks()]
    if count == most < options.num:
        notes.append(few_note(most, fewest, options))
    setting = Setting(
        failures=raced.failures if raced else {},
        facts={name: {"dim": features.table.shape[1]} for name, features in given.items()},
        resolution=None,
        audit=[],
        notes=notes,
        config={**config, **_record(given, drawn.keys, options)},
        level=raced.level if raced else LEVEL,
    )
    leaderboards, results = drawn.probes(able, options, ctx).leaderboards(entries, setting, options)
    return Ranking(
        leaderboards,
        results,
        list(drawn.copies.names),
        [],
        keys=[*drawn.keys["real"], *drawn.keys["fake"]],
        spaces={},
        indices=drawn.indices,
        rows=given,
    )


@dataclass(frozen=True)
class _Drawn:
    """The rows in use.

    Attributes:
        indices: "real" and "fake" → positions in the arrays, in order of use.
        keys: likewise → positions in the tables, as text.
        copies: which rows are the same.
    """

    indices: dict[str, list[int]]
    keys: dict[str, list[str]]
    copies: Copies

    def probes(
        self, given: Mapping[str, GivenFeatures], options: RankOptions, ctx: Context
    ) -> Probes:
        """Return the probes on these rows."""
        return Probes(given, self.keys, self.copies.groups, options.seed, ctx)


def _draw(given: Mapping[str, GivenFeatures], count: int, options: RankOptions) -> _Drawn:
    """Return as many reals and fakes; fewer of them are the first of more.

    Raises:
        ImagesError: too few are in their class alone.
    """
    n_real, n_fake = next(iter(given.values())).counts
    orders = draw_orders(range(n_real), range(n_fake), options.seed)
    indices = {kind: list(orders[kind][:count]) for kind in KINDS}
    rows = [*indices["real"], *(n_real + i for i in indices["fake"])]
    copies = Copies(
        groups=group([_row_digest(given, row) for row in rows]),
        names=[f"{kind} {i}" for kind in KINDS for i in indices[kind]],
        n_real=count,
    )
    copies.require(LEAST_IMAGES, SETS, apart=True)
    keys = {"real": [str(row) for row in rows[:count]], "fake": [str(row) for row in rows[count:]]}
    return _Drawn(indices, keys, copies)


def _row_digest(given: Mapping[str, GivenFeatures], row: int) -> bytes:
    """Return what tells a row from others: its values in all backbones."""
    digest = hashlib.sha256()
    for features in given.values():
        digest.update(features.table[row].data)
    return digest.digest()


def _record(
    given: Mapping[str, GivenFeatures], keys: Mapping[str, Sequence[str]], options: RankOptions
) -> dict[str, Any]:
    """Return what decided the ranking's numbers."""
    return {
        "options": asdict(options),
        **{
            kind: {"kind": "features", "path": name, "images_digest": digest_keys(keys[kind])}
            for kind, name in zip(KINDS, SETS, strict=True)
        },
        "features": {
            name: {"file": features.file, "sha256": features.key}
            for name, features in given.items()
        },
        "versions": {
            "scikit-learn": metadata.version("scikit-learn"),
            "numpy": np.__version__,
        },
    }
