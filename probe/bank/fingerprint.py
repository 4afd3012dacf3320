"""What a network makes of two pictures, in eight numbers: a library that changes it is noticed.

The numbers are sums of the pooled feature with alternating signs, in float32 on a CPU. Threads,
instruction sets, memory layouts and merged layers move them by about 1e-6 of their size, and by
1e-5 in deep networks. Another resize, activation or epsilon moves them by 1e-2 and more. The
tolerance lies between, far from both.
"""

import math
from collections.abc import Sequence

import torch

from probe.bank.base import Backbone
from probe.bundled import DEMO_REALS
from probe.images.open import open_images

PICTURES = 2
# A component's sign is the parity of its index's bits under a mask, so that no component is left
# out and a permutation of channels is noticed.
MASKS = (0b1, 0b110, 0b11001, 0b1010111)
TOLERANCE = 1e-3  # of the numbers' size


@torch.inference_mode()
def fingerprint(backbone: Backbone) -> tuple[float, ...]:
    """Return eight numbers, four for each of two bundled pictures.

    Args:
        backbone: on the CPU, in float32.
    """
    source = open_images(DEMO_REALS)
    pictures = source.load(range(PICTURES), source.resolution).images
    with torch.autocast("cpu", enabled=False):
        features = backbone(pictures.float() / 255).double()
    signs = torch.tensor(
        [[1 - 2 * ((i & mask).bit_count() % 2) for mask in MASKS] for i in range(backbone.dim)]
    )
    numbers = (features @ signs.double() / math.sqrt(backbone.dim)).flatten()
    return tuple(float(f"{number:.6g}") for number in numbers.tolist())


def changed(recorded: Sequence[float], found: Sequence[float]) -> str | None:
    """Return a clause that says by how much a network has changed; None if it has not."""
    size = math.hypot(*recorded) or 1.0
    off = math.dist(recorded, found) / size
    if off <= TOLERANCE:
        return None
    return (
        f"its features are not those of its recorded fingerprint (off by {off:.2g} of their size, "
        f"where rounding stays below {TOLERANCE:g}): a library now computes the network or its "
        "input in another way, and scores do not compare with earlier ones"
    )
