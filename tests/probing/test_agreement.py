"""Agreement between backbones, and what a greedy choice makes of it."""

from types import SimpleNamespace

import numpy as np
import pytest

from probe.probing.agreement import agreement, greedy_picks
from probe.probing.protocol import CHANCE

N = 400


def result(signal: np.ndarray, noise: np.ndarray) -> SimpleNamespace:
    """Log-odds of N reals and N fakes that a signal tells apart, noise added."""
    side = np.repeat([-1.0, 1.0], N)
    return SimpleNamespace(image_logits=side * signal + noise, groups=np.arange(2 * N), n_real=N)


@pytest.fixture
def results():
    rng = np.random.default_rng(0)
    shared = 2 * rng.standard_normal(2 * N)
    return {
        "first": result(np.full(2 * N, 1.2), shared),
        "twin": result(np.full(2 * N, 1.19), shared + 0.01 * rng.standard_normal(2 * N)),
        "other": result(np.full(2 * N, 0.9), 2 * rng.standard_normal(2 * N)),
    }


def test_twins_agree_and_strangers_do_not_although_both_work(results):
    found = agreement(results)
    assert np.allclose(found, found.T) and np.allclose(np.diag(found), 1)
    assert found[0, 1] > 0.99
    assert abs(found[0, 2]) < 0.12  # over both classes together it would be far above


def test_what_adds_something_is_picked_before_a_twin(results):
    picks = greedy_picks(results, ["twin", "first", "other"], 2)
    assert picks[0].name in ("first", "twin") and picks[1].name == "other"
    assert picks[0].gain == pytest.approx(picks[0].score - CHANCE)
    assert picks[1].gain > 0.02
    assert [p.name for p in greedy_picks(results, ["other"], 3)] == ["other"]
    assert greedy_picks(results, [], 3) == []


def test_images_that_were_never_held_out_are_left_out(results):
    before = agreement(results)
    results["twin"].image_logits[::7] = np.nan
    after = agreement(results)
    assert np.isfinite(after).all() and abs(after[0, 2] - before[0, 2]) < 0.1
    assert greedy_picks(results, list(results), 3)
