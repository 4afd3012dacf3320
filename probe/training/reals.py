"""The training images: what is known of them before the first step, and how they are read.

A set that fits in memory is decoded once and kept. Of a larger one, only a sample is examined; the
names, sizes and dates of its files say whether it is the same set, and what is broken or has
changed is left out when it is met.
"""

import hashlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.nn import functional as F

from probe.errors import ImagesError, ProbeError, UsageError
from probe.features.copies import Copies, group
from probe.files import digest_json
from probe.images.base import Broken, ImageSource
from probe.images.decode import describe_broken, name_broken
from probe.images.subset import Subset
from probe.probing.config import LEAST_IMAGES
from probe.streams import numpy_stream

MEMORY = 1 * 2**30  # bytes of decoded images to keep
PART = 256
LOOKED_AT = 1000  # images that are examined of a set too large for memory
MARKED = 10_000  # images whose marks are hashed at a time
TRIES = 100  # images in a row that may be unreadable


@dataclass(frozen=True)
class Reals:
    """The images of a run.

    Attributes:
        training: the images to train on.
        holdout: images kept out of training, along with their copies; may be empty.
        resolution: side in pixels at which they are used.
        c_dim: number of classes, 0 for an unconditional run.
        looked_at: number of images that were examined.
        broken: those of them that were skipped.
        copies: which of the usable ones are duplicates.
        digest: identifies the images and how they are split.
        pixels: uint8 (len(training), 3, R, R) if they fit in memory, else None.
        marks: int64, a hash of what is known of every image of the source, if only a sample was
            examined; else None.
        skipped: images that were left out since, as they were met, by index.
    """

    training: Subset
    holdout: Subset
    resolution: int
    c_dim: int
    looked_at: int
    broken: list[Broken]
    copies: Copies
    digest: str
    pixels: torch.Tensor | None
    marks: np.ndarray | None
    skipped: dict[int, Broken] = field(default_factory=dict)

    def load(self, source: Subset, indices: Sequence[int]) -> tuple[torch.Tensor, list[int]]:
        """Decode images of `training` or `holdout`.

        Of a set that was examined by sample, an unreadable image is replaced by the next one of
        `source`, and remembered in `skipped`.

        Returns:
            uint8 (n, 3, R, R), and the indices that were taken.

        Raises:
            ProbeError: an image that was examined has changed or become unreadable, or too many in
                a row are unreadable.
        """
        if source is self.training and self.pixels is not None:
            return self.pixels[list(indices)], list(indices)
        if self.marks is None:
            return load_whole(source, indices, self.resolution), list(indices)
        taken, rows = list(indices), list(range(len(indices)))
        images, unreadable = self._try(source, taken)
        for _ in range(TRIES):
            rows = [row for row in rows if taken[row] in unreadable]
            if not rows:
                return images, taken
            for row in rows:
                taken[row] = (taken[row] + 1) % len(source)
            images[rows], unreadable = self._try(source, [taken[row] for row in rows])
        raise ProbeError(
            f"{source.name}: {TRIES} images in a row cannot be used: "
            f"{name_broken(list(unreadable.values()))}. See whether the storage is there, and "
            "repeat the command."
        )

    def _try(
        self, source: Subset, indices: Sequence[int]
    ) -> tuple[torch.Tensor, dict[int, Broken]]:
        """Return a row per image, any values in that of an unreadable one, and the unreadable."""
        assert self.marks is not None
        batch = source.load(indices, self.resolution)
        unreadable = dict(batch.broken)
        for i, mark in zip(indices, source.marks(indices), strict=True):
            if hash(mark) != self.marks[source.indices[i]] and i not in unreadable:
                (name,) = source.captions([i])
                unreadable[i] = Broken(name, "changed since this command began")
        self.skipped.update({source.indices[i]: why for i, why in unreadable.items()})
        if not batch.broken:
            return batch.images, unreadable
        images = torch.empty(len(indices), *batch.images.shape[1:], dtype=torch.uint8)
        images[[row for row, i in enumerate(indices) if i not in batch.broken]] = batch.images
        return images, unreadable

    def remarks(self) -> Iterator[str]:
        """Yield what a user must know about the images, as sentences."""
        if self.marks is not None:
            yield (
                f"{self.training.name}: {len(self.marks)} images are too many to examine each "
                f"before training. {self.looked_at} drawn by the seed were; one that turns out "
                "broken later is replaced by the next one."
            )
        if self.broken:
            yield describe_broken(self.broken)
        for remark in self.copies.remarks():
            yield f"Warning: {remark}"


def open_reals(
    source: ImageSource,
    *,
    resolution: int | None,
    holdout: int,
    cond: bool,
    seed: int,
    whole: bool = False,
) -> Reals:
    """Examine the images, all or a sample, and set the held-out ones aside.

    Args:
        source: the images.
        resolution: side to train at; None takes the images' own, if they agree.
        holdout: number of images to keep out of training, drawn by `seed`. If all images are
            examined, copies of held-out ones are kept out as well.
        cond: whether labels are needed.
        seed: of the run.
        whole: examine every image, even if they do not fit in memory.

    Raises:
        UsageError: no generator can have this resolution, the images differ in size and
            `resolution` is None, or labels are needed but missing.
        ImagesError: too few usable images.
    """
    keep = len(source) * 3 * (resolution or source.resolution) ** 2 <= MEMORY
    whole = whole or keep or len(source) <= LOOKED_AT
    looked_at: Sequence[int] = range(len(source))
    if not whole:
        drawn = numpy_stream(seed, "looked at").choice(len(source), LOOKED_AT, replace=False)
        looked_at = sorted(drawn.tolist())
    side = _side(source, resolution, looked_at)
    seen = _examine(source, looked_at, side, keep=keep)
    split = _split_apart(seen, holdout, seed) if whole else _split(len(source), holdout, seed)
    distinct = {seen.groups[i] for i in split.seen} if whole else set(seen.groups.tolist())
    if len(distinct) < LEAST_IMAGES:
        kept = f" beside {holdout} held out" if holdout else ""
        why = [describe_broken(seen.broken)] if seen.broken else []
        raise ImagesError(
            f"{source.name}: {len(set(seen.groups.tolist()))} usable images are too few to train "
            f"on; at least {LEAST_IMAGES} are needed{kept}. "
            f"{' '.join([*why, *seen.copies.remarks()])}".strip()
        )
    if whole:
        keys = dict(zip(seen.usable, seen.keys, strict=True))
        digest = digest_json([[keys[i] for i in p] for p in (split.training, split.holdout)])
        marks = None
    else:
        digest, marks = _read_marks(source)
    return Reals(
        training=Subset(source, split.training),
        holdout=Subset(source, split.holdout),
        resolution=side,
        c_dim=_count_classes(source, seen.usable if whole else range(len(source))) if cond else 0,
        looked_at=len(looked_at),
        broken=seen.broken,
        copies=seen.copies,
        digest=digest,
        pixels=None if seen.pixels is None else seen.pixels[split.seen],
        marks=marks,
    )


@dataclass(frozen=True)
class _Seen:
    """What was found in the images that were examined.

    Attributes:
        usable: indices of those that decode.
        broken: the others.
        keys: content keys of the usable ones.
        groups: int64, of the usable ones: equal numbers for equal images.
        copies: the same, for a reader.
        pixels: uint8 (len(usable), 3, R, R) if they are kept, else None.
    """

    usable: list[int]
    broken: list[Broken]
    keys: list[str]
    groups: np.ndarray
    copies: Copies
    pixels: torch.Tensor | None


@dataclass(frozen=True)
class _Split:
    """The indices to train on, and those held out.

    Attributes:
        training: indices in the source.
        holdout: the same.
        seen: positions of `training` among the usable images, if all images were examined.
    """

    training: Sequence[int]
    holdout: Sequence[int]
    seen: Sequence[int] = ()


def _examine(source: ImageSource, indices: Sequence[int], side: int, *, keep: bool) -> _Seen:
    """Decode images and hash their contents.

    Args:
        source: the images.
        indices: which.
        side: at which they are used.
        keep: whether to keep the pixels.
    """
    usable, broken, parts = [], [], []
    for start in range(0, len(indices), PART):
        batch = source.load(indices[start : start + PART], side)
        usable += batch.indices
        broken += batch.broken.values()
        if keep:
            parts.append(batch.images)
    keys = source.keys(usable)
    groups = group(keys)
    copies = Copies(groups, source.captions(usable), len(usable))
    return _Seen(usable, broken, keys, groups, copies, torch.cat(parts) if keep else None)


def _split_apart(seen: _Seen, holdout: int, seed: int) -> _Split:
    """Hold images out, drawn by the seed, along with their copies."""
    order = numpy_stream(seed, "holdout").permutation(len(seen.usable))
    held = np.isin(seen.groups, seen.groups[order[:holdout]])
    shown, hidden = (np.flatnonzero(part).tolist() for part in (~held, held))
    return _Split([seen.usable[i] for i in shown], [seen.usable[i] for i in hidden], shown)


def _split(count: int, holdout: int, seed: int) -> _Split:
    """Hold images out, drawn by the seed."""
    if not holdout:
        return _Split(range(count), range(0))
    held = np.zeros(count, bool)
    held[numpy_stream(seed, "holdout").choice(count, min(holdout, count), replace=False)] = True
    return _Split(*(array("q", np.flatnonzero(part).tobytes()) for part in (~held, held)))


def _count_classes(source: ImageSource, indices: Sequence[int]) -> int:
    """Return the number of classes.

    Raises:
        UsageError: there are no labels.
    """
    labels = source.labels
    if labels is None:
        raise UsageError(
            f"--cond: {source.name} has no labels. Put a dataset.json beside the images, or "
            "leave --cond out."
        )
    return source.classes or max(labels[i] for i in indices) + 1


def _read_marks(source: ImageSource) -> tuple[str, np.ndarray]:
    """Return the digest of all images' marks, and a hash of each that holds in this process."""
    digest, hashes = hashlib.sha256(), np.empty(len(source), np.int64)
    for start in range(0, len(source), MARKED):
        part = range(start, min(start + MARKED, len(source)))
        marks = source.marks(part)
        digest.update("\n".join(marks).encode("utf-8", "surrogatepass") + b"\n")
        hashes[part.start : part.stop] = [hash(mark) for mark in marks]
    return digest.hexdigest(), hashes


def _side(source: ImageSource, resolution: int | None, indices: Sequence[int]) -> int:
    """Return the side to train at.

    Raises:
        UsageError: no generator can have it, or it is not given and the images at `indices` differ
            in size.
    """
    side = resolution or _common_side(source, indices)
    if side < 8 or side & (side - 1):
        lower = max(8, 2 ** (side.bit_length() - 1))
        raise UsageError(
            f"--resolution: the images of {source.name} are {side} px; a generator needs a power "
            f"of two. Choose one, for example --resolution {lower}."
        )
    return side


def _common_side(source: ImageSource, indices: Sequence[int]) -> int:
    """Return the side of the images.

    Raises:
        UsageError: those at `indices` differ in size.
    """
    sizes: dict[tuple[int, int], int] = {}
    for header in source.headers(indices):
        if header is not None:
            sizes[header.size] = sizes.get(header.size, 0) + 1
    if len(sizes) > 1:
        first, second = sorted(sizes, key=lambda s: (-sizes[s], s))[:2]
        raise UsageError(
            f"--resolution: the images of {source.name} are of {len(sizes)} sizes "
            f"({first[0]}x{first[1]}, {second[0]}x{second[1]}, …). Choose a side to which they are "
            "cropped and resized, for example --resolution "
            f"{max(8, 2 ** (source.resolution.bit_length() - 1))}."
        )
    return source.resolution


def load_whole(source: ImageSource, indices: Sequence[int], resolution: int) -> torch.Tensor:
    """Return images that decoded when the run began, uint8 (n, 3, resolution, resolution).

    Raises:
        ProbeError: an image no longer decodes, or has changed.
    """
    batch = source.load(list(indices), resolution)
    refuse_broken(source, list(batch.broken.values()))
    return batch.images


def refuse_broken(source: ImageSource, broken: Sequence[Broken]) -> None:
    """Stop if images that decoded when the run began are now broken.

    Raises:
        ProbeError: there are some; it names them.
    """
    if broken:
        raise ProbeError(
            f"{source.name}: images changed or became unreadable: {name_broken(broken)}. Restore "
            "them and repeat the command."
        )


def one_hot(reals: Reals, labels: Sequence[int] | None) -> torch.Tensor | None:
    """Return classes as float32 (n, c_dim), or None if there are none."""
    if labels is None:
        return None
    return F.one_hot(torch.tensor(labels), reals.c_dim).float()
