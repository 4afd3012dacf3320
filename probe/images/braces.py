"""Paths that stand for many: `shards/{00000..00150}.tar`, `{train,val}.tar`."""

import re
from itertools import product

from probe.errors import UsageError

PART = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"(\d{1,12})\.\.(\d{1,12})")
MOST_PATHS = 100_000


def has_braces(place: str) -> bool:
    """Return whether a path or URL holds a range or a list in braces."""
    return any(RANGE.fullmatch(part) or "," in part for part in PART.findall(place))


def expand(place: str) -> list[str]:
    """Return the paths that a path with braces stands for, in the order of the shell's.

    Numbers are padded with zeros as the range's ends are.

    Raises:
        UsageError: if they are more than 100 000.
    """
    texts, choices, count = PART.split(place)[::2], [], 1
    for part in PART.findall(place):
        found = RANGE.fullmatch(part)
        if found is None:
            options: list[str] | range = part.split(",") if "," in part else [f"{{{part}}}"]
        else:
            first, last = int(found[1]), int(found[2])
            options = range(first, last + 1) if first <= last else range(first, last - 1, -1)
        count *= len(options)
        if count > MOST_PATHS:
            raise UsageError(
                f"{place}: stands for more than {MOST_PATHS} files. Name fewer, or pack them into "
                "larger ones."
            )
        if found is not None:
            width = max(map(len, found.groups())) if "0" in (found[1][0], found[2][0]) else 0
            options = [f"{number:0{width}}" for number in options]
        choices.append(options)
    return [
        "".join(part for pair in zip(texts, (*chosen, ""), strict=True) for part in pair)
        for chosen in product(*choices)
    ]
