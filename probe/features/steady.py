"""Check that an image has one feature, independent of its batch and of repeated runs.

Dropout left on, BatchNorm in training mode and the like go unnoticed in a ranking: it prints scores
that nobody can reproduce.
"""

from collections.abc import Callable

import numpy as np
import torch

from probe.errors import BackboneBroken

FEW = 3  # images of the batch to run again
# Tolerated rounding, as a share of the features' size, for an image at another position in a batch
# of another size. On CPUs the maximum was 1.5e-6 in float32 and 0 in bf16; GPUs choose other
# kernels for other batches.
ROUNDING = {"fp32": 3e-4, "tf32": 1e-2, "bf16": 3e-2}
SPREAD = 0.02  # tolerated too, as a share of the spread between images
# The same batch runs the same kernels again, except any that a compiler has fused in between. On
# CPUs nothing changes.
REPEATING = {"fp32": 1e-4, "tf32": 1e-3, "bf16": 5e-3}

Run = Callable[[torch.Tensor], np.ndarray]


def require_steady(run: Run, images: torch.Tensor, features: np.ndarray, precision: str) -> None:
    """Check that a few images get the same features again, in another order and batch.

    Args:
        run: images in one batch → features, float32 (N, d).
        images: uint8 (N, 3, R, R).
        features: their first features, float32 (N, d).
        precision: that `run` computes in, "fp32", "tf32" or "bf16".

    Raises:
        BackboneBroken: if they do not.
    """
    few = images[:FEW]
    batch = torch.cat([255 - few, few.flip(0)])  # negatives have statistics unlike any photograph
    first = features[: len(few)].astype(np.float64)
    again = run(batch)
    change = _size(run(batch) - again)
    if change > REPEATING[precision] * _size(again):
        how, where = "are random", "in the same batch"
    else:
        change = _size(again[len(few) :][::-1] - first)
        allowed = ROUNDING[precision] * _size(first) + SPREAD * _size(first - first.mean(axis=0))
        if change <= allowed:
            return
        how, where = "depend on the other images of the batch", "in another batch"
    share = change / (_size(first) or change)
    raise BackboneBroken(
        f"its features {how}: they changed by {share:.1%} when {len(few)} images were run again "
        f"{where}",
        "save the network in evaluation mode, without dropout, noise or batch statistics",
    )


def _size(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64))))
