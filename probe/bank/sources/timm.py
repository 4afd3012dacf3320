"""Backbones from timm, through its documented interface only."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from probe.bank.base import FeatureNetwork, InputSpec, averages, no_such, numbered_layers
from probe.bank.spec import UNKNOWN, BackboneSpec, Weights
from probe.bank.weights.file import read_weights
from probe.bank.weights.keys import map_keys
from probe.bank.weights.state import fit_state
from probe.errors import BackboneUnavailable, UsageError

if TYPE_CHECKING:
    from timm.models import PretrainedCfg


class TimmNetwork(FeatureNetwork):
    """A timm model without its classifier."""

    def __init__(self, model: nn.Module, spec: BackboneSpec) -> None:
        super().__init__()
        self.model: Any = model  # timm's models share methods, but no class declares them
        self.pooling, self.taps, self.tap_norm = spec.pool, spec.taps, spec.tap_norm
        self.prefix = getattr(model, "num_prefix_tokens", 0)
        self.layers = numbered_layers(len(self.model.feature_info), spec.taps, spec.model)

    def pool(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, S, S) → (N, d)."""
        if self.pooling == "taps":
            return averages(self._tapped(x, intermediates_only=True, stop_early=True))
        return self._pool(self.model.forward_features(x))

    def _pool(self, features: torch.Tensor) -> torch.Tensor:
        if self.pooling == "head":
            return self.model.forward_head(features, pre_logits=True)
        if self.pooling == "token":
            return features[:, 0]
        if features.ndim == 3:
            return features[:, self.prefix :].mean(dim=1)
        # timm's Swin gives (N, H, W, C), its convolutional networks (N, C, H, W).
        channels_last = features.shape[1] != self.model.num_features
        return features.mean(dim=(1, 2) if channels_last else (2, 3))

    def levels(self, x: torch.Tensor) -> tuple[Sequence[torch.Tensor], torch.Tensor]:
        """(N, 3, S, S) → maps (N, C, H, W), the last one unless taps are given, and (N, d)."""
        if self.pooling == "taps":
            maps = self._tapped(x, intermediates_only=True, stop_early=True)
            return maps, averages(maps)
        features, maps = self._tapped(x)
        return maps, self._pool(features)

    def _tapped(self, x: torch.Tensor, **how: bool) -> Any:
        """Return what timm returns: features and maps, or the maps alone."""
        return self.model.forward_intermediates(
            x,
            indices=list(self.taps) if self.taps else 1,
            norm=self.tap_norm,
            output_fmt="NCHW",
            **how,
        )


def known_input(spec: BackboneSpec) -> InputSpec:
    """Return the input that an entry's weights were trained with, from timm's records. Offline.

    Raises:
        BackboneUnavailable: if timm does not know the model and the tag of its weights.
    """
    import timm
    from timm.data.config import resolve_model_data_config

    name = _tagged(spec)
    config = _config(name)
    if config is None or "." not in name:
        raise BackboneUnavailable(
            f"timm {timm.__version__} knows no input size, mean and std for '{name}'",
            "write them into the entry (input:, mean:, std:)",
        )
    found = resolve_model_data_config(model=None, pretrained_cfg=config.to_dict())
    return InputSpec(found["input_size"][-1], found["mean"], found["std"], spec.resize)


def build(spec: BackboneSpec, path: Path | None) -> FeatureNetwork:
    """Build the architecture; `path` is its weight file, None keeps the random initialisation.

    Raises:
        BackboneUnavailable: if timm has no such architecture, or the weights do not fit.
    """
    import timm

    name = spec.model
    if not timm.is_model(name):
        raise no_such(f"timm {timm.__version__} has no model", name, timm.list_models())
    model = timm.create_model(name, pretrained=False, num_classes=0, **spec.args)
    if spec.pool == "token" and not getattr(model, "num_prefix_tokens", 0):
        raise BackboneUnavailable(f"{name} has no class token", "use pool: head or average")
    if path is not None:
        model = _with_weights(spec, path, model)
    return TimmNetwork(model, spec)


def _with_weights(spec: BackboneSpec, path: Path, model: nn.Module) -> nn.Module:
    """Return the model with a file's weights, using timm's own conversion if needed.

    That conversion resamples a position embedding for another input size, and turns an original
    release's names into timm's.
    """
    import timm

    state = map_keys(read_weights(spec, path), spec.keys, model)
    # timm's name for the classifier is "head", "head.fc", "fc" or "classifier".
    config = _config(_tagged(spec)) or _config(spec.model)
    names = getattr(config, "classifier", None) or ()
    names = (names,) if isinstance(names, str) else names
    heads = tuple(f"{name}.{part}" for name in names for part in ("weight", "bias"))
    state = {k: v for k, v in state.items() if k not in heads}
    try:
        fit_state(spec, path, state, model)
    except BackboneUnavailable as problem:
        # Zero classes on both sides let timm load strictly.
        overlay = {"state_dict": state, "num_classes": 0}
        try:
            return timm.create_model(
                spec.model,
                pretrained=True,
                pretrained_cfg_overlay=overlay,
                num_classes=0,
                **spec.args,
            )
        except Exception:  # timm's filters may raise anything on a file they do not expect
            raise problem from None
    return model


def _tagged(spec: BackboneSpec) -> str:
    """Return the model's name with the tag of its weights, as in timm's own hub repositories."""
    hub = spec.weights.hub or ""
    if "." not in spec.model and hub.startswith(f"timm/{spec.model}."):
        return hub.removeprefix("timm/")
    return spec.model


def _config(name: str) -> "PretrainedCfg | None":
    """Return timm's record of a model's weights; None if it has no such model or tag."""
    import timm

    try:
        return timm.get_pretrained_cfg(name)
    except RuntimeError:
        return None


def describe(model: str) -> dict[str, Any]:
    """Return an entry's fields for pretrained weights, MODEL.TAG.

    Raises:
        BackboneUnavailable: if timm has no such weights.
        UsageError: if timm names no hub repository for them.
    """
    import timm

    architecture = model.partition(".")[0]
    if not timm.is_model(architecture):
        raise no_such(f"timm {timm.__version__} has no model", architecture, timm.list_models())
    known = timm.list_pretrained(f"{architecture}.*")
    if model not in known:
        raise no_such(f"timm {timm.__version__} has no weights", model, known)
    config = timm.get_pretrained_cfg(model)
    if config is None or not config.hf_hub_id:
        raise UsageError(f"timm knows no hub repository of {model}; write the entry by hand.")
    return {
        "model": model,
        "weights": Weights(hub=config.hf_hub_id, file=config.hf_hub_filename),
        "input": config.input_size[-1],
        "mean": tuple(config.mean),
        "std": tuple(config.std),
        "license": config.license,
        "task": "classification" if config.num_classes else UNKNOWN,
    }
