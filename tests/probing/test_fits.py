"""Probes fitted side by side are those fitted one after another, and are remembered."""

import numpy as np
import pytest

from probe.errors import ProbeError
from probe.features.store import FeatureStore
from probe.probing import fits
from probe.probing.fits import Fit, fit_all
from probe.probing.protocol import FAIR, PAPER, ProbePlan
from probe.workers import Workers

REALS, FAKES = [[f"{kind}-{i}" for i in range(40)] for kind in ("real", "fake")]


def space(store, name, width, broken=False):
    """Return stored features of both classes."""
    rng = np.random.default_rng(width)
    found = store.space({"name": name})
    x = rng.standard_normal((80, width)).astype(np.float32)
    x[40:] += 0.5
    if broken:
        x[3, 0] = np.nan
    found.write([*REALS, *FAKES], x)
    return found


def wanted(store):
    """Return fits of two backbones, joined and alone, by both protocols."""
    one, two = space(store, "one", 7), space(store, "two", 90)
    plans = [
        ProbePlan(n_real=40, n_fake=40, protocol=protocol, seed=3, groups=np.arange(80) // 2)
        for protocol in (FAIR, PAPER)
    ]
    return [Fit(s, REALS, FAKES, plan) for plan in plans for s in ((one,), (two,), (one, two))]


def fit(store, wanted, monkeypatch, worth):
    """Return the results, and the pids of the processes that were used."""
    monkeypatch.setattr(fits, "WORTH", worth)
    monkeypatch.setattr(fits, "usable_cores", lambda: 2)
    with Workers() as workers:
        return list(fit_all(wanted, store, workers)), len(workers)


def test_side_by_side_is_the_same_to_the_last_bit(tmp_path, monkeypatch):
    here, apart = (FeatureStore(tmp_path / name) for name in ("here", "apart"))
    serial, none = fit(here, wanted(here), monkeypatch, 1e12)
    parallel, two = fit(apart, wanted(apart), monkeypatch, 0)
    assert (none, two) == (0, 2)
    for a, b in zip(serial, parallel, strict=True):
        for name, value in a.to_arrays().items():
            np.testing.assert_array_equal(value, b.to_arrays()[name])


def test_what_is_remembered_is_not_fitted_again(tmp_path, monkeypatch):
    store = FeatureStore(tmp_path)
    first, _ = fit(store, wanted(store)[:2], monkeypatch, 0)
    again, started = fit(store, wanted(store)[:2], monkeypatch, 0)
    assert started == 0
    assert [r.score for r in again] == [r.score for r in first]


@pytest.mark.parametrize("worth", [0, 1e12])
def test_the_error_of_one_probe_surfaces_and_the_results_before_it_are_kept(
    tmp_path, monkeypatch, worth
):
    store = FeatureStore(tmp_path)
    good = wanted(store)[0]
    bad = Fit((space(store, "bad", 5, broken=True),), REALS, FAKES, good.plan)
    with pytest.raises(ProbeError, match="features of 1 of 80 images hold NaN"):
        fit(store, [good, bad, wanted(store)[1]], monkeypatch, worth)
    assert store.recall(good.record()) is not None
    assert store.recall(bad.record()) is None


def test_there_are_as_many_processes_as_memory_holds(monkeypatch):
    monkeypatch.setattr(fits, "usable_cores", lambda: 16)
    free = type("Memory", (), {"available": 4 * 2**30})
    monkeypatch.setattr(fits.psutil, "virtual_memory", lambda: free)
    assert fits._worth_starting([4_000 * 768] * 9) == 8  # 245 MiB each
    assert fits._worth_starting([40_000 * 2048] * 9) == 1  # 1.4 GiB each
    assert fits._worth_starting([4_000 * 768]) == 0  # over before a process has started
