"""Backbones as TorchScript files, which contain the network."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from probe.bank.base import FeatureNetwork
from probe.bank.spec import BackboneSpec
from probe.errors import BackboneUnavailable
from probe.files import utf8_path


class TorchScriptNetwork(FeatureNetwork):
    """A scripted module whose output is a feature (N, d) or a map (N, C, H, W)."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def pool(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, S, S) → (N, d); a map is averaged."""
        return self.levels(x)[1]

    def levels(self, x: torch.Tensor) -> tuple[Sequence[torch.Tensor], torch.Tensor]:
        """(N, 3, S, S) → its map, or none if the output is a feature, and (N, d)."""
        y = self.module(x)
        return ([y], y.mean(dim=(2, 3))) if y.ndim == 4 else ([], y)


def build(spec: BackboneSpec, path: Path | None) -> FeatureNetwork:
    """Load the file.

    Raises:
        BackboneUnavailable: if it is not TorchScript, or returns neither a feature nor a map.
    """
    assert path is not None and spec.input is not None
    try:
        with utf8_path(path) as known:
            module = torch.jit.load(str(known), map_location="cpu").eval()
    except (RuntimeError, ValueError) as error:
        raise BackboneUnavailable(f"{path} is not a TorchScript file") from error
    with torch.inference_mode():
        y = module(torch.zeros(2, 3, spec.input, spec.input))
    if not isinstance(y, torch.Tensor) or y.ndim not in (2, 4) or len(y) != 2:
        shape = tuple(y.shape) if isinstance(y, torch.Tensor) else type(y).__name__
        raise BackboneUnavailable(
            f"{path} returns {shape}; a tensor (N, d) or (N, C, H, W) is expected"
        )
    return TorchScriptNetwork(module)
