"""The pictures at the top of a ranking's page: what the first backbone sees, and what all see."""

import base64
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from probe.reports.evidence import SHOWN, Evidence, telling


class Picture(NamedTuple):
    """A picture on the page.

    Attributes:
        data: WebP, base64.
        caption: the image's name.
        note: what is said of it.
    """

    data: str
    caption: str
    note: str


Gallery = tuple[str, list[Picture]]


def pictured(
    positions: Sequence[int], notes: Mapping[int, str], captions: Sequence[str], evidence: Evidence
) -> list[Picture]:
    """Return the pictures of images, of those that have one.

    Args:
        positions: of the images, reals first.
        notes: position → what to say.
        captions: of all images.
        evidence: holds the pictures.
    """
    return [
        Picture(base64.b64encode(evidence.pictures[p]).decode(), captions[p], notes[p])
        for p in positions
        if p in evidence.pictures
    ]


def first_sight(
    logits: np.ndarray, n_real: int, captions: Sequence[str], evidence: Evidence
) -> list[Gallery]:
    """Return what the first backbone takes for most and least alike.

    Args:
        logits: float (n,), its held-out log-odds of "generated", reals first.
        n_real: number of reals.
        captions: of all images.
        evidence: holds the pictures.
    """
    found = telling(logits, n_real)
    notes = {p: f"{logits[p]:+.2f}" for sort in found.values() for p in sort}
    headings = {
        "caught": "Generated, least like the reals",
        "passed": "Generated, most like the reals",
        "accused": "Real, most like the generated",
    }
    return [
        (heading, pictured(found[sort], notes, captions, evidence))
        for sort, heading in headings.items()
    ]


def agreed(
    logits: Sequence[np.ndarray], n_real: int, captions: Sequence[str], evidence: Evidence
) -> list[Gallery]:
    """Return the generated images that most backbones catch, and those that most let pass.

    Args:
        logits: of each ranked backbone, float (n,), reals first; NaN if never held out.
        n_real: number of reals.
        captions: of all images.
        evidence: holds the pictures; images without one are left out.

    Returns:
        Two galleries; none for fewer than two backbones.
    """
    if len(logits) < 2:
        return []
    shown = np.array(sorted(p for p in evidence.pictures if p >= n_real), dtype=int)
    values = np.stack(logits)[:, shown]
    known = np.isfinite(values).all(axis=0)
    shown, values = shown[known], values[:, known]
    catches = (values > 0).sum(axis=0)
    order = np.lexsort((values.mean(axis=0), catches))
    notes = {int(p): f"caught by {n} of {len(logits)}" for p, n in zip(shown, catches, strict=True)}
    few, most = shown[order][:SHOWN].tolist(), shown[order][::-1][:SHOWN].tolist()
    return [
        ("Generated, caught by most", pictured(most, notes, captions, evidence)),
        ("Generated, caught by fewest", pictured(few, notes, captions, evidence)),
    ]
