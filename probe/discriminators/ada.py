"""ADA's "bgc" pipeline (Karras et al. 2020b, appendix B): blits, general geometry, colour."""

import math
from collections.abc import Callable
from functools import lru_cache

import torch
from torch.nn import functional as F

from probe.devices import send
from probe.discriminators.bilinear import sample_bilinear
from probe.discriminators.draws import Draw, as_float, check_rows

# Low-pass filter of the sym6 wavelet (Daubechies' least asymmetric one with six vanishing moments,
# 1992). It is orthonormal to its even shifts, so filtering up and then down by 2 restores the
# signal exactly.
SYM6 = (
    0.015404109327027373,
    0.0034907120842174702,
    -0.11799011114819057,
    -0.048311742585633,
    0.4910559419267466,
    0.787641141030194,
    0.3379294217276218,
    -0.07263752278646252,
    -0.021060292512300564,
    0.04472490177066578,
    0.0017677118642428036,
    -0.007800708325034148,
)
CENTRE = 5  # index of the tap for the pixel itself; the centre of mass is at 5.098


def ada(images: torch.Tensor, p: torch.Tensor | float, draw: Draw) -> torch.Tensor:
    """Apply each transformation of "bgc" to each image with probability p.

    Images that no transformation hits are returned unchanged, bit for bit. The result is affine in
    the images and twice differentiable, as R1 at the images requires.

    Args:
        images: (N, C, R, R) in about [-1, 1], C 3 or 1, R at least 8. Computed in float32, or in
            float64 for float64 images.
        p: the probability, a scalar.
        draw: source of the random numbers; advances equally for every p.

    Returns:
        (N, C, R, R), of the given dtype.
    """
    check_rows(images, draw)
    p = float(p)
    geometry = geometric_matrices(draw, p, images.shape[-1])
    colour = colour_matrices(draw, p)
    with torch.autocast(images.device.type, enabled=False):
        result = _transform_rows(as_float(images), geometry, warp)
        result = _transform_rows(result, colour, recolour)
    return result.to(images.dtype)


def geometric_matrices(draw: Draw, p: float, side: int) -> torch.Tensor:
    """Draw one geometric transformation per sample.

    Returns:
        (count, 3, 3), float64 on the CPU; maps homogeneous (x, y, 1), in pixels from the image's
        centre, from the given image to the augmented one. Exactly the identity if nothing
        applies.
    """
    pick = _Gate(draw)
    flip = pick(draw.integers(2), p)
    turns = pick(draw.integers(4), p)
    shift = pick(draw.uniform(2).double().mul(2).sub(1).mul(0.125 * side).round(), p)
    # Each rotation's probability is chosen so that at least one applies with probability p.
    p_rotation = 1 - math.sqrt(1 - p)
    zoom = pick(0.2 * draw.normal(), p).exp2()
    before = pick(_angle(draw), p_rotation)
    stretch = pick(0.2 * draw.normal(), p).exp2()
    after = pick(_angle(draw), p_rotation)
    fraction = pick(0.125 * side * draw.normal(2), p)
    matrix = scaling(1 - 2 * flip, torch.ones_like(flip))
    for step in (
        rotation(turns * (math.pi / 2)),
        translation(*shift.unbind(1)),
        scaling(zoom, zoom),
        rotation(before),
        scaling(stretch, 1 / stretch),
        rotation(after),
        translation(*fraction.unbind(1)),
    ):
        matrix = step @ matrix
    return matrix


def colour_matrices(draw: Draw, p: float) -> torch.Tensor:
    """Draw one colour transformation per sample.

    Returns:
        (count, 4, 4), float64 on the CPU; maps homogeneous (red, green, blue, 1), each in
        [-1, 1]. Exactly the identity if nothing applies.
    """
    pick = _Gate(draw)
    matrix = brightness(pick(0.2 * draw.normal(), p))
    for step in (
        contrast(pick(0.5 * draw.normal(), p).exp2()),
        luma_flip(pick(draw.integers(2), p)),
        hue(pick(_angle(draw), p)),
        saturation(pick(draw.normal(), p).exp2()),
    ):
        matrix = step @ matrix
    return matrix


class _Gate:
    """Keeps each sample's value with a given probability, else replaces it by 0 (no change)."""

    def __init__(self, draw: Draw) -> None:
        self.draw = draw

    def __call__(self, value: torch.Tensor, p: float) -> torch.Tensor:
        keep = self.draw.uniform() < p
        return value.double() * keep.reshape(-1, *[1] * (value.ndim - 1))


def _angle(draw: Draw) -> torch.Tensor:
    """Draw angles uniformly from the full circle, in radians."""
    return (2 * draw.uniform().double() - 1) * math.pi


def _affine(*rows: tuple[torch.Tensor | float, ...]) -> torch.Tensor:
    """Stack rows, entries (N,) or numbers, into affine matrices (N, n + 1, n + 1)."""
    entries = [entry for row in (*rows, (*[0.0] * len(rows), 1.0)) for entry in row]
    drawn = next(entry for entry in entries if isinstance(entry, torch.Tensor))
    fixed = {value: torch.full_like(drawn, value) for value in (0.0, 1.0)}
    columns = [e if isinstance(e, torch.Tensor) else fixed[e] for e in entries]
    return torch.stack(columns, dim=1).unflatten(1, (len(rows) + 1, len(rows) + 1))


def translation(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Shift by x to the right and y down; (N,), (N,) → (N, 3, 3)."""
    return _affine((1.0, 0.0, x), (0.0, 1.0, y))


def scaling(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Scale the two axes; (N,), (N,) → (N, 3, 3)."""
    return _affine((x, 0.0, 0.0), (0.0, y, 0.0))


def rotation(angle: torch.Tensor) -> torch.Tensor:
    """Rotate clockwise on screen, since y points down; radians (N,) → (N, 3, 3)."""
    cos, sin = angle.cos(), angle.sin()
    return _affine((cos, -sin, 0.0), (sin, cos, 0.0))


def brightness(amount: torch.Tensor) -> torch.Tensor:
    """Add the amount to all channels; (N,) → (N, 4, 4)."""
    return _affine((1.0, 0.0, 0.0, amount), (0.0, 1.0, 0.0, amount), (0.0, 0.0, 1.0, amount))


def contrast(factor: torch.Tensor) -> torch.Tensor:
    """Multiply all channels; (N,) → (N, 4, 4)."""
    return _affine((factor, 0.0, 0.0, 0.0), (0.0, factor, 0.0, 0.0), (0.0, 0.0, factor, 0.0))


def luma_flip(on: torch.Tensor) -> torch.Tensor:
    """Negate the luma and keep the chroma if `on` is 1, do nothing if 0; (N,) → (N, 4, 4)."""
    return _along_and_across_luma(1 - 2 * on, torch.ones_like(on))


def saturation(factor: torch.Tensor) -> torch.Tensor:
    """Keep the luma and multiply the chroma; (N,) → (N, 4, 4)."""
    return _along_and_across_luma(torch.ones_like(factor), factor)


def _along_and_across_luma(along: torch.Tensor, across: torch.Tensor) -> torch.Tensor:
    """Scale colours along the grey axis and in the plane across it; (N,), (N,) → (N, 4, 4)."""
    # Luma here is the plain mean: the axis is (1, 1, 1) / sqrt(3), its projector 1/3 everywhere.
    mixed = (along - across) / 3
    own = across + mixed
    return _affine((own, mixed, mixed, 0.0), (mixed, own, mixed, 0.0), (mixed, mixed, own, 0.0))


def hue(angle: torch.Tensor) -> torch.Tensor:
    """Rotate colours about the grey axis; radians (N,) → (N, 4, 4)."""
    # Rodrigues' formula for the axis (1, 1, 1) / sqrt(3).
    mean, turn = (1 - angle.cos()) / 3, angle.sin() / math.sqrt(3)
    own = angle.cos() + mean
    minus, plus = mean - turn, mean + turn
    return _affine((own, minus, plus, 0.0), (plus, own, minus, 0.0), (minus, plus, own, 0.0))


def _transform_rows(
    images: torch.Tensor,
    matrices: torch.Tensor,
    transform: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """Apply `transform` only to the images whose matrix is not the identity."""
    identity = torch.eye(matrices.shape[-1], dtype=matrices.dtype)
    rows = (matrices != identity).flatten(1).any(1).nonzero().squeeze(1)
    if len(rows) == 0:
        return images
    index = send(rows, images.device)
    return images.index_copy(0, index, transform(images[index], matrices[rows]))


def warp(images: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
    """Warp images by one affine matrix each, with reflection outside the image.

    Reflection padding, upsampling by 2, bilinear sampling, downsampling by 2. The padding is at
    most R - 1 pixels; sampling beyond it reflects once more.

    Args:
        images: (N, C, R, R), R at least 4.
        matrices: (N, 3, 3), float64 on the CPU, see `geometric_matrices`.

    Returns:
        (N, C, R, R).
    """
    n, channels, side, _ = images.shape
    inverse = torch.linalg.inv(matrices)
    margin = _margin(inverse, side)
    up, down = _resamplers(side, images.dtype, images.device)
    inner = 2 * (side - 1 - margin)
    up = up[inner : len(up) - inner]
    # Filtering by products with banded matrices is ten times as fast, forward and backward, as
    # single-channel convolutions (two cores, 64 px).
    x = up @ (images @ up.T)
    theta = _sampling(inverse, side, wide=x.shape[-1], out=down.shape[1])
    size = [n, channels, down.shape[1], down.shape[1]]
    grid = F.affine_grid(send(theta[:, :2], images), size, align_corners=False)
    x = sample_bilinear(x, grid)
    return down @ (x @ down.T)


def _margin(inverse: torch.Tensor, side: int) -> int:
    """Return the padding in pixels that keeps all samples inside the padded image.

    At most side - 1, the limit of a single reflection.
    """
    # The down filter reads from CENTRE half-pixels before the first pixel to 11 - CENTRE after the
    # last; a half-pixel is valid only if all taps of the up filter lie inside.
    half = (side - 1) / 2
    low, high = -half - CENTRE / 2, half + (len(SYM6) - 1 - CENTRE) / 2
    corners = torch.tensor(
        [[x, y, 1.0] for x in (low, high) for y in (low, high)], dtype=inverse.dtype
    )
    reach = (inverse[:, :2] @ corners.T).abs().max().item()
    return min(max(math.ceil(reach - half + CENTRE / 2), 0), side - 1)


@lru_cache(maxsize=8)
@torch.inference_mode(False)
def _resamplers(
    side: int, dtype: torch.dtype, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the matrices that upsample one axis, with the widest padding, and downsample it.

    A narrower padding uses the inner rows of the upsampling matrix: two per pixel.
    """
    up, down = (matrix.to(device, dtype) for matrix in (_upsampler(side), _downsampler(side)))
    return up, down


def _upsampler(side: int) -> torch.Tensor:
    """Return the matrix that pads by side - 1 pixels of reflection and upsamples by 2.

    Half-pixels at the padded border that lack a tap are left out. Row s is the position
    (s + CENTRE) / 2 - (side - 1).

    Returns:
        (2 (3 side - 2) - 10, side).
    """
    taps, margin = _filter(), side - 1
    padded = F.pad(torch.eye(side, dtype=taps.dtype)[:, None], (margin, margin), mode="reflect")
    # y[2 j + e] = sum over i of x[j - i] taps[2 i + e]
    phases = taps.reshape(-1, 2).T.flip(1)[:, None]
    return F.conv1d(padded, phases).permute(2, 1, 0).reshape(-1, side)


def _downsampler(side: int) -> torch.Tensor:
    """Return the matrix that downsamples by 2 along one axis, (side, 2 side + 10).

    Column u is the position (u - CENTRE) / 2.
    """
    taps = _filter()
    matrix = taps.new_zeros(side, 2 * side + len(taps) - 2)
    for row in range(side):
        matrix[row, 2 * row : 2 * row + len(taps)] = taps
    return matrix


def _filter() -> torch.Tensor:
    """Return the filter, normalised to unit norm, (12,), float64."""
    taps = torch.tensor(SYM6, dtype=torch.float64)
    return taps / taps.norm()


def _sampling(inverse: torch.Tensor, side: int, wide: int, out: int) -> torch.Tensor:
    """Express the inverse transformation in `grid_sample` coordinates, [-1, 1] at the edges.

    Args:
        inverse: (N, 3, 3), in pixels from the image's centre.
        side: of the image, in pixels.
        wide: of the upsampled padded image, in half-pixels.
        out: of the image to downsample, in half-pixels.

    Returns:
        (N, 3, 3).
    """

    def centred(length: int, first: float) -> torch.Tensor:
        """Map [-1, 1] to pixels from the centre: `length` half-pixels, the first at `first`."""
        middle = first + (length - 1) / 4 - (side - 1) / 2
        half = torch.tensor([length / 4], dtype=inverse.dtype)
        shift = torch.tensor([middle], dtype=inverse.dtype)
        return translation(shift, shift) @ scaling(half, half)

    # The padding is symmetric: the wide image starts CENTRE half-pixels after -margin.
    margin = (wide + len(SYM6) - 2) / 4 - side / 2
    read = centred(wide, first=CENTRE / 2 - margin)
    write = centred(out, first=-CENTRE / 2)
    return torch.linalg.inv(read) @ inverse @ write


def recolour(images: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
    """Transform colours; a grey image is treated as three equal channels, then averaged.

    Args:
        images: (N, 3, R, R) or (N, 1, R, R).
        matrices: (N, 4, 4), see `colour_matrices`.

    Returns:
        The shape of `images`.
    """
    weights, bias = matrices[:, :3, :3], matrices[:, :3, 3:]
    if images.shape[1] == 1:
        weights = weights.sum(dim=2, keepdim=True).mean(dim=1, keepdim=True)
        bias = bias.mean(dim=1, keepdim=True)
    channels = images.shape[1]
    weights, bias = send(torch.cat([weights, bias], dim=2), images).split([channels, 1], dim=2)
    return torch.baddbmm(bias, weights, images.flatten(2)).reshape(images.shape)
