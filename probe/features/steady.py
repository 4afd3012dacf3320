"""Whether an image has one feature, whatever stands beside it in a batch and however often it runs.

Dropout that is still on, BatchNorm in training mode and the like pass unseen through a ranking:
scores come out, and nobody gets them again.
"""

from collections.abc import Callable

import numpy as np
import torch

from probe.errors import BackboneBroken

FEW = 3  # images of the batch that are run again
# What rounding may change, as a share of the features' size, where an image stands elsewhere in a
# batch of another size. On CPUs 1.5e-6 was the most in float32, and nothing in bf16; GPUs choose
# other kernels for other batches.
ROUNDING = {"fp32": 3e-4, "bf16": 3e-2}
SPREAD = 0.02  # and as a share of what tells images apart
# The same batch again runs the same kernels, but for those that a compiler fuses meanwhile. On CPUs
# nothing changes.
REPEATING = {"fp32": 1e-4, "bf16": 5e-3}

Run = Callable[[torch.Tensor], np.ndarray]


def require_steady(run: Run, images: torch.Tensor, features: np.ndarray, precision: str) -> None:
    """Check that a few images get the same features again, in another order and other company.

    Args:
        run: images in one batch → features, float32 (N, d).
        images: uint8 (N, 3, R, R).
        features: what they got, float32 (N, d).
        precision: in which `run` computes, "fp32" or "bf16".

    Raises:
        BackboneBroken: they do not.
    """
    few = images[:FEW]
    batch = torch.cat([255 - few, few.flip(0)])  # negatives: other statistics than any photograph's
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
