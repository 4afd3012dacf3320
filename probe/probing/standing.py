"""Results become a leaderboard: ranks with their ties, who is picked, and what it means."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from probe.errors import ProbeError
from probe.probing.config import RankOptions
from probe.probing.leaderboard import Leaderboard, Row
from probe.probing.protocol import CHANCE, PROTOCOLS, ProbeResult
from probe.probing.strategies import worthy
from probe.probing.uncertainty import LEVEL, Spread, ranks, spread
from probe.probing.verdicts import verdicts


class Entry(Protocol):
    """What is ranked: a bank entry, or features under a name."""

    @property
    def name(self) -> str:
        """Its name on the leaderboard."""
        ...

    @property
    def role(self) -> str:
        """Its role, "candidate", "evaluator" or "control"."""
        ...

    @property
    def task(self) -> str | None:
        """What its weights were trained for."""
        ...

    @property
    def data(self) -> str | None:
        """What they were trained on."""
        ...

    @property
    def license(self) -> str | None:
        """The licence of its weights."""
        ...


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a leaderboard tells besides its results.

    Attributes:
        failures: name → status, reason and remedy of the backbones without a result.
        facts: name → dim, params, flops, images_per_second, precision.
        resolution: see `Leaderboard`.
        audit: see `Leaderboard`.
        notes: sentences to which those about the results are added.
        config: see `Leaderboard`.
        level: at which ranks hold together.
    """

    failures: Mapping[str, Mapping[str, Any]]
    facts: Mapping[str, Mapping[str, Any]]
    resolution: int | None
    audit: list[dict[str, Any]]
    notes: list[str]
    config: dict[str, Any]
    level: float = LEVEL


def build_leaderboard(
    specs: Sequence[Entry],
    results: Mapping[str, ProbeResult],
    null: tuple[str, ProbeResult] | None,
    setting: Setting,
    *,
    protocol: str,
    options: RankOptions,
) -> Leaderboard:
    """Rank what was scored and say what it means.

    Args:
        specs: all entries asked for, in the bank's order.
        results: name → probe result.
        null: whose features, and the result of reals against other reals.
        setting: see `Setting`.
        protocol: name of the protocol.
        options: give the seed of the draws, and k.

    Raises:
        ProbeError: there is no result.
    """
    seed, notes = options.seed, setting.notes
    if not results:
        raise ProbeError("No backbone has a score, so there is nothing to rank.")
    scored = [s for s in specs if s.name in results]
    rows, judged = build_rows(scored, results, setting, protocol=protocol, seed=seed)
    board = Leaderboard(
        protocol=protocol,
        seed=seed,
        n_real=next(iter(results.values())).n_real,
        n_fake=next(iter(results.values())).n_fake,
        resolution=setting.resolution,
        rows=tuple(rows),
        audit=setting.audit,
        notes=notes,
        config=setting.config,
    )
    # The command line's k may ask for more than there are; training insists (`strategies.require`).
    picks = worthy(board)[: options.k]
    rows = [replace(row, picked=row.name in picks) for row in rows]
    notes = [*notes, *_reading(board, judged, results)]
    if null is not None:
        rows.append(_null_row(*null, protocol, seed))
    rows.sort(key=lambda row: _order(row, protocol))
    rows += [
        Row(name=s.name, role=s.role, **_described(s), **setting.failures[s.name])
        for s in specs
        if s.name not in results
    ]
    board = replace(board, rows=tuple(rows), notes=notes)
    return replace(board, verdicts=verdicts(board, judged, results, options))


def _order(row: Row, protocol: str) -> tuple[float, float, str]:
    """Best first; exactly equal scores by fewer multiply-adds, then by name.

    Equal accuracies stay in the bank's order, as the reference's do in that of its list: its probes
    are often all right, and then the list decides.
    """
    value = _value(row, protocol)
    if PROTOCOLS[protocol].criterion == "accuracy":
        return (-value, 0, "")
    return (-value, row.flops if row.flops is not None else float("inf"), row.name)


def _value(row: Row, protocol: str) -> float:
    """Return what a protocol orders by."""
    value = getattr(row, PROTOCOLS[protocol].criterion)
    assert value is not None
    return value


def _described(spec: Entry) -> dict[str, Any]:
    return {"task": spec.task, "data": spec.data, "license": spec.license}


def build_rows(
    specs: Sequence[Entry],
    results: Mapping[str, ProbeResult],
    setting: Setting,
    *,
    protocol: str,
    seed: int,
) -> tuple[list[Row], Spread]:
    """Return the rows of all backbones with a score, ranked, best first.

    Gaps, shared ranks and the chance of being best are about what the protocol orders by. Gaps are
    to the first pretrained backbone, or to the first control if there is no other.

    Args:
        specs: the entries that have a result; at least one.
        results: name → probe result, all of the same images and splits.
        setting: its facts and its level count.
        protocol: a name of `PROTOCOLS`.
        seed: of the draws.

    Returns:
        The rows, and how what they are ordered by varies, in the rows' order.
    """
    rows = [
        Row(
            name=s.name,
            role=s.role,
            score=results[s.name].score,
            accuracy=results[s.name].accuracy,
            auroc=results[s.name].auroc,
            **_described(s),
            **setting.facts.get(s.name, {}),
        )
        for s in specs
    ]
    rows.sort(key=lambda row: _order(row, protocol))
    ordered = [results[row.name] for row in rows]
    criterion = PROTOCOLS[protocol].criterion
    scores, judged = (spread(ordered, j, seed, setting.level) for j in ("score", criterion))
    pretrained = [i for i, row in enumerate(rows) if row.role != "control"]
    first = pretrained[0] if pretrained else 0
    contenders = np.isin(np.arange(len(rows)), pretrained)
    best = judged.best(contenders) if pretrained else np.zeros(len(rows))
    for i, row in enumerate(rows):
        (low, high), (gap_low, gap_high) = scores.interval(i), judged.gap(i, first)
        rows[i] = replace(
            row,
            score_low=low,
            score_high=high,
            gap=_value(row, protocol) - _value(rows[first], protocol),
            gap_low=gap_low,
            gap_high=gap_high,
            p_best=float(best[i]) if contenders[i] else None,
            above_chance=judged.above(i, _chance(protocol), max(1, len(pretrained))),
        )
    shared = ranks(judged.better(pretrained))
    if pretrained and not rows[first].above_chance:
        shared = [1] * len(pretrained)  # nothing was told apart, so nobody did it better
    for i, rank in zip(pretrained, shared, strict=True):
        rows[i] = replace(rows[i], rank=rank, tied=shared.count(rank) > 1)
    return rows, judged


def _chance(protocol: str) -> float:
    """Return what guessing gets of what a protocol orders by."""
    return CHANCE if PROTOCOLS[protocol].criterion == "score" else 0.5


def _reading(board: Leaderboard, judged: Spread, results: Mapping[str, ProbeResult]) -> list[str]:
    """Return what stands out in the rows, in sentences.

    Args:
        board: its rows in the order of `judged`.
        judged: see `build_rows`.
        results: name → probe result.
    """
    notes = []
    if not board.ranked:
        notes.append("No rank was given: only randomly initialised networks have a score.")
    telling = [i for i, r in enumerate(board.rows) if r.role == "control" and r.above_chance]
    if telling:
        better = judged.better(range(len(board.rows)))
        for i in telling:
            notes += _control_reading(board, better, i)
    notes += [_layers_reading(name, rows) for name, rows in board.layers.items()]
    unconverged = [name for name, result in results.items() if result.unconverged]
    if unconverged:
        notes.append(
            f"The probe stopped before it converged on {', '.join(unconverged)}; the score may be "
            "a little off."
        )
    return notes


def _layers_reading(network: str, layers: Sequence[Row]) -> str:
    """Return a sentence on which layer of a network tells best."""
    ordered = sorted(layers, key=lambda row: (row.rank or 0, -(row.score or 0)))
    told = ", ".join(
        row.layer if row.rank is None else f"{row.layer} (rank {row.rank}{'=' * row.tied})"
        for row in ordered
    )
    return f"Layers of {network}, best first: {told}."


def _control_reading(board: Leaderboard, better: np.ndarray, i: int) -> list[str]:
    """Return a sentence if the control in row i scores above pretrained backbones."""
    below = [j for j, row in enumerate(board.rows) if j > i and row.rank is not None]
    beaten = [board.rows[j].name for j in below if better[i, j]]
    level = [board.rows[j].name for j in below if not better[i, j]]
    control = board.rows[i].name
    if beaten:
        tie = f" It ties with {', '.join(level)}." if level else ""
        return [
            f"{control} has random weights and out-probes {', '.join(beaten)}: low-level damage "
            f"that needs no pretraining gives these images away.{tie}"
        ]
    if level:
        return [f"{control} has random weights and ties with {', '.join(level)}."]
    return []


def _null_row(features_of: str, result: ProbeResult, protocol: str, seed: int) -> Row:
    """Return the row of reals against other reals; it takes no part in ranks and gaps."""
    low, high = spread([result], "score", seed).interval(0)
    judged = spread([result], PROTOCOLS[protocol].criterion, seed)
    return Row(
        name=f"null: reals against reals ({features_of})",
        role="null",
        score=result.score,
        score_low=low,
        score_high=high,
        accuracy=result.accuracy,
        auroc=result.auroc,
        above_chance=judged.above(0, _chance(protocol), 1),
    )
