"""Who is picked: a table."""

import pytest

from probe.errors import UsageError
from probe.probing.leaderboard import Leaderboard, Row
from probe.probing.strategies import STRATEGIES, fixed, progressive


def board(*rows, above=True, luck=()):
    made = []
    for i, (name, role, status) in enumerate(rows):
        ranked = status == "ok" and role in ("candidate", "evaluator")
        made.append(
            Row(
                name=name,
                role=role,
                status=status,
                reason="" if status == "ok" else "no weights",
                remedy="" if status == "ok" else f"probe bank fetch {name}",
                rank=i + 1 if ranked else None,
                score=-0.1 * i if status == "ok" else None,
                above_chance=(above and name not in luck) if status == "ok" else None,
            )
        )
    return Leaderboard(
        protocol="fair", seed=0, n_real=99, n_fake=99, resolution=32, rows=tuple(made)
    )


FULL = board(
    ("judge", "evaluator", "ok"),
    ("a", "candidate", "ok"),
    ("random", "control", "ok"),
    ("b", "candidate", "ok"),
    ("null", "null", "ok"),
    ("c", "candidate", "ok"),
    ("gone", "candidate", "unavailable"),
    ("broken", "candidate", "failed"),
)
LATER = board(("c", "candidate", "ok"), ("a", "candidate", "ok"))
HALF = board(
    ("a", "candidate", "ok"), ("b", "candidate", "ok"), ("c", "candidate", "ok"), luck=("b",)
)
CHANCE = board(("a", "candidate", "ok"), ("b", "candidate", "ok"), above=False)


@pytest.mark.parametrize(
    ("strategy", "boards", "k", "used", "expected"),
    [
        (fixed, [FULL], 1, (), ("a",)),
        (fixed, [FULL], 3, (), ("a", "b", "c")),
        (fixed, [FULL], 3, ("a", "b", "c"), ()),
        (fixed, [FULL, LATER], 2, (), ("a", "b")),
        (fixed, [CHANCE], 2, (), ()),
        (fixed, [HALF], 3, (), ("a", "c")),
        (progressive, [HALF, HALF], 3, ("a",), ("c",)),
        (progressive, [FULL], 3, (), ("a",)),
        (progressive, [FULL, FULL], 3, ("a",), ("b",)),
        (progressive, [FULL, LATER], 3, ("a",), ("c",)),
        (progressive, [FULL, LATER], 3, ("a", "c"), ()),
        (progressive, [FULL], 1, ("a",), ()),
        (progressive, [FULL, CHANCE], 2, ("c",), ()),
    ],
)
def test_choices(strategy, boards, k, used, expected):
    assert strategy(boards, k, used) == expected


@pytest.mark.parametrize("name", [name for name in STRATEGIES if name != "none"])
def test_too_large_k_says_what_is_missing(name):
    with pytest.raises(UsageError) as caught:
        STRATEGIES[name].choose([FULL], 4, ())
    message = str(caught.value)
    assert "4 backbones are wanted and 3 can be used (a, b, c)" in message
    assert "gone is unavailable (no weights; probe bank fetch gone)" in message
    assert "broken is failed" in message
    with pytest.raises(UsageError, match="The bank has no more"):
        STRATEGIES[name].choose([LATER], 3, ())


def test_nothing_is_no_choice():
    with pytest.raises(UsageError, match="at least 1"):
        fixed([LATER], 0)
    assert progressive([LATER], 0) == ()


def test_a_strategy_changes_nothing():
    before = FULL.to_dict()
    fixed([FULL], 2)
    progressive([FULL], 2)
    assert FULL.to_dict() == before
