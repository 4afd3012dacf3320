"""Image towers from open_clip."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from probe.bank.base import FeatureNetwork, averages, no_such, numbered_layers
from probe.bank.spec import BackboneSpec, Weights
from probe.bank.weights.state import load_state

FILE = "open_clip_model.safetensors"  # unless the library names another
# Name prefixes of everything outside the image tower.
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
        self.visual: Any = visual  # its class does not declare forward_intermediates
        self.pooling, self.taps, self.tap_norm = spec.pool, spec.taps, spec.tap_norm
        blocks = getattr(getattr(visual, "transformer", None), "resblocks", None)
        if blocks is not None:
            self.layers = numbered_layers(len(blocks), spec.taps, spec.model)

    def pool(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, S, S) → (N, d), not unit-normalised."""
        return self.levels(x)[1] if self.pooling == "taps" else self.visual(x)

    def levels(self, x: torch.Tensor) -> tuple[Sequence[torch.Tensor], torch.Tensor]:
        """(N, 3, S, S) → maps (N, C, H, W), the last one unless taps are given, and (N, d)."""
        only = self.pooling == "taps"
        found = self.visual.forward_intermediates(
            x,
            indices=list(self.taps) if self.taps else 1,
            normalize_intermediates=self.tap_norm,
            output_fmt="NCHW",
            intermediates_only=only,
            stop_early=only,
        )
        maps = found["image_intermediates"]
        return maps, averages(maps) if only else found["image_features"]


def build(spec: BackboneSpec, path: Path | None) -> FeatureNetwork:
    """Build the image tower; `path` is its weight file, None keeps the random initialisation.

    Raises:
        BackboneUnavailable: if open_clip has no such architecture, or the weights do not fit.
    """
    import open_clip

    known = open_clip.list_models()
    if spec.model not in known:
        raise no_such(f"open_clip {open_clip.__version__} has no model", spec.model, known)
    logging.disable(logging.WARNING)  # it warns of random weights, which are loaded below
    try:
        # Some models would otherwise download a pretrained text tower.
        model = open_clip.create_model(
            spec.model, load_weights=False, pretrained_text=False, **spec.args
        )
    finally:
        logging.disable(logging.NOTSET)
    # Keep only the image tower; the file's names begin with `visual.`, as this wrapper's do.
    network = OpenClipNetwork(model.visual, spec)
    if path is not None:
        load_state(spec, path, network, leave_out=TEXT_TOWER)
    return network


def describe(reference: str) -> dict[str, Any]:
    """Return an entry's fields for pretrained weights, MODEL/TAG.

    Raises:
        BackboneUnavailable: if open_clip has no such weights on a hub.
    """
    import open_clip

    model, _, tag = reference.partition("/")
    if model not in open_clip.list_models():
        what = f"open_clip {open_clip.__version__} has no model"
        raise no_such(what, model, open_clip.list_models())
    tags = open_clip.list_pretrained_tags_by_model(model)
    config = open_clip.get_pretrained_cfg(model, tag) if tag else {}
    parts = config.get("hf_hub", "").strip("/").split("/")  # owner, repository, maybe a file
    if len(parts) < 2:
        pairs = [f"{model}/{known}" for known in tags]
        raise no_such(f"open_clip {open_clip.__version__} has no hub weights", reference, pairs)
    # The same weights with another activation are another network.
    quick = config.get("quick_gelu") and not model.endswith("-quickgelu")
    described = open_clip.get_model_config(model)
    assert described is not None  # the model is listed
    size = described["vision_cfg"]["image_size"]
    return {
        "model": f"{model}-quickgelu" if quick else model,
        "weights": Weights(hub="/".join(parts[:2]), file=parts[2] if len(parts) > 2 else FILE),
        "input": size if isinstance(size, int) else size[-1],
        "mean": tuple(config["mean"]),
        "std": tuple(config["std"]),
        "license": None,
        "task": "image-text contrast",
    }
