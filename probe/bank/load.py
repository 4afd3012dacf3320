"""Load an entry: its source turns a spec into a `Backbone`."""

from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from probe import accel
from probe.bank.base import Backbone, FeatureNetwork, InputSpec
from probe.bank.batchnorm import WithoutStatistics, bn_pixels, has_batchnorm, set_statistics
from probe.bank.size import bounded_size
from probe.bank.sources import SOURCES
from probe.bank.spec import BackboneSpec
from probe.bank.tracing import own_traces
from probe.bank.weights.find import verified_weights, weights_digest
from probe.errors import BackboneUnavailable, ProbeError, first_line
from probe.files import digest_json
from probe.images.base import ImageSource
from probe.registry import load
from probe.streams import stream_seed


def input_spec(spec: BackboneSpec) -> InputSpec:
    """Return the input of an entry's network; the source fills in what the entry omits.

    Raises:
        BackboneUnavailable: if the source does not know it either.
    """
    if spec.input is not None and spec.mean is not None and spec.std is not None:
        return InputSpec(spec.input, spec.mean, spec.std, spec.resize)
    find = SOURCES[spec.source].known_input
    assert find is not None  # otherwise validation refuses the entry
    known = load(find)(spec)
    return InputSpec(
        spec.input or known.size, spec.mean or known.mean, spec.std or known.std, spec.resize
    )


def load_backbone(
    spec: BackboneSpec,
    *,
    offline: bool,
    bn_images: ImageSource | torch.Tensor | None = None,
    device: torch.device | str = "cpu",
) -> Backbone:
    """Build an entry's network with its weights, in float32.

    Random weights depend only on the entry's seed and architecture and leave the global random
    state unchanged; their BatchNorm statistics come from `bn_images`.

    Args:
        spec: the entry.
        offline: never download weights.
        bn_images: unlabelled images, a source or uint8 (N, 3, R, R), for networks with random
            weights and BatchNorm. Without them such a network can be inspected (dims, parameters)
            but refuses to compute features.
        device: the device for the finished backbone.

    Raises:
        BackboneUnavailable: if weights or architecture are missing, or do not match.
    """
    build = SOURCES[spec.source].build
    random = spec.weights.random
    path = None if random is not None else verified_weights(spec, offline=offline)[0]
    try:
        expected = input_spec(spec)
        if random is None:
            with bounded_size(), own_traces():
                network = build(spec, path)
        else:
            with torch.random.fork_rng(devices=[]), bounded_size(), own_traces():
                torch.manual_seed(stream_seed(random, spec.source, spec.model))
                network = build(spec, None)
            network.eval()
            if bn_images is not None:
                set_statistics(network, bn_pixels(bn_images), expected)
        if path is not None:
            _require_finite(network, path)
        backbone = wrap(spec, network)
    except (ProbeError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # library constructors may raise anything
        raise BackboneUnavailable(
            f"{spec.source} cannot build {spec.model} as the entry says ({first_line(error)})",
            "see model, args, input, pool and taps of the entry",
        ) from error
    if random is not None and bn_images is None and has_batchnorm(network):
        backbone.network = WithoutStatistics(network, spec.name)
    else:
        accel.speed_up(network, expected.size)
    return backbone.to(device)


def network_digest(
    spec: BackboneSpec, *, offline: bool, bn_images: ImageSource | torch.Tensor
) -> str:
    """Return a digest of an entry's weights, input and taps, which decide what it computes.

    Raises:
        BackboneUnavailable: the weights are missing.
    """
    weights = weights_digest(spec, offline=offline, bn_images=bn_images)
    taken = {"pool": spec.pool, "taps": spec.taps, "tap_norm": spec.tap_norm}
    return digest_json({"weights": weights, "input": asdict(input_spec(spec)), **taken})


def _require_finite(network: nn.Module, path: Path) -> None:
    """Check that the weights are finite; buffers may be infinite, as masks are.

    Raises:
        BackboneUnavailable: if they are not; names the tensors.
    """
    broken = [name for name, p in network.named_parameters() if not p.isfinite().all()]
    broken += [name for name, buffer in network.named_buffers() if buffer.isnan().any()]
    if broken:
        more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
        raise BackboneUnavailable(
            f"{path} holds NaN or infinite values in {', '.join(broken[:3])}{more}",
            "take a file from before its training diverged",
        )


@torch.inference_mode()
def wrap(spec: BackboneSpec, network: FeatureNetwork) -> Backbone:
    """Return a built network as a `Backbone` whose dims are found by one small pass.

    Raises:
        BackboneUnavailable: if the network returns no vector or no maps with the entry's pool and
            taps.
    """
    network.eval()
    expected = input_spec(spec)
    x = torch.zeros(1, 3, expected.size, expected.size)
    maps, pooled = network.levels(x)
    shapes = [tuple(m.shape) for m in (pooled, *maps)]
    if pooled.ndim != 2 or any(len(shape) != 4 for shape in shapes[1:]):
        raise BackboneUnavailable(
            f"{spec.model} gives {shapes[0]} as its feature and {shapes[1:]} as maps; (N, d) and "
            "(N, C, H, W) are expected",
            "see pool and taps of the entry",
        )
    return Backbone(
        spec.name,
        network,
        expected,
        dim=shapes[0][1],
        map_shapes=[(c, h, w) for _, c, h, w in shapes[1:]],
    )
