"""The training images as an endless shuffled stream that can start at any position."""

from concurrent.futures import Future, ThreadPoolExecutor

import torch

from probe.devices import pin, send
from probe.discriminators.step import Minibatch
from probe.processes import Processes
from probe.streams import numpy_stream
from probe.training.order import Blocks, Order, Shuffled
from probe.training.reals import Reals, one_hot

AHEAD = 2  # batches that are decoded while one is in use, each by a worker of its own


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
        count = len(reals.training)
        self.order: Order = (Shuffled if reals.marks is None else Blocks)(count, seed)
        self._labels = reals.training.labels if reals.c_dim else None
        self._workers = ThreadPoolExecutor(AHEAD)
        self._ahead: dict[int, Future[tuple[torch.Tensor, torch.Tensor | None]]] = {}

    def at(self, start: int) -> Minibatch:
        """Return this process's share of the batch that starts at image `start` of the stream.

        Raises:
            ProbeError: images cannot be read; see `Reals.load`.
        """
        starts = [start + i * self.batch for i in range(AHEAD + 1)]
        self._ahead = {
            s: self._ahead.get(s) or self._workers.submit(self._decode, s) for s in starts
        }
        images, labels = self._ahead.pop(start).result()
        images = send(images, self.device).float() / 127.5 - 1
        images = images.contiguous(memory_format=self.layout)
        return Minibatch(images, None if labels is None else send(labels, self.device))

    def _decode(self, start: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        positions = self.processes.share(range(start, start + self.batch))
        images, indices = self.reals.load(self.reals.training, self.order.at(positions))
        if self.mirror:
            flips = [numpy_stream(self.seed, "flip", p).random() < 0.5 for p in positions]
            images = images.clone()
            images[flips] = images[flips].flip(3)
        labels = self._labels
        c = one_hot(self.reals, None if labels is None else [labels[i] for i in indices])
        return pin(images, self.device), c
