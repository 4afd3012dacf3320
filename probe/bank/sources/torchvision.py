"""Backbones from torchvision, cut at named modules."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from probe.bank.base import FeatureNetwork, averages, no_such
from probe.bank.spec import BackboneSpec
from probe.bank.weights.state import load_state


class TorchvisionNetwork(FeatureNetwork):
    """A model up to its last tap; the pooled feature is that map's global average."""

    def __init__(self, trunk: nn.Module, taps: Sequence[str], *, all_taps: bool = False) -> None:
        """Args: trunk gives the maps of `taps`; with `all_taps` each of them is averaged."""
        super().__init__()
        self.trunk, self.taps, self.all_taps = trunk, list(taps), all_taps

    def pool(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, S, S) → (N, d)."""
        return self.levels(x)[1]

    def levels(self, x: torch.Tensor) -> tuple[Sequence[torch.Tensor], torch.Tensor]:
        """(N, 3, S, S) → tapped maps (N, C, H, W) and (N, d)."""
        found = self.trunk(x)
        maps = [found[tap] for tap in self.taps]
        return maps, averages(maps if self.all_taps else maps[-1:])


def build(spec: BackboneSpec, path: Path | None) -> FeatureNetwork:
    """Build the trunk; `path` is its weight file, None keeps the random initialisation.

    Raises:
        BackboneUnavailable: if torchvision has no such architecture or module, or the weights do
            not fit.
    """
    import torchvision
    from torchvision.models import get_model, list_models
    from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

    if spec.model not in list_models():
        library = f"torchvision {torchvision.__version__}"
        raise no_such(f"{library} has no model", spec.model, list_models())
    model = get_model(spec.model, weights=None, **spec.args).eval()
    taps = [str(tap) for tap in spec.taps]
    try:
        trunk = create_feature_extractor(model, taps)
    except ValueError as error:  # its message lists every node
        known = {name for name, _ in model.named_modules()} | {*get_graph_node_names(model)[1]}
        odd = next((tap for tap in taps if tap not in known), taps[0])
        raise no_such(f"{spec.model} has no module (taps)", odd, sorted(known)) from error
    if path is not None:
        # The file includes layers after the last tap, which the trunk lacks.
        cut_off = set(model.state_dict()) - set(trunk.state_dict())
        load_state(spec, path, trunk, leave_out=tuple(cut_off))
    network = TorchvisionNetwork(trunk, taps, all_taps=spec.pool == "taps")
    network.layers = _siblings(model, taps[-1])
    return network


def _siblings(model: nn.Module, tap: str) -> list[str]:
    """Return the modules beside a tap, up to it, by name: the obvious other taps."""
    parent, _, last = tap.rpartition(".")
    if parent not in dict(model.named_modules()):
        return [tap]
    names = [name for name, _ in model.get_submodule(parent).named_children()]
    before = names[: names.index(last) + 1] if last in names else [last]
    return [f"{parent}.{name}" if parent else name for name in before]
