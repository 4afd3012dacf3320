"""Choosing discriminators in the middle of a run: the ranking of `probe rank`, then a strategy."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from probe.files import write_json
from probe.generators.checkpoint import Checkpoint
from probe.generators.sampler import GeneratorSource
from probe.probing.config import RankOptions
from probe.probing.leaderboard import Leaderboard
from probe.probing.ranking import rank
from probe.probing.strategies import STRATEGIES
from probe.runtime import World
from probe.training.config import TrainConfig
from probe.training.evaluation import Candidates
from probe.training.reals import Reals


@dataclass(frozen=True)
class Choice:
    """A backbone that was chosen.

    Attributes:
        name: the bank entry's.
        accuracy: of its own probe; decides whether its targets are smoothed.
    """

    name: str
    accuracy: float


def rank_snapshot(
    checkpoint: Checkpoint,
    reals: Reals,
    candidates: Candidates,
    used: list[str],
    *,
    together: bool,
    config: TrainConfig,
    device: torch.device,
    precision: str,
    world: World,
    report: Any,
) -> Leaderboard | None:
    """Rank the backbones that are not in use on a snapshot's samples and the training images.

    Args:
        checkpoint: the snapshot.
        reals: the training images.
        candidates: the bank.
        used: names in use.
        together: score each beside those in use, by a joint probe.
        config: gives seed, k and the number of images.
        device: where to compute.
        precision: of the backbones.
        world: the processes.
        report: is given the ranking's progress records.

    Returns:
        The leaderboard; None on every process but the first.
    """
    fakes = GeneratorSource(
        checkpoint,
        name="the snapshot",
        count=min(config.rank_num, len(reals.training)),
        seed=config.seed,
        labels=reals.training.labels if reals.c_dim else None,
        device=device,
    )
    ranking = rank(
        reals.training,
        fakes,
        [spec for spec in candidates.specs if spec.name not in used],
        options=RankOptions(num=config.rank_num, k=config.k, seed=config.seed, precision=precision),
        store=candidates.store,
        device=device,
        offline=candidates.offline,
        calibration=candidates.calibration,
        report=report,
        beside=[spec for spec in candidates.specs if together and spec.name in used],
        world=world,
    )
    return None if ranking is None else ranking.leaderboard


def select(
    stage: int,
    snapshot: Path,
    checkpoint: Checkpoint,
    folder: Path,
    reals: Reals,
    candidates: Candidates,
    used: list[str],
    *,
    config: TrainConfig,
    device: torch.device,
    precision: str,
    world: World,
    report: Any,
) -> list[Choice]:
    """Choose the discriminators that join at the beginning of a stage, and record why.

    Returns:
        What joins, possibly nothing: where no backbone tells the sets apart, or none is left.

    Raises:
        UsageError: fewer backbones than k can be used, at the first stage.
    """
    run: dict[str, Any] = {
        "config": config,
        "device": device,
        "precision": precision,
        "world": world,
        "report": report,
    }
    if (config.strategy == "fixed" and used) or len(used) >= config.k:
        return []
    if all(spec.name in used for spec in candidates.specs):
        return []
    board = rank_snapshot(checkpoint, reals, candidates, used, together=False, **run)
    joint = None
    if config.strategy == "greedy" and used:
        joint = rank_snapshot(checkpoint, reals, candidates, used, together=True, **run)
    choices = None
    if board is not None:
        decisive = board if joint is None else joint
        names = STRATEGIES[config.strategy]([decisive], config.k, used)
        own = {row.name: row.accuracy for row in board.rows if row.accuracy is not None}
        choices = [(name, own[name]) for name in names]
        write_json(
            folder / f"selection-stage{stage}.json",
            {
                "stage": stage,
                "strategy": config.strategy,
                "snapshot": snapshot.name,
                "in_use": used,
                "added": list(names),
                "leaderboard": board.to_dict(),
                "joint": None if joint is None else joint.to_dict(),
            },
        )
    return [Choice(*choice) for choice in world.broadcast(choices)]
