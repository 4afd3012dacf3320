"""Refuse training runs' sample sheets: grids of small images, which cannot be ranked."""

import re
from collections import Counter, defaultdict

import numpy as np

from probe.errors import ImagesError
from probe.images.base import ImageSource

# As the StyleGAN family's trainers and ours name them; the digits are thousands of images.
FAKES = re.compile(r"fakes\d{6}.*\.(png|jpe?g)")
FIRST = re.compile(r"fakes_init\.(png|jpe?g)")
REALS = re.compile(r"reals\.(png|jpe?g)")
NAMES = 100_000  # looked at; no training run leaves as many sheets


def refuse_sheets(source: ImageSource) -> None:
    """Refuse images that a training run has left as samples.

    The name decides. If a folder has only numbered fakes, they may be anyone's images, so the shape
    decides: generated images are square and sheets rarely are.

    Raises:
        ImagesError: if some of them are sheets; names them.
    """
    looked_at = np.unique(np.linspace(0, len(source) - 1, min(len(source), NAMES)).astype(int))
    indices = looked_at.tolist()
    names = dict(zip(indices, source.captions(indices), strict=True))
    kinds = {i: kind for i, name in names.items() if (kind := _kind(name)) is not None}
    by_folder = defaultdict(list)
    for index in kinds:
        by_folder[_folder(names[index])].append(index)
    sizes = Counter(map(_folder, names.values())) if kinds else Counter()
    for folder, indices in by_folder.items():
        found = {kinds[i] for i in indices}
        is_run = FIRST in found or {FAKES, REALS} <= found
        only_fakes = found == {FAKES} and len(indices) == sizes[folder]
        if is_run or (only_fakes and not _is_square(source, indices[0])):
            more = f" and {len(indices) - 1} more" if len(indices) > 1 else ""
            raise ImagesError(
                f"{source.name}: holds sample sheets of a training run ({names[indices[0]]}{more}),"
                " not single images. Take them out or name a folder of images; --gen takes the run "
                "itself, by its snapshots."
            )


def _folder(name: str) -> str:
    return name.rpartition("/")[0]


def _kind(name: str) -> re.Pattern[str] | None:
    base = name.rpartition("/")[2]
    return next((kind for kind in (FAKES, FIRST, REALS) if kind.fullmatch(base)), None)


def _is_square(source: ImageSource, index: int) -> bool:
    """Return whether an image is square, or broken."""
    header = source.headers([index])[0]
    return header is None or header.size[0] == header.size[1]
