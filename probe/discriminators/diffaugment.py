"""DiffAugment (Zhao et al. 2020): colour, translation, cutout."""

import torch

from probe.devices import send
from probe.discriminators.draws import Draw, as_float, check_rows


def diffaugment(
    images: torch.Tensor,
    draw: Draw,
    policy: tuple[str, ...] = ("color", "translation", "cutout"),
) -> torch.Tensor:
    """Augment every image by every step of the policy (Zhao et al. 2020, section 4).

    Args:
        images: (N, C, R, R).
        draw: source of the random numbers.
        policy: names from "color", "translation", "cutout", in the order to apply.

    Returns:
        (N, C, R, R), of the given dtype.
    """
    check_rows(images, draw)
    steps = {"color": _jitter, "translation": _translate, "cutout": cutout}
    result = as_float(images)
    for name in policy:
        result = steps[name](result, draw)
    return result.to(images.dtype)


def _jitter(images: torch.Tensor, draw: Draw) -> torch.Tensor:
    """Change brightness, then saturation, then contrast."""
    light, chroma, spread = send(draw.uniform(3, 1, 1, 1), images).unbind(1)
    images = images + (light - 0.5)
    grey = images.mean(dim=1, keepdim=True)
    images = grey + (images - grey) * (2 * chroma)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (images - mean) * (spread + 0.5)


def _translate(images: torch.Tensor, draw: Draw) -> torch.Tensor:
    """Shift by whole pixels, up to an eighth of the side along each axis, filling with 0."""
    side = images.shape[-1]
    reach = int(side / 8 + 0.5)
    shift = send(draw.integers(2 * reach + 1, 2, 1) - reach, images.device)
    source = torch.arange(side, device=images.device) - shift  # (N, 2, R): rows, columns
    inside = (source >= 0) & (source < side)
    rows, columns = source.clamp(0, side - 1).unbind(1)
    images = images.gather(2, rows[:, None, :, None].expand_as(images))
    images = images.gather(3, columns[:, None, None, :].expand_as(images))
    return images * (inside[:, 0, :, None] & inside[:, 1, None, :])[:, None]


def cutout(images: torch.Tensor, draw: Draw, size: float = 0.5) -> torch.Tensor:
    """Fill a square of every image with 0, mid grey.

    The centre is uniform over the image: on pixel edges, both borders included, if the square has
    an even side, else on pixel centres. The image clips the square. At half the side it masks 18 %
    of the area on average at 16 px and 19 % at high resolutions.

    Args:
        images: (N, C, R, R).
        draw: source of the random numbers.
        size: side of the square, as a fraction of the image's side.

    Returns:
        (N, C, R, R).
    """
    check_rows(images, draw)
    side = images.shape[-1]
    length = int(size * side + 0.5)
    places = side + 1 - length % 2
    first = send(draw.integers(places, 2, 1) - length // 2, images.device)
    pixels = torch.arange(side, device=images.device)
    hit = (pixels >= first) & (pixels < first + length)  # (N, 2, R): rows, columns
    return images.masked_fill((hit[:, 0, :, None] & hit[:, 1, None, :])[:, None], 0)
