"""The checks that every metric makes on its feature tables."""

import numpy as np

from probe.errors import ProbeError


def check_pair(real: np.ndarray, fake: np.ndarray) -> None:
    """Check two feature tables (N, d) and (M, d).

    Raises:
        ProbeError: not two tables of equal width, fewer than two rows, or values not finite.
    """
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1] or real.shape[1] == 0:
        raise ProbeError(
            f"Features of reals {real.shape} and fakes {fake.shape} do not go together; two "
            "tables of the same width are needed."
        )
    for name, table in (("real", real), ("generated", fake)):
        if len(table) < 2:
            raise ProbeError(f"A distance needs two {name} images or more, not {len(table)}.")
        if not np.isfinite(table).all():
            raise ProbeError(f"The features of the {name} images hold NaN or infinite values.")
