"""Selection strategies: pure functions from leaderboards to the names to add next.

The contract: `(leaderboards so far, k, names in use) -> names to add`; an empty answer means stop.
Controls, the null row, evaluators and rows without a score are never chosen, nor is a backbone that
does not tell the two sets apart beyond luck: such a choice would be a lottery.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from probe.bank.layers import one_each
from probe.errors import UsageError

if TYPE_CHECKING:
    from probe.probing.leaderboard import Leaderboard

Choose = Callable[["Sequence[Leaderboard]", int, Collection[str]], tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """How backbones are chosen.

    Attributes:
        choose: see the top of this file.
        in_use: k → how many backbones are in use in each stage, the warm-up's 0 first.
        joint: whether later leaderboards are of joint probes with the backbones in use, so that
            a score says what a backbone adds to them.
    """

    choose: Choose
    in_use: Callable[[int], Sequence[int]] = lambda k: range(k + 1)
    joint: bool = False


def choosable(board: "Leaderboard", used: Collection[str] = ()) -> tuple[str, ...]:
    """Return the discriminators with a score that are not in use, best first.

    Of a network's layers the best one, and none if one is in use.
    """
    return tuple(one_each((r.name for r in board.ranked if r.role == "candidate"), used))


def worthy(board: "Leaderboard", used: Collection[str] = ()) -> tuple[str, ...]:
    """Return those that are also above chance; nobody if the first of all is not."""
    told = {r.name for r in board.ranked if r.told_apart}
    return tuple(name for name in choosable(board, used) if name in told and board.winner)


def fixed(boards: "Sequence[Leaderboard]", k: int, used: Collection[str] = ()) -> tuple[str, ...]:
    """Return the k best of the first leaderboard at once, then nothing.

    K-fixed (Kumari et al. 2022, section 3); fewer than k if fewer are above chance.

    Args:
        boards: leaderboards so far, oldest first; at least one.
        k: how many backbones in all.
        used: names in use; anything in it means that the choice was made.

    Raises:
        UsageError: fewer than k can be chosen.
    """
    if used:
        return ()
    require(boards[0], k)
    return worthy(boards[0])[:k]


def progressive(
    boards: "Sequence[Leaderboard]", k: int, used: Collection[str] = ()
) -> tuple[str, ...]:
    """Return the best unused backbone of the latest leaderboard, until k are in use.

    K-progressive (Kumari et al. 2022, section 3). A missing backbone is an error before the first
    stage; later, after hours of training, one that has broken is left out instead.

    Args:
        boards: leaderboards so far, oldest first; at least one.
        k: how many backbones in all.
        used: names in use.

    Raises:
        UsageError: at the first stage, fewer than k can be chosen.
    """
    if len(used) >= k:
        return ()
    if not used:
        require(boards[-1], k)
    return worthy(boards[-1], used)[:1]


STRATEGIES: dict[str, Strategy] = {
    "none": Strategy(choose=lambda boards, k, used: (), in_use=lambda k: [0]),
    "fixed": Strategy(choose=fixed, in_use=lambda k: [0, k]),
    "progressive": Strategy(choose=progressive),
    "greedy": Strategy(choose=progressive, joint=True),
}


def require(board: "Leaderboard", k: int) -> None:
    """Check that k backbones can be chosen.

    Raises:
        UsageError: fewer have a score; says which are missing and why.
    """
    able = choosable(board)
    names = f" ({', '.join(able)})" if able else ""
    if k < 1:
        raise UsageError(f"--k: must be at least 1, not {k}.")
    if len(able) < k:
        missing = [
            f"{r.name} is {r.status} ({r.reason}{f'; {r.remedy}' if r.remedy else ''})"
            for r in board.rows
            if r.status != "ok" and r.role == "candidate"
        ]
        because = f" Missing: {', '.join(missing)}." if missing else " The bank has no more."
        raise UsageError(
            f"--k: {k} backbones are wanted and {len(able)} can be used{names}.{because}"
        )
