"""The curvature of a fitted probe: H = Aᵀ A + D, solved for many right-hand sides.

A holds one row per training image, an intercept's 1 after its coordinates, times the root of its
curvature; D is the penalty. One factorisation gives solutions and leverages. It is that of H, or,
if there are fewer images than coordinates, of the smaller M = I + A D⁻¹ Aᵀ (Woodbury).
"""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import scipy.linalg

from probe.probing.c_search import PIECE_BYTES

SINGLE = np.dtype(np.float32)


class Hessian(Protocol):
    """H of one probe.

    Attributes:
        rest: float64 (n,): one less each training image's leverage, aᵢᵀ H⁻¹ aᵢ.
    """

    rest: np.ndarray

    def solve(self, values: np.ndarray) -> np.ndarray:
        """Return H⁻¹ values, float64 (k + 1, c)."""
        ...


def hessian(x: np.ndarray, curvature: np.ndarray, penalty: float) -> Hessian:
    """Return H, factorised.

    Args:
        x: float (n, k).
        curvature: float64 (n,), not negative.
        penalty: on every squared weight but the intercept's.
    """
    trace = float(curvature @ (np.einsum("ij,ij->i", x, x) + 1))
    slack = 2e-7 * trace  # so that rounding leaves no negative direction
    diagonal = np.append(np.full(x.shape[1], penalty + slack), slack + 1e-9)
    root = np.sqrt(curvature)
    return Narrow(x, root, diagonal) if len(x) > x.shape[1] else Wide(x, root, diagonal)


class Narrow:
    """H of more images than coordinates."""

    def __init__(self, x: np.ndarray, root: np.ndarray, diagonal: np.ndarray) -> None:
        total = np.zeros((len(diagonal), len(diagonal)))
        for _, piece in _pieces(x, root):
            total += piece.T @ piece
        total[np.diag_indices(len(total))] += diagonal
        self._factor = scipy.linalg.cho_factor(
            total.T, lower=True, overwrite_a=True, check_finite=False
        )
        (solve_lower,) = scipy.linalg.get_blas_funcs(("trsm",), dtype=SINGLE)
        lower = self._factor[0].astype(np.float32, order="F")
        self.rest = np.empty(len(x))
        for rows, piece in _pieces(x, root):
            solved = solve_lower(1, lower, piece.T, lower=1, overwrite_b=1)
            self.rest[rows] = 1 - np.einsum("ij,ij->j", solved, solved)

    def solve(self, values: np.ndarray) -> np.ndarray:
        """Return H⁻¹ values."""
        return scipy.linalg.cho_solve(self._factor, values, check_finite=False)


class Wide:
    """H of fewer images than coordinates, by M; its inverse has one less leverage as diagonal."""

    def __init__(self, x: np.ndarray, root: np.ndarray, diagonal: np.ndarray) -> None:
        self._x, self._root, self._diagonal = x, root[:, None], diagonal[:, None]
        single = x.astype(np.float32)  # twice as fast to multiply, and as exact as `Narrow`
        m = (single @ single.T).astype(np.float64)
        m /= diagonal[0]
        m += 1 / diagonal[-1]
        m *= self._root
        m *= self._root.T
        m[np.diag_indices(len(m))] += 1
        self._factor = scipy.linalg.cho_factor(
            m.T, lower=True, overwrite_a=True, check_finite=False
        )
        (invert_lower,) = scipy.linalg.get_lapack_funcs(("trtri",), dtype=SINGLE)
        inverse, _ = invert_lower(np.tril(self._factor[0]).astype(np.float32, order="F"), lower=1)
        self.rest = np.einsum("ij,ij->j", inverse, inverse, dtype=np.float64)

    def solve(self, values: np.ndarray) -> np.ndarray:
        """Return H⁻¹ values."""
        scaled = values / self._diagonal
        inner = self._root * (self._x @ scaled[:-1] + scaled[-1])
        inner = self._root * scipy.linalg.cho_solve(self._factor, inner, check_finite=False)
        back = np.vstack([self._x.T @ inner, inner.sum(axis=0)])
        return scaled - back / self._diagonal


def _pieces(x: np.ndarray, root: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield rows of A, float32: in single precision products take half the time."""
    step = max(1, PIECE_BYTES // (4 * (x.shape[1] + 1)))
    for start in range(0, len(x), step):
        rows = slice(start, min(start + step, len(x)))
        piece = np.ones((rows.stop - start, x.shape[1] + 1), np.float32)
        piece[:, :-1] = x[rows]
        piece *= root[rows, None].astype(np.float32)
        yield rows, piece
