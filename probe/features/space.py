"""Which feature space a bank entry's features belong to."""

from dataclasses import asdict
from importlib import metadata

import torch

from probe.bank.load import input_spec
from probe.bank.spec import BackboneSpec
from probe.bank.weights import weights_digest
from probe.features.store import FeatureSpace, FeatureStore
from probe.images.base import ImageSource

PIPELINE = 2  # raised whenever decoding, resizing, pooling or folding changes a feature


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that change features."""
    return {name: metadata.version(name) for name in ("torch", "timm", "open_clip_torch", "pillow")}


def open_space(
    spec: BackboneSpec,
    store: FeatureStore,
    *,
    resolution: int,
    precision: str,
    device: torch.device,
    offline: bool,
    calibration: ImageSource,
) -> FeatureSpace:
    """Return where an entry's features of images at `resolution` are kept.

    Its record holds everything that decides a feature besides the image.

    Raises:
        BackboneUnavailable: the entry's weights are not here.
    """
    return store.space(
        {
            "pipeline": PIPELINE,
            "source": spec.source,
            "model": spec.model,
            "pool": spec.pool,
            "taps": spec.taps if spec.source == "torchvision" else (),
            "input": asdict(input_spec(spec)),
            "weights": weights_digest(spec, offline=offline, calibration=calibration),
            "resolution": resolution,
            "precision": precision,
            "device": device.type,
            "versions": library_versions(),
        }
    )
