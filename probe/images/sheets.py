"""Sample sheets of training runs: grids of many small images, which are no images to be ranked."""

import re
from collections import defaultdict
from pathlib import PurePosixPath

from probe.errors import ImagesError, printable
from probe.images.files import FileSource

# As the trainers of the StyleGAN family name them, and ours; the digits are thousands of images.
FAKES = re.compile(r"fakes\d{6}.*\.(png|jpe?g)")
FIRST = re.compile(r"fakes_init\.(png|jpe?g)")
REALS = re.compile(r"reals\.(png|jpe?g)")


def refuse_sheets(source: FileSource) -> None:
    """Refuse images that a training run has left as its samples.

    Names decide. Where there are nothing but numbered fakes, which may be single images as well,
    it is their shape: images are square, sheets are rarely.

    Raises:
        ImagesError: some of them are sheets; they are named.
    """
    by_folder = defaultdict(list)
    for index, name in enumerate(source.names):
        by_folder[PurePosixPath(name).parent].append(index)
    for indices in by_folder.values():
        kinds = {i: kind for i in indices if (kind := _kind(source.names[i])) is not None}
        found = set(kinds.values())
        if FIRST in found or {FAKES, REALS} <= found or _are_wide(source, kinds, indices):
            first, more = printable(source.names[min(kinds)], 100), len(kinds) - 1
            raise ImagesError(
                f"{source.name}: holds sample sheets of a training run ({first}"
                f"{f' and {more} more' if more else ''}), not single images. Take them out or name "
                "a folder of images; --gen takes the run itself, by its snapshots."
            )


def _kind(name: str) -> re.Pattern[str] | None:
    base = PurePosixPath(name).name
    return next((kind for kind in (FAKES, FIRST, REALS) if kind.fullmatch(base)), None)


def _are_wide(source: FileSource, kinds: dict[int, re.Pattern[str]], indices: list[int]) -> bool:
    """Return whether numbered fakes are all there is in a folder, the first of them not square."""
    if len(kinds) < len(indices) or set(kinds.values()) != {FAKES}:
        return False
    header = source.headers([min(kinds)])[0]
    return header is not None and header.size[0] != header.size[1]
