"""The Inception network of 2015 that defines FID (Heusel et al. 2017).

Its graph is TensorFlow's `inception-2015-12-05`. torchvision's Inception v3 is a later network with
three differences: averages at the border count only existing pixels, the last block takes a maximum
instead of one average, and there are 1 008 classes. The weights are public as a PyTorch file shared
by pytorch-fid and torch-fidelity. Images are resized to 299 px as TensorFlow 1 did.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from probe.bank.base import FeatureNetwork, no_such
from probe.bank.spec import BackboneSpec
from probe.bank.weights.state import load_state

MODEL = "inception-2015-12-05"
CLASSES = 1008
LAST = "Mixed_7c"


class InceptionNetwork(FeatureNetwork):
    """All blocks but the classifier; the feature is the last map's average, FID's "pool3"."""

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk

    def pool(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, 299, 299) → (N, 2048)."""
        return self.levels(x)[1]

    def levels(self, x: torch.Tensor) -> tuple[Sequence[torch.Tensor], torch.Tensor]:
        """(N, 3, 299, 299) → the last map (N, 2048, 8, 8), and (N, 2048)."""
        y = self.trunk(x)
        return [y], y.mean(dim=(2, 3))


def build(spec: BackboneSpec, path: Path | None) -> FeatureNetwork:
    """Build the network; `path` is its weight file, None keeps the random initialisation.

    Raises:
        BackboneUnavailable: if another model is asked for, or the weights do not fit.
    """
    from torchvision.models.inception import Inception3, InceptionA, InceptionC, InceptionE

    if spec.model != MODEL:
        raise no_such("the source inception has no model", spec.model, [MODEL])
    model = Inception3(CLASSES, aux_logits=False, init_weights=False)
    for name, block in model.named_children():
        if isinstance(block, InceptionA | InceptionC | InceptionE):
            _pool_by(block, _maximum if name == LAST else _average)
    blocks: OrderedDict[str, nn.Module] = OrderedDict()
    for name, block in model.named_children():
        blocks[name] = block
        if name == LAST:
            break
    trunk = nn.Sequential(blocks)
    if path is not None:
        load_state(spec, path, trunk, leave_out=("fc.",))
    return InceptionNetwork(trunk)


def _average(x: torch.Tensor) -> torch.Tensor:
    return F.avg_pool2d(x, kernel_size=3, stride=1, padding=1, count_include_pad=False)


def _maximum(x: torch.Tensor) -> torch.Tensor:
    return F.max_pool2d(x, kernel_size=3, stride=1, padding=1)


def _pool_by(block: nn.Module, pool: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Replace the pooling in a block's pooled branch, the last of its output's channels."""

    def replace(module: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        branch = module.get_submodule("branch_pool")(pool(inputs[0]))
        return torch.cat([output[:, : -branch.shape[1]], branch], dim=1)

    block.register_forward_hook(replace)
