"""The feature space that a bank entry's features belong to."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

from probe import accel
from probe.bank.load import input_spec
from probe.bank.sources import SOURCES
from probe.bank.spec import BackboneSpec
from probe.bank.weights.find import weights_digest
from probe.context import Context
from probe.devices import choose_precision
from probe.errors import BackboneUnavailable
from probe.features.extract import Failure
from probe.features.store import FeatureSpace

# Fields of a record that may differ without changing which features are meant.
CIRCUMSTANCES = ("versions", "device")
PIPELINE = 3  # increased if decoding, resizing, pooling or folding changes a feature


def library_versions(spaces: Iterable[FeatureSpace]) -> dict[str, str]:
    """Return the versions of the libraries that features in these spaces depend on."""
    return {name: v for space in spaces for name, v in space.record["versions"].items()}


def precision_for(spec: BackboneSpec, name: str, device: torch.device) -> str:
    """Resolve "auto" for one backbone.

    Features of random networks hardly differ between images. Rounding them to bf16 moved the scores
    of such controls by up to 0.09 nats, 2.5 times the half-width of their intervals; for pretrained
    backbones it was at most 0.6 times. So "auto" means float32 for random weights.

    Raises:
        UsageError: if the precision is unknown.
    """
    if name == "auto" and spec.weights.random is not None:
        return "fp32"
    return choose_precision(name, device)


def open_space(spec: BackboneSpec, ctx: Context, *, resolution: int) -> FeatureSpace:
    """Return the feature space for an entry's features of images at `resolution`.

    Its record holds everything that determines a feature besides the image.

    Args:
        spec: the entry.
        ctx: its precision may be "auto".
        resolution: common side of all images in pixels.

    Raises:
        BackboneUnavailable: if the entry's weights are missing.
    """
    return ctx.store.space(
        {
            "pipeline": PIPELINE,
            "source": spec.source,
            "model": spec.model,
            "input": asdict(input_spec(spec)),
            "weights": weights_digest(spec, offline=ctx.offline, bn_images=ctx.bn_images),
            "resolution": resolution,
            "precision": precision_for(spec, ctx.precision, ctx.device),
            "device": ctx.device.type,
            **SOURCES[spec.source].key(spec),
            **accel.key(),
        }
    )


def changed_keys(recorded: Mapping[str, Any], record: Mapping[str, Any]) -> list[str]:
    """Return the keys in which two feature-space records differ after conversion to JSON."""
    now = json.loads(json.dumps(record))
    return [key for key in sorted({*recorded, *now}) if recorded.get(key) != now.get(key)]


def open_spaces(
    specs: Sequence[BackboneSpec],
    ctx: Context,
    *,
    resolution: int,
) -> tuple[dict[str, FeatureSpace], dict[str, Failure]]:
    """Return name → feature space of the entries whose weights are here, and why not of others."""
    spaces, failures = dict[str, FeatureSpace](), dict[str, Failure]()
    for spec in specs:
        try:
            spaces[spec.name] = open_space(spec, ctx, resolution=resolution)
        except BackboneUnavailable as error:
            failures[spec.name] = Failure(error.status, error.reason, error.remedy)
    return spaces, failures
