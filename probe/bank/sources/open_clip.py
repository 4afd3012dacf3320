"""Image towers from open_clip."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from probe.bank.base import FeatureNetwork, feature_key, no_such
from probe.bank.spec import BackboneSpec
from probe.bank.weights.state import load_state

# How the names of everything but the image tower begin.
TEXT_TOWER = (
    "text.",
    "text_decoder.",
    "transformer.",
    "token_embedding.",
    "ln_final.",
    "positional_embedding",
    "text_projection",
    "logit_scale",
    "logit_bias",
    "attn_mask",
)


class OpenClipNetwork(FeatureNetwork):
    """The image tower of a CLIP model; its pooled feature is the projected embedding."""

    def __init__(self, visual: Any, spec: BackboneSpec) -> None:
        super().__init__()
        self.visual: Any = visual  # its class declares no forward_intermediates
        self.taps, self.tap_norm = spec.taps, spec.tap_norm

    def pool(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, S, S) → (N, d), not unit-normalised."""
        return self.visual(x)

    def levels(self, x: torch.Tensor) -> tuple[Sequence[torch.Tensor], torch.Tensor]:
        """(N, 3, S, S) → maps (N, C, H, W), the last one unless taps are declared, and (N, d)."""
        found = self.visual.forward_intermediates(
            x,
            indices=list(self.taps) if self.taps else 1,
            normalize_intermediates=self.tap_norm,
            output_fmt="NCHW",
        )
        return found["image_intermediates"], found["image_features"]


def key(spec: BackboneSpec) -> dict[str, Any]:
    """Return what decides a pooled feature; see `feature_key`."""
    return feature_key(spec)


def build(spec: BackboneSpec, path: Path | None) -> FeatureNetwork:
    """Build the image tower; `path` is its weight file, None leaves the random initialisation.

    Raises:
        BackboneUnavailable: open_clip has no such architecture, or the weights do not fit.
    """
    import open_clip

    known = open_clip.list_models()
    if spec.model not in known:
        raise no_such(f"open_clip {open_clip.__version__} has no model", spec.model, known)
    logging.disable(logging.WARNING)  # it warns that the weights, which come below, are random
    try:
        # Some models would go and fetch a pretrained text tower.
        model = open_clip.create_model(
            spec.model, load_weights=False, pretrained_text=False, **spec.args
        )
    finally:
        logging.disable(logging.NOTSET)
    # Only the image half is kept; the file's names begin with `visual.`, as this wrapper's do.
    network = OpenClipNetwork(model.visual, spec)
    if path is not None:
        load_state(spec, path, network, leave_out=TEXT_TOWER)
    return network
