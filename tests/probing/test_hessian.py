"""The curvature of a probe: solutions and leverages are those of the matrix written out."""

import numpy as np
import pytest

from probe.probing.hessian import Narrow, Wide, hessian


@pytest.mark.parametrize("shape", [(40, 6), (6, 40), (20, 20), (2000, 700)])  # more than a piece
@pytest.mark.parametrize("penalty", [1e-2, 1e4])
def test_solutions_and_leverages_are_those_of_the_matrix(shape, penalty):
    rng = np.random.default_rng(0)
    x, curvature = rng.standard_normal(shape), rng.uniform(0, 0.25, shape[0])
    found = hessian(x, curvature, penalty)
    assert isinstance(found, Narrow if shape[0] > shape[1] else Wide)
    a = np.column_stack([x, np.ones(len(x))]) * np.sqrt(curvature)[:, None]
    slack = 2e-7 * np.trace(a.T @ a)
    whole = a.T @ a + np.diag([*[penalty + slack] * shape[1], slack + 1e-9])
    values = rng.standard_normal((shape[1] + 1, 3))
    exact = np.linalg.solve(whole, values)
    np.testing.assert_allclose(found.solve(values), exact, rtol=1e-3, atol=1e-3 * abs(exact).max())
    leverage = np.einsum("ij,ij->i", a, np.linalg.solve(whole, a.T).T)
    np.testing.assert_allclose(found.rest, 1 - leverage, atol=2e-4)


def test_a_probe_that_is_certain_of_every_image_has_no_leverage():
    x = np.random.default_rng(0).standard_normal((5, 9))
    assert hessian(x, np.zeros(5), 1e-8).rest == pytest.approx(np.ones(5))
