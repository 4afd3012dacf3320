"""Estimate a set's image size, and its range of values beyond 8 bits, from some of its files."""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import or_

from probe.errors import BrokenImageError
from probe.images.base import Broken
from probe.images.decode import deep_values
from probe.images.depth import MAY_BE_DEEP, NAMES, Extent, Spans, span_of
from probe.images.encoded import open_image
from probe.images.limits import map_threads


@dataclass(frozen=True)
class Survey:
    """The result of a survey.

    Attributes:
        looked_at: number of files.
        sides: short side in pixels → number of images with it.
        deep: kind of values of more than 8 bits (`deep_type`) → their extents, image by image.
        broken: the unreadable files.
    """

    looked_at: int
    sides: Counter[int]
    deep: dict[str, list[Extent]]
    broken: list[Broken]

    @cached_property
    def spans(self) -> Spans:
        """The values that map to black and white, by kind."""
        return {kind: span_of(kind, reduce(or_, found)) for kind, found in self.deep.items()}

    def notes(self, name: str) -> list[str]:
        """Return a sentence about each kind of values, for readers of a result.

        Args:
            name: of the set.
        """
        notes = []
        for kind, found in self.deep.items():
            whole, span = reduce(or_, found), self.spans[kind]
            notes.append(
                f"{name}: {len(found)} of {self.looked_at} files looked at are {NAMES[kind]}, with "
                f"values from {whole.low:g} to {whole.high:g}; {span.low:g} is taken for black and "
                f"{span.high:g} for white."
            )
        return notes


def survey(
    indices: Sequence[int],
    opened: Callable[[int], AbstractContextManager[bytes]],
    name: Callable[[int], str],
) -> Survey:
    """Examine some files of a set.

    Args:
        indices: the files to examine.
        opened: index → the file's bytes, or BrokenImageError.
        name: index → the file's name in messages.
    """

    def look(index: int) -> tuple[int, tuple[str, Extent] | None] | Broken:
        try:
            with opened(index) as data:
                side = min(open_image(data).size)
                return side, deep_values(data) if MAY_BE_DEEP.match(data) else None
        except BrokenImageError as error:
            return Broken(name(index), str(error))

    seen = map_threads(look, indices)
    whole = [found for found in seen if not isinstance(found, Broken)]
    deep: dict[str, list[Extent]] = {}
    for _, values in whole:
        if values is not None:
            deep.setdefault(values[0], []).append(values[1])
    return Survey(
        looked_at=len(seen),
        sides=Counter(side for side, _ in whole),
        deep=deep,
        broken=[found for found in seen if isinstance(found, Broken)],
    )
