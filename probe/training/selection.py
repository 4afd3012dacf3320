"""Choosing discriminators during a run: rank as `probe rank` does, then apply the strategy."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from probe.bank.layers import unused
from probe.bank.spec import BackboneSpec
from probe.context import Context
from probe.events import Note
from probe.files import write_json
from probe.generators.checkpoint import Checkpoint
from probe.generators.sampler import GeneratorSource
from probe.images.base import ImageSource
from probe.probing.config import RankOptions
from probe.probing.leaderboard import Leaderboard
from probe.probing.rank import rank
from probe.probing.strategies import STRATEGIES
from probe.run_files import selection_file
from probe.training.run import RunInputs


@dataclass(frozen=True)
class Choice:
    """A chosen backbone.

    Attributes:
        name: the bank entry's.
        accuracy: of its own probe; decides whether its targets are smoothed.
    """

    name: str
    accuracy: float


@dataclass(frozen=True)
class Selection:
    """What a strategy decided.

    Attributes:
        strategy: its name.
        in_use: the backbones in use before.
        added: those that join.
        why: a sentence.
        leaderboard: of the unused backbones; None if nothing was ranked, and except on the first
            process.
        joint: of joint probes with those in use, if the strategy looks at them; else None.
    """

    strategy: str
    in_use: tuple[str, ...]
    added: tuple[Choice, ...]
    why: str
    leaderboard: Leaderboard | None = None
    joint: Leaderboard | None = None

    def record(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return {
            "strategy": self.strategy,
            "in_use": list(self.in_use),
            "added": [choice.name for choice in self.added],
            "why": self.why,
            "leaderboard": None if self.leaderboard is None else self.leaderboard.to_dict(),
            "joint": None if self.joint is None else self.joint.to_dict(),
        }


@dataclass(frozen=True)
class Chooser:
    """Ranks the backbones that are not in use, and applies a strategy to the ranking.

    Attributes:
        strategy: a name in `STRATEGIES`.
        k: how many backbones in all.
        specs: the bank's candidates.
        options: of the rankings.
        ctx: its precision is that of the rankings; its processes all decide alike.
    """

    strategy: str
    k: int
    specs: Sequence[BackboneSpec]
    options: RankOptions
    ctx: Context

    def choose(self, used: Sequence[str], reals: ImageSource, fakes: ImageSource) -> Selection:
        """Rank if the strategy wants more backbones, and return what it decides.

        Args:
            used: names of the backbones in use.
            reals: the real images.
            fakes: those of the present generator.

        Raises:
            UsageError: fewer than k backbones can be used, at the first stage.
        """
        strategy, in_use = STRATEGIES[self.strategy], tuple(used)
        most = strategy.in_use(self.k)[-1]
        if len(used) >= most:
            return Selection(self.strategy, in_use, (), f"{most} in use, as many as wanted.")
        if not unused(self.specs, used):
            return Selection(self.strategy, in_use, (), "No backbone of the bank is left.")
        together, made = bool(strategy.joint and used), None
        board = self.rank(used, reals, fakes)
        joint = self.rank(used, reals, fakes, together=True) if together else None
        if board is not None:
            decisive = board if joint is None else joint
            names = strategy.choose([decisive], self.k, used)
            own = {row.name: row.accuracy for row in board.rows if row.accuracy is not None}
            made = [(name, own[name]) for name in names]
        added = tuple(Choice(*choice) for choice in self.ctx.processes.broadcast(made))
        return Selection(self.strategy, in_use, added, _why(added, together), board, joint)

    def rank(
        self,
        used: Sequence[str],
        reals: ImageSource,
        fakes: ImageSource,
        *,
        together: bool = False,
    ) -> Leaderboard | None:
        """Return the leaderboard of the backbones that are not in use.

        Args:
            used: names of the backbones in use.
            reals: the real images.
            fakes: those of the present generator.
            together: score each backbone jointly with the ones in use.

        Returns:
            The leaderboard; None except on the first process.
        """
        ranking = rank(
            reals,
            fakes,
            unused(self.specs, used),
            replace(self.options, precision=self.ctx.precision),
            self.ctx,
            joint_with=[spec for spec in self.specs if together and spec.name in used],
        )
        return None if ranking is None else ranking.leaderboard


def _why(added: Sequence[Choice], together: bool) -> str:
    if not added:
        return "No unused backbone tells reals from fakes beyond luck."
    told = ", ".join(f"{choice.name} (accuracy {choice.accuracy:.2f})" for choice in added)
    if together:
        return f"Joined with those in use, best of the unused: {told}."
    return f"Best of the unused at telling reals from fakes: {told}."


def chooser_of(run: RunInputs, ctx: Context) -> Chooser:
    """Return what chooses a run's discriminators.

    Args:
        run: provides the bank and the options.
        ctx: the run's, or one that reports nothing.
    """
    config = run.plan.config
    options = RankOptions(num=config.rank_num, k=config.k, seed=config.seed)
    return Chooser(config.strategy, config.k, run.candidates.specs, options, ctx)


def samples_of(run: RunInputs, checkpoint: Checkpoint) -> GeneratorSource:
    """Return a snapshot's images, to rank backbones on."""
    config, reals = run.plan.config, run.reals
    return GeneratorSource(
        checkpoint,
        name="the snapshot",
        count=min(config.rank_num, len(reals.training)),
        seed=config.seed,
        labels=reals.training.labels if reals.c_dim else None,
        device=run.ctx.device,
    )


def select(
    run: RunInputs, stage: int, snapshot: Path, checkpoint: Checkpoint, used: Sequence[str]
) -> Selection:
    """Choose the discriminators that join at the start of a stage, and record why.

    Args:
        run: the training run.
        stage: its number.
        snapshot: the file to rank.
        checkpoint: its content.
        used: names of the backbones in use.

    Returns:
        What was decided; nothing joins if no backbone tells the sets apart or none is left.

    Raises:
        UsageError: fewer than k backbones can be used, at the first stage.
    """
    chooser = chooser_of(run, run.ctx)
    selection = chooser.choose(used, run.reals.training, samples_of(run, checkpoint))
    decisive = selection.joint or selection.leaderboard
    if selection.leaderboard is not None and decisive is not None:
        for verdict in decisive.verdicts:
            run.ctx.on_event(Note(verdict.sentence))
        write_json(
            run.folder / selection_file(stage),
            {"stage": stage, "snapshot": snapshot.name, **selection.record()},
        )
    return selection
