"""The training images as an endless shuffled stream that can start at any position."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from probe.devices import pin, send
from probe.discriminators.step import Batch
from probe.errors import ImagesError, ProbeError, UsageError
from probe.features.copies import Copies, group
from probe.images.base import Broken, ImageSource
from probe.images.decode import describe_broken, name_broken
from probe.images.subset import Subset
from probe.probing.config import LEAST_IMAGES
from probe.processes import Processes
from probe.streams import numpy_stream

MEMORY = 1 * 2**30  # bytes of decoded images to keep
PART = 256
AHEAD = 2  # batches that are decoded while one is in use, each by a worker of its own


@dataclass(frozen=True)
class Reals:
    """The images of a run, all of which decode.

    Attributes:
        training: the images to train on.
        holdout: images kept out of training, along with their copies; may be empty.
        resolution: side in pixels at which they are used.
        c_dim: number of classes, 0 for an unconditional run.
        broken: images that were skipped.
        copies: which usable images are duplicates.
        pixels: uint8 (len(training), 3, R, R) if they fit in memory, else None.
    """

    training: Subset
    holdout: Subset
    resolution: int
    c_dim: int
    broken: list[Broken]
    copies: Copies
    pixels: torch.Tensor | None


def open_reals(
    source: ImageSource, *, resolution: int | None, holdout: int, cond: bool, seed: int
) -> Reals:
    """Decode every image once and set the held-out ones aside.

    Args:
        source: the images.
        resolution: side to train at; None takes the images' own, if they agree.
        holdout: number of images to keep out of training, drawn by `seed`; their copies are kept
            out as well.
        cond: whether labels are needed.
        seed: of the run.

    Raises:
        UsageError: no generator can have this resolution, the images differ in size and
            `resolution` is None, or labels are needed but missing.
        ImagesError: too few usable images.
    """
    side = resolution or _common_side(source)
    if side < 8 or side & (side - 1):
        lower = max(8, 2 ** (side.bit_length() - 1))
        raise UsageError(
            f"--resolution: the images of {source.name} are {side} px; a generator needs a power "
            f"of two. Choose one, for example --resolution {lower}."
        )
    keep = len(source) * 3 * side**2 <= MEMORY
    usable, broken, parts = [], [], []
    for start in range(0, len(source), PART):
        batch = source.load(range(start, min(start + PART, len(source))), side)
        usable += batch.indices
        broken += batch.broken.values()
        if keep:
            parts.append(batch.images)
    groups = group(source.keys(usable))
    copies = Copies(groups, source.captions(usable), len(usable))
    order = numpy_stream(seed, "holdout").permutation(len(usable))
    held = np.isin(groups, groups[order[:holdout]])
    if len(np.unique(groups[~held])) < LEAST_IMAGES:
        kept = f" beside {holdout} held out" if holdout else ""
        why = [describe_broken(broken)] if broken else []
        raise ImagesError(
            f"{source.name}: {len(np.unique(groups))} usable images are too few to train on; at "
            f"least {LEAST_IMAGES} are needed{kept}. {' '.join([*why, *copies.remarks()])}".strip()
        )
    c_dim = 0
    if cond:
        if source.labels is None:
            raise UsageError(
                f"--cond: {source.name} has no labels. Put a dataset.json beside the images, or "
                "leave --cond out."
            )
        c_dim = source.classes or max(source.labels[i] for i in usable) + 1
    shown = np.flatnonzero(~held).tolist()
    return Reals(
        training=Subset(source, [usable[i] for i in shown]),
        holdout=Subset(source, [usable[i] for i in np.flatnonzero(held).tolist()]),
        resolution=side,
        c_dim=c_dim,
        broken=broken,
        copies=copies,
        pixels=torch.cat(parts)[shown] if keep else None,
    )


def _common_side(source: ImageSource) -> int:
    """Return the side of the images.

    Raises:
        UsageError: the images differ in size.
    """
    sizes: dict[tuple[int, int], int] = {}
    for header in source.headers(range(len(source))):
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


class RealStream:
    """Batches of an endless stream; each batch depends only on (seed, images seen).

    Every pass over the data has its own order. With `mirror`, each image is flipped with
    probability 1/2. The next batches are decoded while the current one is in use.

    Args:
        reals: the images.
        batch: images per step across all processes.
        mirror: whether to flip.
        seed: of the run.
        processes: the processes that split every batch.
        device: device for the returned images.
        layout: their memory layout.
    """

    def __init__(
        self,
        reals: Reals,
        *,
        batch: int,
        mirror: bool,
        seed: int,
        processes: Processes,
        device: torch.device,
        layout: torch.memory_format = torch.channels_last,
    ) -> None:
        self.layout = layout
        self.reals, self.batch, self.mirror, self.seed = reals, batch, mirror, seed
        self.processes, self.device = processes, device
        self._workers = ThreadPoolExecutor(AHEAD)
        self._ahead: dict[int, Future[tuple[torch.Tensor, torch.Tensor | None]]] = {}

    def at(self, start: int) -> Batch:
        """Return this process's share of the batch that starts at image `start` of the stream.

        Raises:
            ProbeError: an image that decoded when the run began no longer does.
        """
        starts = [start + i * self.batch for i in range(AHEAD + 1)]
        self._ahead = {
            s: self._ahead.get(s) or self._workers.submit(self._decode, s) for s in starts
        }
        images, labels = self._ahead.pop(start).result()
        images = send(images, self.device).float() / 127.5 - 1
        images = images.contiguous(memory_format=self.layout)
        return Batch(images, None if labels is None else send(labels, self.device))

    def _decode(self, start: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        positions = self.processes.share(range(start, start + self.batch))
        indices = self.order(positions)
        images = load_pixels(self.reals, indices)
        if self.mirror:
            flips = [numpy_stream(self.seed, "flip", p).random() < 0.5 for p in positions]
            images = images.clone()
            images[flips] = images[flips].flip(3)
        labels = self.reals.training.labels if self.reals.c_dim else None
        c = one_hot(self.reals, None if labels is None else [labels[i] for i in indices])
        return pin(images, self.device), c

    def order(self, positions: Sequence[int]) -> list[int]:
        """Return the indices of the images at these positions of the stream."""
        n = len(self.reals.training)
        passes: dict[int, np.ndarray] = {}
        for turn in {p // n for p in positions}:
            passes[turn] = numpy_stream(self.seed, "order", turn).permutation(n)
        return [int(passes[p // n][p % n]) for p in positions]


def load_pixels(reals: Reals, indices: Sequence[int]) -> torch.Tensor:
    """Return training images, uint8 (n, 3, R, R).

    Raises:
        ProbeError: an image that decoded when the run began no longer does.
    """
    if reals.pixels is not None:
        return reals.pixels[list(indices)]
    return load_whole(reals.training, indices, reals.resolution)


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
