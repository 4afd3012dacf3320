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
from probe.features.pair import KINDS, draw_orders, refuse
from probe.features.store import digest_keys
from probe.options import changed_flags
from probe.probing.config import LEAST_IMAGES, RankOptions
from probe.probing.rank import Probes, Ranking, few_note
from probe.probing.standing import Setting

SETS = ("real features", "fake features")
OF_FEATURES = ("protocol", "num", "k", "seed")  # options that need no images


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
    n_real, n_fake = next(iter(given.values())).counts
    count = min(options.num, n_real, n_fake)
    fewest = SETS[n_fake < n_real]
    if count < LEAST_IMAGES:
        refuse(fewest, count, LEAST_IMAGES)
    orders = draw_orders(range(n_real), range(n_fake), options.seed)
    indices = {kind: orders[kind][:count] for kind in KINDS}
    rows = [*indices["real"], *(n_real + i for i in indices["fake"])]
    copies = Copies(
        groups=group([_row_digest(given, row) for row in rows]),
        names=[f"{kind} {i}" for kind in KINDS for i in indices[kind]],
        n_real=count,
    )
    copies.require(LEAST_IMAGES, SETS, apart=True)
    keys = {"real": [str(row) for row in rows[:count]], "fake": [str(row) for row in rows[count:]]}
    notes = [f"Warning: {remark}" for remark in copies.remarks()]
    if count < options.num:
        notes.append(few_note(count, fewest, options))
    setting = Setting(
        failures={},
        facts={name: {"dim": features.table.shape[1]} for name, features in given.items()},
        resolution=None,
        audit=[],
        notes=notes,
        config={**config, **_record(given, keys, options)},
    )
    probes = Probes(given, keys, copies.groups, options.seed, ctx)
    leaderboards, results = probes.leaderboards([Named(name) for name in given], setting, options)
    return Ranking(
        leaderboards,
        results,
        list(copies.names),
        [],
        keys=[*keys["real"], *keys["fake"]],
        spaces={},
        indices=indices,
    )


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
