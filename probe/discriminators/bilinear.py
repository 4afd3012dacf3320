"""Bilinear sampling that can be differentiated twice, which torch's own cannot."""

from typing import Any

import torch
from torch.nn import functional as F


def sample_bilinear(images: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """Sample images at the positions of a grid, with reflection at the edges.

    Args:
        images: (N, C, H, W). The result is linear in them and has derivatives of every order.
        grid: (N, h, w, 2), positions (x, y) with -1 and 1 at the edges; a constant.

    Returns:
        (N, C, h, w).
    """
    return _Read.apply(images, grid)


def _read(images: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


class _Read(torch.autograd.Function):
    """A linear map; its gradient is its transpose `_Spread`, which does not depend on images."""

    @staticmethod
    def forward(ctx: Any, images: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(grid)
        ctx.shape = images.shape
        return _read(images, grid)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (grid,) = ctx.saved_tensors
        return _Spread.apply(gradients[0], grid, ctx.shape), None


class _Spread(torch.autograd.Function):
    """The transpose of `_Read`; its gradient is `_Read`."""

    @staticmethod
    def forward(
        ctx: Any, values: torch.Tensor, grid: torch.Tensor, shape: torch.Size
    ) -> torch.Tensor:
        ctx.save_for_backward(grid)
        shaped = values.new_zeros(1).expand(shape)  # of the images only the shape matters
        bilinear, reflection, align_corners = 0, 2, False  # as in `_read`
        spread, _ = torch.ops.aten.grid_sampler_2d_backward(
            values, shaped, grid, bilinear, reflection, align_corners, (True, False)
        )
        return spread

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (grid,) = ctx.saved_tensors
        return _Read.apply(gradients[0], grid), None, None
