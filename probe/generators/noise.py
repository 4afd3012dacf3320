"""Per-pixel noise: a pure function of (key of a sample, number of a layer, position).

A counter-based generator in tensor operations, so a GPU draws a batch without a call per image,
gives what a CPU gives up to rounding, and no image depends on its neighbours.
"""

import math

import torch

VERSION = 2  # 1 was torch's own generator, seeded for every image; part of the keys of images

_TURN = 0x9E3779B97F4A7C15 - 2**64  # 2^64 over the golden ratio, as a signed number


def normal_noise(keys: torch.Tensor, number: int, shape: tuple[int, ...]) -> torch.Tensor:
    """Return standard normal numbers (N, *shape), float32, on the device of the keys.

    Args:
        keys: int64 (N,), one per sample; see `probe.streams.stream_keys`.
        number: which noise of a sample, from 0 to 2^31 - 1; each has numbers of its own.
        shape: of one sample's noise.
    """
    count = math.prod(shape)
    pairs = (count + 1) // 2
    positions = torch.arange(pairs, device=keys.device) + (number << 32)
    # Positions are scrambled before they meet the key, so that two keys never give one sequence
    # with an offset. Both scrambles are bijective: a sample never meets the same value twice.
    bits = _scramble(_scramble(positions.mul_(_TURN)) ^ keys[:, None])
    low, high = bits.view(torch.int32).unflatten(1, (pairs, 2)).unbind(2)
    # Box and Muller (1958): a uniform number in (0, 1] gives the radius, another the angle.
    radius = (low & 0x7FFFFFFF).float().add_(1).mul_(2**-31).log_().mul_(-2).sqrt_()
    angle = high * (math.pi / 2**31)
    noise = torch.stack((angle.cos(), angle.sin_()), dim=1).mul_(radius[:, None])
    return noise.flatten(1)[:, :count].view(len(keys), *shape)


def _scramble(x: torch.Tensor) -> torch.Tensor:
    """Apply the finaliser of SplitMix64 (Steele et al. 2014) in place; int64 wraps around.

    int64 shifts repeat the sign, so the bits they shift in are masked off.
    """
    x ^= (x >> 30) & (2**34 - 1)
    x *= 0xBF58476D1CE4E5B9 - 2**64
    x ^= (x >> 27) & (2**37 - 1)
    x *= 0x94D049BB133111EB - 2**64
    x ^= (x >> 31) & (2**33 - 1)
    return x
