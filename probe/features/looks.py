"""Near-duplicates: images that look alike although their bytes differ."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from probe.context import Context
from probe.errors import ImagesError
from probe.events import Note
from probe.features.copies import Copies
from probe.features.pair import KINDS, PairFeatures
from probe.features.space import PIPELINE
from probe.features.store import digest_keys
from probe.images.base import ImageSource

SIDE = 16  # pixels per side at which images are compared
# Root mean square, out of 255, below which two images look the same: 32 px noise re-saved as JPEG
# reaches 4, emoji that differ in one detail begin at 5.
NEAR = 5.0
PART = 256


def thumbnails(
    source: ImageSource, indices: Sequence[int]
) -> tuple[np.ndarray, list[int], set[str]]:
    """Return images as uint8 (M, 3, 16, 16), their indices, and the names of broken ones."""
    parts, kept, broken = [np.zeros((0, 3, SIDE, SIDE), np.uint8)], [], set()
    for start in range(0, len(indices), PART):
        batch = source.load(indices[start : start + PART], SIDE)
        parts.append(batch.images.numpy())
        kept += batch.indices
        broken |= {b.name for b in batch.broken.values()}
    return np.concatenate(parts), kept, broken


def pixel_differences(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return how far images are from others, as given or mirrored, whichever is nearer.

    Args:
        images: uint8 (n, 3, s, s).
        others: uint8 (m, 3, s, s).

    Returns:
        Root mean squares, float32 (n, m), from 0 to 255.
    """
    pool = _flat(others)
    squares = np.square(pool).sum(axis=1)
    least = np.full((len(images), len(others)), np.inf, np.float32)
    for version in (_flat(images), _flat(images[..., ::-1])):
        found = np.square(version).sum(axis=1)[:, None] + squares - 2 * version @ pool.T
        np.minimum(least, found, out=least)
    return np.sqrt(np.maximum(least, 0) / pool.shape[1])


def _flat(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1).astype(np.float32) - 127.5


def nearest_images(images: np.ndarray, others: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Return each image's nearest other image and its distance; see `pixel_differences`.

    Args:
        images: uint8 (n, 3, s, s).
        others: the images to search; None searches `images`, except each image itself.

    Returns:
        Indices (n,), and root mean squares (n,).
    """
    where, far = np.zeros(len(images), dtype=int), np.zeros(len(images), np.float32)
    for start in range(0, len(images), PART):
        part = slice(start, start + PART)
        found = pixel_differences(images[part], images if others is None else others)
        rows = np.arange(len(found))
        if others is None:
            found[rows, start + rows] = np.inf
        where[part] = found.argmin(axis=1)
        far[part] = found[rows, where[part]]
    return where, far


def join_alike(groups: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Merge groups whose images look alike, directly or through other images.

    Args:
        groups: int (n,), below n: equal for images already in one group.
        images: uint8 (n, 3, s, s).
    """
    n = len(groups)
    for start in range(0, n, PART):
        here = groups[start : start + PART]
        alike = pixel_differences(images[start : start + PART], images[start:]) < NEAR
        rows, columns = np.nonzero(alike & (here[:, None] != groups[start:]))
        ends = here[rows], groups[start + columns]
        graph = coo_array((np.ones(len(rows), bool), ends), shape=(n, n))
        joined = connected_components(graph, directed=False)[1][groups]
        _, first, inverse = np.unique(joined, return_index=True, return_inverse=True)
        groups = first[inverse]  # the position of the group's first image
    return groups


def count_look_alikes(
    copies: Copies,
    sources: Sequence[ImageSource],
    found: PairFeatures,
    ctx: Context,
) -> Copies:
    """Return copies that also count images of both sets that look alike.

    Args:
        copies: by content key.
        sources: the real images and the generated ones, which are decoded or drawn once more.
        found: which of them are used.
        ctx: its store caches the result.

    Raises:
        ImagesError: if images can no longer be read.
    """
    keys = [key for kind in KINDS for key in found.keys[kind]]
    record = {"looks": [SIDE, NEAR], "pipeline": PIPELINE, "images": digest_keys(keys)}
    arrays = ctx.store.recall(record)
    if arrays is None:
        ctx.on_event(Note(f"Comparing {len(keys)} images by their looks."))
        images = []
        for kind, source in zip(KINDS, sources, strict=True):
            decoded, kept, _ = thumbnails(source, found.indices[kind])
            if lost := len(found.indices[kind]) - len(kept):
                raise ImagesError(f"{source.name}: {lost} images became unreadable. Rank again.")
            images.append(decoded)
        arrays = {"groups": join_alike(copies.groups, np.concatenate(images))}
        ctx.store.remember(record, arrays)
    return replace(copies, groups=arrays["groups"], by_looks=True)
