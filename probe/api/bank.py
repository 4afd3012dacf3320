"""Check whether a bank's entries can be loaded, and are what they were."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from probe.accel.memory import is_out_of_memory
from probe.bank.base import Backbone
from probe.bank.batchnorm import WithoutStatistics
from probe.bank.file import Bank, load_bank, lock_of
from probe.bank.fingerprint import changed, fingerprint
from probe.bank.layers import split
from probe.bank.load import input_spec, load_backbone
from probe.bank.lock import Lockable, recorded, write_lock
from probe.bank.sources import SOURCES
from probe.bank.spec import BackboneSpec, Weights
from probe.bank.weights.find import address, find_weights
from probe.discriminators.heads import Head, head_kind
from probe.errors import BackboneUnavailable


def check_bank(
    bank: Path | None, backbones: Sequence[str] | str | None
) -> Iterator[tuple[str, str | None, int | None]]:
    """Load every entry of a bank, offline, and compare it with its fingerprint.

    Yields:
        Name, the problem or None, and the width of the pooled feature or None.
    """
    for spec in load_bank(bank).select(backbones):
        try:
            backbone = load_backbone(spec, offline=True)
            problem = None if spec.role == "control" else compare_fingerprint(spec, backbone)
            yield spec.name, problem, backbone.dim
        except BackboneUnavailable as error:
            yield spec.name, str(error), None
        except Exception as error:  # for example too large for this machine; check the others
            if not is_out_of_memory(error):
                raise
            yield spec.name, "it needs more memory than this machine has", None


def compare_fingerprint(spec: BackboneSpec, backbone: Backbone) -> str | None:
    """Compare a loaded entry with its fingerprint, or record it in the lock file if it has none.

    Returns:
        A clause that says how it has changed, or None; always None for a layer, which has none.
    """
    if split(spec.name)[1]:
        return None
    numbers = fingerprint(backbone)
    if spec.fingerprint is not None:
        return changed(spec.fingerprint, numbers)
    recorded(spec, fingerprint=list(numbers))
    return None


def record_weights(bank: Bank, spec: BackboneSpec, digest: str, size: int) -> str:
    """Record an entry's checksum and fingerprint in its bank's lock file.

    Args:
        bank: the bank.
        spec: an entry whose weights are here.
        digest: the SHA-256 of its weight file.
        size: in bytes.

    Returns:
        A sentence for the user if the checksum was not known before or the weights cannot be used,
        else "".

    Raises:
        ProbeError: if the lock file cannot be read or written.
    """
    lock = lock_of(bank.path)
    write_lock(lock, spec, sha256=digest, bytes=size)
    told = (
        ""
        if spec.sha256 or spec.weights.digits
        else (f"its checksum was not known before; {digest} is now in {lock}.")
    )
    if spec.fingerprint is None and isinstance(spec.weights, Lockable):
        try:
            compare_fingerprint(spec, load_backbone(spec, offline=True))
        except BackboneUnavailable as error:
            return f"{told} It cannot be loaded: {error}.".strip()
    return told


def describe_entry(spec: BackboneSpec) -> dict[str, Any]:
    """Return what there is to know of an entry, as plain values.

    Its own keys, the address and file of its weights, and of its network the layers, the pooled
    feature's width, parameters, the shapes of its maps and the head that training puts on them. The
    network is built without its weights.
    """
    expected = input_spec(spec)  # resolves values the entry leaves to timm
    record = asdict(spec) | {"input": expected.size, "mean": expected.mean, "std": expected.std}
    weights = {f.name: getattr(spec.weights, f.name) for f in fields(Weights)}
    record["weights"] = {k: v for k, v in weights.items() if v not in (None, ())}
    if spec.role != "control":
        record["address"] = address(spec.weights)
        try:
            record["found"] = str(find_weights(spec, offline=True))
        except BackboneUnavailable as error:
            record["missing"] = str(error)
    try:
        known = replace(spec, input=expected.size, mean=expected.mean, std=expected.std)
        backbone = load_backbone(_untrained(known), offline=True)
    except BackboneUnavailable as error:
        return _plain({**record, "network": f"cannot be built: {error}"})
    network = backbone.network
    layers = network.network.layers if isinstance(network, WithoutStatistics) else network.layers
    size = sum(p.numel() for p in Head(backbone.map_shapes, backbone.dim).parameters())
    return _plain(
        {
            **record,
            "layers": ", ".join(layers),
            "features": backbone.dim,
            "parameters": backbone.parameter_count,
            "maps": ", ".join("x".join(map(str, shape)) for shape in backbone.map_shapes),
            "head": f"{head_kind(backbone.map_shapes)}, {size} parameters",
        }
    )


def _untrained(spec: BackboneSpec) -> BackboneSpec:
    """Return an entry without its weights, unless they hold the network itself."""
    if SOURCES[spec.source].whole_file:
        return spec
    random = Weights(random=spec.weights.random or 0)
    return replace(spec, weights=random, role="control", sha256=None, keys=())


def _plain(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record without what is unset, its tuples as lists."""
    return {
        k: list(v) if isinstance(v, tuple) else v
        for k, v in record.items()
        if v not in (None, (), "")
    }
