"""Choosing discriminators during a run: rank as `probe rank` does, then apply the strategy."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from probe.context import Context
from probe.events import Note
from probe.files import write_json
from probe.generators.checkpoint import Checkpoint
from probe.generators.sampler import GeneratorSource
from probe.probing.config import RankOptions
from probe.probing.leaderboard import Leaderboard
from probe.probing.rank import rank
from probe.probing.strategies import STRATEGIES
from probe.run_files import selection_file
from probe.training.run import Run


@dataclass(frozen=True)
class Choice:
    """A chosen backbone.

    Attributes:
        name: the bank entry's.
        accuracy: of its own probe; decides whether its targets are smoothed.
    """

    name: str
    accuracy: float


def rank_snapshot(
    run: Run,
    checkpoint: Checkpoint,
    used: Sequence[str],
    ctx: Context,
    *,
    together: bool = False,
) -> Leaderboard | None:
    """Rank the unused backbones on a snapshot's samples against the training images.

    Args:
        run: provides the images, the bank and the options.
        checkpoint: the snapshot.
        used: names of the backbones in use.
        ctx: the run's, or one that reports nothing.
        together: score each backbone jointly with the ones in use.

    Returns:
        The leaderboard; None except on the first process.
    """
    config, reals, specs = run.plan.config, run.reals, run.candidates.specs
    fakes = GeneratorSource(
        checkpoint,
        name="the snapshot",
        count=min(config.rank_num, len(reals.training)),
        seed=config.seed,
        labels=reals.training.labels if reals.c_dim else None,
        device=ctx.device,
    )
    options = RankOptions(
        num=config.rank_num, k=config.k, seed=config.seed, precision=ctx.precision
    )
    ranking = rank(
        reals.training,
        fakes,
        [spec for spec in specs if spec.name not in used],
        options,
        ctx,
        joint_with=[spec for spec in specs if together and spec.name in used],
    )
    return None if ranking is None else ranking.leaderboard


def select(
    run: Run, stage: int, snapshot: Path, checkpoint: Checkpoint, used: Sequence[str]
) -> list[Choice]:
    """Choose the discriminators that join at the start of a stage, and record why.

    Args:
        run: the training run.
        stage: its number.
        snapshot: the file to rank.
        checkpoint: its content.
        used: names of the backbones in use.

    Returns:
        The backbones that join; none if no backbone tells the sets apart or none is left.

    Raises:
        UsageError: fewer than k backbones can be used, at the first stage.
    """
    config, strategy = run.plan.config, STRATEGIES[run.plan.config.strategy]
    if len(used) >= strategy.in_use(config.k)[-1]:
        return []
    if all(spec.name in used for spec in run.candidates.specs):
        return []
    board = rank_snapshot(run, checkpoint, used, run.ctx)
    joint = None
    if strategy.joint and used:
        joint = rank_snapshot(run, checkpoint, used, run.ctx, together=True)
    choices = None
    if board is not None:
        decisive = board if joint is None else joint
        names = strategy.choose([decisive], config.k, used)
        for verdict in decisive.verdicts:
            run.ctx.tell(Note(verdict.sentence))
        own = {row.name: row.accuracy for row in board.rows if row.accuracy is not None}
        choices = [(name, own[name]) for name in names]
        write_json(
            run.folder / selection_file(stage),
            {
                "stage": stage,
                "strategy": config.strategy,
                "snapshot": snapshot.name,
                "in_use": list(used),
                "added": list(names),
                "leaderboard": board.to_dict(),
                "joint": None if joint is None else joint.to_dict(),
            },
        )
    return [Choice(*choice) for choice in run.ctx.processes.broadcast(choices)]
