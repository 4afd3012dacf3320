"""Attacks: what a hostile or damaged input, a kill or a flipped bit must not do.

Each test has a short form, which `make test` runs, and a long one, which `make attack` runs. Both
report how many attempts they made, and the totals are printed at the end.
"""

import os

import pytest
from attack.streams import CANARY


@pytest.fixture
def rounds(request):
    """Return how many attempts to make: `rounds(short, long)`."""
    return lambda short, long: long if request.config.getoption("--long") else short


@pytest.fixture
def tally(request):
    """Count attempts by what became of them: `tally("bit flips noticed", 60)`."""

    def count(outcome: str, number: int = 1) -> None:
        request.node.user_properties.append(("tally", (outcome, number)))

    return count


@pytest.fixture(autouse=True)
def canary():
    """Notice what a file ran."""
    if os.path.exists(CANARY):
        os.unlink(CANARY)
    yield
    assert not os.path.exists(CANARY), "something of the pickle was run"
