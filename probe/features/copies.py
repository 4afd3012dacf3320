"""Repeated images, within one set or across both: count, name and refuse them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import numpy as np

from probe.errors import ImagesError
from probe.features.pair import PairFeatures
from probe.images.base import ImageSource

SHOWN = 3  # examples per sentence
SETS = ("real", "generated")
ADVICE = (
    "Remove the copies: they add no information.",
    "The generator repeats itself, or files were copied.",
)


def group(keys: Sequence[str] | Sequence[bytes]) -> np.ndarray:
    """Return, per image, the position of the first one with its content key, int64 (n,)."""
    first: dict[str | bytes, int] = {}
    return np.array([first.setdefault(key, i) for i, key in enumerate(keys)], dtype=np.int64)


@dataclass(frozen=True)
class Copies:
    """Which images are the same, among reals and generated images.

    Attributes:
        groups: int64 (n,), reals first: equal numbers for equal images.
        names: the images' names, in the same order.
        n_real: how many of them are real.
        by_looks: whether images that look alike count as equal.
    """

    groups: np.ndarray
    names: Sequence[str]
    n_real: int
    by_looks: bool = False

    def require(self, least: int, sources: Sequence[str], *, apart: bool) -> None:
        """Check that each set has enough distinct images.

        Args:
            least: how many are needed.
            sources: names of the two sets.
            apart: count only images that are not in the other set too.

        Raises:
            ImagesError: if a set has fewer; says what is repeated.
        """
        for own, other, source in zip(self._sets, self._sets[::-1], sources, strict=True):
            left = len(own.keys() - other.keys() if apart else own)
            if left < least:
                also = " and images of the other set" if apart else ""
                raise ImagesError(
                    f"{source}: leaving out copies{also} leaves {left} of {_count(own)} images; at "
                    f"least {least} are needed. {' '.join(self.remarks())}"
                )

    def remarks(self) -> list[str]:
        """Return what a reader must know, as sentences; none if there are no copies."""
        remarks = []
        real, generated = self._sets
        if shared := real.keys() & generated.keys():
            counts = [sum(len(own[number]) for number in shared) for own in self._sets]
            also, advice = "", "remove them from one set"
            if self.by_looks:
                also = " or look like images of the other"
                advice += ", unless the generator repeats what it was trained on"
            pairs = [(real[number][0], generated[number][0]) for number in shared]
            remarks.append(
                f"{counts[0]} of {_count(real)} real and {counts[1]} of {_count(generated)} "
                f"generated images are in both sets{also} ({self._some(pairs)}). They make the "
                f"sets seem more alike than they are: {advice}."
            )
        for own, name, advice in zip(self._sets, SETS, ADVICE, strict=True):
            if len(own) < _count(own):
                also = " or look like others" if self.by_looks else ""
                pairs = [(names[0], names[1]) for names in own.values() if len(names) > 1]
                remarks.append(
                    f"{_count(own) - len(own)} of {_count(own)} {name} images are copies of others "
                    f"in their set{also} ({self._some(pairs)}), which leaves {len(own)}. {advice}"
                )
        return remarks

    @cached_property
    def _sets(self) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
        """The image names of each group, for the reals and for the generated images."""
        sets: tuple[dict[int, list[str]], dict[int, list[str]]] = ({}, {})
        for i, number in enumerate(self.groups.tolist()):
            sets[i >= self.n_real].setdefault(number, []).append(self.names[i])
        for names in chain(*(own.values() for own in sets)):
            names.sort()
        return sets

    def _some(self, pairs: list[tuple[str, str]]) -> str:
        equal = " ~ " if self.by_looks else " = "
        more = ", …" if len(pairs) > SHOWN else ""
        return ", ".join(equal.join(pair) for pair in sorted(pairs)[:SHOWN]) + more


def _count(own: dict[int, list[str]]) -> int:
    return sum(map(len, own.values()))


def find_copies(real: ImageSource, fake: ImageSource, found: PairFeatures) -> Copies:
    """Return which of the images in use have the same content key."""
    keys, used = found.keys, found.indices
    return Copies(
        groups=group([*keys["real"], *keys["fake"]]),
        names=[*real.captions(used["real"]), *fake.captions(used["fake"])],
        n_real=len(keys["real"]),
    )
