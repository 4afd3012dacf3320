"""Random numbers for augmentations that do not depend on how a batch is split."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Draw:
    """Random numbers for the samples of this process, drawn for the global batch.

    Args:
        generator: CPU stream, in the same state in every process.
        total: samples in the global batch.
        offset: first sample of this process.
        stride: step between its samples, which is the number of processes.
    """

    generator: torch.Generator
    total: int
    offset: int = 0
    stride: int = 1

    @property
    def count(self) -> int:
        """Number of samples in this process."""
        return len(range(self.offset, self.total, self.stride))

    def uniform(self, *shape: int) -> torch.Tensor:
        """Return uniform numbers in [0, 1), (count, *shape), float32 on the CPU."""
        drawn = torch.rand(self.total, *shape, generator=self.generator)
        return drawn[self.offset :: self.stride]

    def normal(self, *shape: int) -> torch.Tensor:
        """Return standard normal numbers, (count, *shape), float32 on the CPU."""
        drawn = torch.randn(self.total, *shape, generator=self.generator)
        return drawn[self.offset :: self.stride]

    def integers(self, bound: int, *shape: int) -> torch.Tensor:
        """Return integers from 0 to bound - 1, (count, *shape), int64 on the CPU."""
        # In float32 the product could round up to `bound` itself.
        return (self.uniform(*shape).double() * bound).floor().long()


def as_float(images: torch.Tensor) -> torch.Tensor:
    """Return images as float32, or unchanged if they are float64."""
    return images if images.dtype == torch.float64 else images.float()


def check_rows(images: torch.Tensor, draw: Draw) -> None:
    """Refuse a draw for another batch size, which would silently give images the wrong rows.

    Raises:
        ValueError: the draw is for another number of images.
    """
    if len(images) != draw.count:
        raise ValueError(f"{len(images)} images, but random numbers for {draw.count}")
