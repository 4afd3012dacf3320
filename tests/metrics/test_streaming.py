"""Distances over more images than fit the memory: read in parts, merged in float64."""

import json

import numpy as np
import pytest
from inputs import write_images

from probe import metrics
from probe.errors import ProbeError
from probe.features.moments import moments
from probe.features.store import FeatureSpace, FeatureStore
from probe.metrics import all_metrics
from probe.metrics.frechet import FrechetReference, frechet_distance
from probe.metrics.kernel import kernel_distance
from probe.metrics.prdc import neighbourhoods
from probe.metrics.tables import FeatureSet


def features(n, seed, shift=0.0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, 24)) @ rng.normal(size=(24, 24)) + shift).astype(np.float32)


@pytest.mark.parametrize("parts", [[1, 1, 998], [333, 0, 667], [10] * 100])
def test_moments_of_parts_are_those_of_the_whole(parts):
    """Also far from the origin, where sums of squares would lose their digits."""
    x = features(1000, seed=1, shift=3000)
    ends = np.cumsum(parts)
    merged = moments(x[end - n : end] for n, end in zip(parts, ends))
    exact = x.astype(np.float64)
    assert merged.count == 1000
    np.testing.assert_allclose(merged.mean, exact.mean(axis=0), rtol=1e-13)
    covariance = np.cov(exact, rowvar=False)
    np.testing.assert_allclose(
        merged.root.T @ merged.root, covariance, atol=1e-12 * np.abs(covariance).max()
    )
    assert frechet_distance(merged, moments(x)) == pytest.approx(0, abs=1e-9 * merged.variance)


def test_all_images_count_and_few_are_in_memory(tmp_path, monkeypatch):
    space = FeatureStore(tmp_path).space({"backbone": "toy"})
    found = {"real": features(700, 1), "fake": features(450, 2, shift=0.3)}
    keys = {kind: [f"{kind}{i}" for i in range(len(x))] for kind, x in found.items()}
    for kind, x in found.items():
        space.write(keys[kind], x)
    sizes, read = [], FeatureSpace.read

    def watched(self, some):
        sizes.append(len(some))
        return read(self, some)

    monkeypatch.setattr(FeatureSpace, "read", watched)
    monkeypatch.setattr("probe.features.moments.PART", 128)
    monkeypatch.setattr(metrics, "SAMPLED", 200)
    monkeypatch.setattr("probe.metrics.kernel.MOST", 150)
    sets = [FeatureSet(space, keys[kind]) for kind in ("real", "fake")]
    values = {}
    for metric in all_metrics():
        values |= metric.measure(*sets, 5)
    assert max(sizes) == 200
    real, fake = found.values()
    assert values["frechet"] == pytest.approx(FrechetReference(real).distance(fake), rel=1e-10)
    assert values["kernel"] == kernel_distance(real, fake, seed=5).value
    near = neighbourhoods(real[:200], fake[:200])
    assert (values["recall"], values["density"]) == (near.recall, near.density)


def test_what_is_bounded_is_said(cli, bank, tmp_path, monkeypatch):
    monkeypatch.setattr("probe.metrics.measure.SAMPLED", 20)
    reals, fakes = (write_images(tmp_path / str(n), 24, seed=n) for n in (1, 2))
    done = cli(
        "metrics", "--real", reals, "--gen", fakes, "--bank", bank, "--backbones", "colour",
        "--offline", "--format", "json",
    )  # fmt: skip
    notes = json.loads(done.out)["notes"]
    assert any(n.startswith("Precision, recall, density and coverage use 20 random") for n in notes)


def test_features_that_are_not_finite_are_refused(tmp_path):
    space = FeatureStore(tmp_path).space({"backbone": "toy"})
    table = features(40, 1)
    table[17, 3] = np.inf
    space.write([str(i) for i in range(40)], table)
    broken, few = FeatureSet(space, [str(i) for i in range(40)]), FeatureSet(space, ["0"])
    metric = all_metrics()[0]
    with pytest.raises(ProbeError, match="NaN or infinite"), np.errstate(all="ignore"):
        metric.measure(broken, broken, 0)
    with pytest.raises(ProbeError, match="two real images or more, not 1"):
        metric.measure(few, few, 0)
