"""StyleGAN3's signal processing: each layer's sampling rate, cutoff and filters, and resampling.

Nothing here is learned.
"""

import math
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from probe.errors import UsageError
from probe.generators.networks.layers import shapes_only

MOST_SAMPLES = 2**13  # per side, after up-sampling; enough for an image of 4096 px
MOST_TAPS = 128  # of a filter, squared if radial; published networks have 24


@dataclass(frozen=True)
class LayerSettings:
    """The schedule's settings for one layer's output.

    Attributes:
        cutoff: highest frequency kept, in cycles per image side.
        half_width: half of the transition band above the cutoff.
        rate: samples per image side.
        size: samples per side of the feature map, including the margin around the image.
        channels: number of feature maps.
    """

    cutoff: float
    half_width: float
    rate: int
    size: int
    channels: int


def design(
    img_resolution: int,
    img_channels: int,
    *,
    channel_base: int,
    channel_max: int,
    num_layers: int,
    num_critical: int,
    first_cutoff: float,
    first_stopband: float,
    last_stopband_rel: float,
    margin_size: int,
) -> list[LayerSettings]:
    """Return the schedule of layers 0 … num_layers; the last one makes the image.

    Cutoff and stopband grow geometrically from the first layer to the critically sampled last
    layers, where the cutoff reaches img_resolution / 2.

    Raises:
        UsageError: if no network can have these settings.
    """
    if img_resolution < 4 or img_resolution & (img_resolution - 1):
        raise UsageError(
            f"A StyleGAN3 generator has a resolution that is a power of two from 4, not "
            f"{img_resolution}."
        )
    if not 0 <= num_critical < num_layers:
        raise UsageError(f"num_critical is {num_critical}; from 0 to num_layers - 1 is expected.")
    last_cutoff = img_resolution / 2
    last_stopband = last_cutoff * last_stopband_rel
    stages = []
    for i in range(num_layers + 1):
        exponent = min(i / (num_layers - num_critical), 1)
        cutoff = first_cutoff * (last_cutoff / first_cutoff) ** exponent
        stopband = first_stopband * (last_stopband / first_stopband) ** exponent
        rate = 2 ** math.ceil(math.log2(min(2 * stopband, img_resolution)))
        stages.append(
            LayerSettings(
                cutoff=cutoff,
                half_width=max(stopband, rate / 2) - cutoff,
                rate=rate,
                size=img_resolution if i >= num_layers - 1 else rate + 2 * margin_size,
                channels=(
                    img_channels
                    if i == num_layers
                    else round(min(channel_base / 2 / cutoff, channel_max))
                ),
            )
        )
    if min(stage.rate for stage in stages) < 1:
        raise UsageError("A StyleGAN3 layer has a stopband of at least half a sample a side.")
    if not all(stage.channels for stage in stages):
        raise UsageError(f"channel_base is {channel_base}: a layer would have no channels.")
    return stages


def resampling(
    source: LayerSettings, target: LayerSettings, oversampling: int, filter_size: int
) -> tuple[int, int, int, int]:
    """Return a layer's factors and filter lengths: up, down, up_taps, down_taps.

    The non-linearity runs at `oversampling` times the higher of the two rates. A factor of 1
    needs no filter: its length is a single tap.

    Raises:
        UsageError: if a rate or filter would take too much memory or time.
    """
    rate = max(source.rate, target.rate) * oversampling
    if rate > MOST_SAMPLES:
        raise UsageError(f"A StyleGAN3 layer has up to {MOST_SAMPLES} samples a side, not {rate}.")
    up, down = rate // source.rate, rate // target.rate
    if max(up, down) * filter_size > MOST_TAPS:
        raise UsageError(
            f"A StyleGAN3 filter has up to {MOST_TAPS} taps, not {max(up, down) * filter_size}."
        )
    return (
        up,
        down,
        filter_size * up if up > 1 else 1,
        filter_size * down if down > 1 else 1,
    )


def padding(
    size: int, out_size: int, up: int, down: int, up_taps: int, down_taps: int
) -> tuple[int, int]:
    """Return the zeros to add before and after the up-sampled grid; negative values crop.

    Args:
        size: samples per side before up-sampling.
        out_size: samples per side after filtering, up- and down-sampling.
        up: up-sampling factor.
        down: down-sampling factor.
        up_taps: length of the filter after up-sampling.
        down_taps: length of the filter before down-sampling.
    """
    total = (out_size - 1) * down + 1 - size * up + up_taps + down_taps - 2
    before = (total + up) // 2
    return before, total - before


def low_pass_filter(
    taps: int, cutoff: float, half_width: float, rate: float, *, radial: bool = False
) -> torch.Tensor:
    """Return a Kaiser-windowed low-pass of sum 1, float32 (taps,), or (taps, taps) if radial.

    The window follows from the number of taps and the width of the transition band. On the meta
    device only the shape is created, because the values come from a file.
    """
    shape = (taps, taps) if radial else (taps,)
    if shapes_only():
        return torch.empty(shape)
    import numpy as np  # here: scipy is slow to import, and files bring their filters
    from scipy import signal, special

    if not radial:
        f = signal.firwin(taps, cutoff, width=2 * half_width, fs=rate)
    else:
        x = (np.arange(taps) - (taps - 1) / 2) / rate
        r = np.hypot(*np.meshgrid(x, x))
        # An ideal disc of radius f_c in the frequency plane; J1(a r) / r tends to a / 2 at 0.
        centre = r == 0
        r[centre] = 1
        f = np.where(centre, cutoff**2 * np.pi, cutoff * special.j1(2 * np.pi * cutoff * r) / r)
        attenuation = signal.kaiser_atten(taps, 2 * half_width / (rate / 2))
        window = np.kaiser(taps, signal.kaiser_beta(attenuation))
        f = f * np.outer(window, window)
        f = f / f.sum()
    return torch.tensor(f, dtype=torch.float32)


def unused_border(pad: tuple[int, int], up: int, taps: int) -> int:
    """Return how many samples at each edge affect no sample that `upsample` keeps."""
    cut = min(_cut(pad, up, taps))
    return max(0, (cut - taps) // up + 1)


def _cut(pad: tuple[int, int], up: int, taps: int) -> tuple[int, int]:
    """Return how many samples of the full up-sampled convolution to crop before and after."""
    return taps - 1 - pad[0], taps - up - pad[1]


def upsample(
    x: torch.Tensor, f: torch.Tensor, up: int, pad: tuple[int, int], gain: float
) -> torch.Tensor:
    """Insert up - 1 zeros after every sample, pad, then low-pass along both axes.

    Args:
        x: (N, C, h, h).
        f: (T,).
        up: factor.
        pad: zeros before and after the up-sampled grid; negative values crop.
        gain: multiplies the result; up² keeps the signal's magnitude.
    """
    channels, taps = x.shape[1], len(f)
    cut = _cut(pad, up, taps)
    # A strided transposed convolution does both steps but crops both ends by the same amount.
    both = max(0, min(cut))
    kernel = (f * math.sqrt(gain)).to(x.dtype).expand(channels, 1, 1, taps)
    x = F.conv_transpose2d(x, kernel.mT, stride=(up, 1), padding=(both, 0), groups=channels)
    x = F.conv_transpose2d(x, kernel, stride=(1, up), padding=(0, both), groups=channels)
    before, after = both - cut[0], both - cut[1]
    return F.pad(x, (before, after, before, after)) if before or after else x


def downsample(x: torch.Tensor, f: torch.Tensor, down: int) -> torch.Tensor:
    """Low-pass with f, (T,) for both axes or (T, T), without padding; keep every down-th."""
    channels = x.shape[1]
    kernel = f.to(x.dtype).expand(channels, 1, -1 if f.ndim == 2 else 1, -1)
    if f.ndim == 2:
        return F.conv2d(x, kernel, stride=down, groups=channels)
    x = F.conv2d(x, kernel, stride=(1, down), groups=channels)
    return F.conv2d(x, kernel.mT, stride=(down, 1), groups=channels)
