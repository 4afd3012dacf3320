"""Make new bank entries from timm's and open_clip's records of their pretrained weights."""

import re
from dataclasses import replace
from pathlib import Path

import yaml

from probe.bank.base import Backbone
from probe.bank.document import read
from probe.bank.errors import WANTED
from probe.bank.file import read_specs
from probe.bank.licences import named
from probe.bank.load import load_backbone
from probe.bank.sources import SOURCES
from probe.bank.spec import NAME, UNKNOWN, BackboneSpec, Weights
from probe.errors import BackboneUnavailable, BankError, UsageError, shown
from probe.files import to_json, write_bytes
from probe.registry import load, lookup

# The weight tags of timm and open_clip name the training data.
DATA = {
    "in1k": "ImageNet-1k", "in12k": "ImageNet-12k", "in21k": "ImageNet-21k",
    "in22k": "ImageNet-22k", "lvd142m": "LVD-142M", "lvd1689m": "LVD-1689M",
    "openai": "OpenAI WIT-400M", "laion2b": "LAION-2B", "laion400m": "LAION-400M",
    "datacomp": "DataComp", "webli": "WebLI", "ig1b": "Instagram", "yfcc15m": "YFCC-15M",
    "cc12m": "CC-12M",
}  # fmt: skip
TASKS = {
    "dino": "self-distillation", "mae": "masked image modelling", "fcmae": "masked image modelling",
    "clip": "image-text contrast", "siglip": "image-text contrast",
}  # fmt: skip


def describe_weights(
    reference: str, *, name: str | None, task: str | None, data: str | None, license: str | None
) -> tuple[BackboneSpec, Backbone]:
    """Return an entry for pretrained weights, and its network, randomly initialised.

    Args:
        reference: "timm:MODEL.TAG" or "open_clip:MODEL/TAG".
        name: of the entry; None takes it from the reference.
        task: of the weights; None guesses it from their tag.
        data: likewise.
        license: of the weights; None takes the library's.

    Raises:
        UsageError: if the reference has another form or yields no valid entry name, or the library
            has no such weights; suggests the nearest ones.
        BackboneUnavailable: if the network cannot be built, or gives no features.
    """
    source, colon, rest = reference.partition(":")
    if not colon or not rest:
        raise UsageError(
            f"'{reference}' names no source. Write timm:MODEL.TAG or open_clip:MODEL/TAG."
        )
    if name is not None and not re.fullmatch(NAME, name):
        raise UsageError(f"--name: {shown(name)} cannot be a name: {WANTED['name']}.")
    able = {name: s.describe for name, s in SOURCES.items() if s.describe is not None}
    try:
        known = load(lookup(able, source, "source"))(rest)
    except BackboneUnavailable as error:
        text = str(error)
        raise UsageError(text if text.endswith("?") else f"{text}.") from error
    words = set(re.split(r"[^a-z0-9]+", rest.lower()))
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", rest)
    guessed = [label for tag, label in DATA.items() if any(tag in word for word in words)]
    trained = [label for tag, label in TASKS.items() if any(w.startswith(tag) for w in words)]
    known |= {
        "name": name or plain,
        "task": task or (trained[0] if trained else known["task"]),
        "data": data or ", ".join(guessed) or UNKNOWN,
        "license": named(license or known["license"] or UNKNOWN),
        "source": source,
    }
    spec = BackboneSpec(**known)
    # Without its weights, to check that it works and get its dims.
    untrained = replace(spec, weights=Weights(random=0), role="control")
    return spec, load_backbone(untrained, offline=True)


def add(path: Path, spec: BackboneSpec, backbone: Backbone) -> str:
    """Append an entry to a bank file without changing its existing bytes; create it if missing.

    Args:
        path: the bank file.
        spec: the entry.
        backbone: its network, for the comment on its dims.

    Returns:
        The added text.

    Raises:
        BankError: if the file is not a bank, the name is taken, or the result would not be a bank.
    """
    before = read(path) if path.exists() else b""
    if before and spec.name in {s.name for s in read_specs(path, before)}:
        raise BankError(f"{path}: the name '{spec.name}' is taken. Give another with --name.")
    text = as_yaml(spec, backbone)
    joint = b"" if not before else b"\n" if before.endswith(b"\n") else b"\n\n"
    after = before + joint + text.encode()
    try:
        read_specs(path, after)
    except BankError as error:  # such as a list in brackets
        raise BankError(
            f"{error}\nThe entry cannot be appended; nothing was written. Add it by hand:\n\n{text}"
        ) from error
    write_bytes(path, after)
    return text


def as_yaml(spec: BackboneSpec, backbone: Backbone) -> str:
    """Return an entry as one would write it by hand in a bank file."""
    maps = ", ".join("x".join(map(str, shape)) for shape in backbone.map_shapes)
    millions = backbone.parameter_count / 1e6
    weights = ", ".join(
        f"{key}: {_quoted(value)}"
        for key in ("hub", "file")
        if (value := getattr(spec.weights, key)) is not None
    )
    lines = [
        f"# {backbone.dim} features, last map {maps}, {millions:.1f} M parameters.",
        f"- name: {_quoted(spec.name)}",
        f"  source: {spec.source}",
        f"  model: {_quoted(spec.model)}",
        f"  weights: {{{weights}}}",
        f"  input: {spec.input}",
        f"  mean: {list(spec.mean or ())}",
        f"  std: {list(spec.std or ())}",
        f"  task: {_quoted(spec.task)}",
        f"  data: {_quoted(spec.data)}",
        f"  license: {_quoted(spec.license)}",
    ]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """Return text as a YAML scalar: plain if YAML reads it back unchanged, else JSON-quoted."""
    plain = re.fullmatch(r"[A-Za-z][\w ,./+-]*", text, re.ASCII)
    return text if plain and yaml.safe_load(text) == text else to_json(text)
