"""Swin Transformers as detection and segmentation programs run them, built from timm's.

Those programs pad a map to whole windows before they shift it (Liu et al. 2021, section 3.2, as in
the published detectors and segmenters); timm shifts first. The two agree only if the windows divide
the map, as at 224 px. At 256 px, the input of the method's bank, a map of timm's is off by a third
of its values' range.
"""

from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from probe.bank.base import FeatureNetwork
from probe.bank.sources import timm
from probe.bank.spec import BackboneSpec
from probe.errors import BackboneUnavailable


def build(spec: BackboneSpec, path: Path | None) -> FeatureNetwork:
    """Build timm's architecture with padding first; `path` is its weight file, None random weights.

    Raises:
        BackboneUnavailable: if timm has no such Swin Transformer, or the weights do not fit.
    """
    from timm.models.swin_transformer import SwinTransformerBlock

    network = timm.build(spec, path)
    blocks = [block for block in network.modules() if isinstance(block, SwinTransformerBlock)]
    if not blocks:
        raise BackboneUnavailable(
            f"{spec.model} is not a Swin Transformer of timm", "use source: timm"
        )
    for block in blocks:
        _pad_first(block)
    return network


def _pad_first(block: Any) -> None:
    """Make a block's attention pad its map before it shifts; its mask is for the padded map.

    Raises:
        BackboneUnavailable: if this timm has another block.
    """
    attend = getattr(block, "_attn", None)  # private: a test says if timm renames it
    if attend is None:
        import timm

        raise BackboneUnavailable(
            f"timm {timm.__version__} has another Swin Transformer", "use timm 1.0.20 to 1.0.x"
        )
    height, width = block.window_size

    def attend_padded(x: torch.Tensor) -> torch.Tensor:
        _, h, w, _ = x.shape
        return attend(F.pad(x, (0, 0, 0, -w % width, 0, -h % height)))[:, :h, :w]

    block._attn = attend_padded
