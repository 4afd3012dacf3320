"""Classes of images: the `dataset.json` of the NVlabs tools."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from probe.errors import ImagesError, printable

LABELS_FILE = "dataset.json"


def _class(label: Any) -> int:
    """Return the class of one entry: an integer, or the place of the largest float of a list."""
    if isinstance(label, list):
        values = [float(value) for value in label]
        if not values or not all(map(math.isfinite, values)):
            raise ValueError(f"{label} is not a one-hot list")
        return values.index(max(values))
    if isinstance(label, bool) or not isinstance(label, int) or label < 0:
        raise ValueError(f"{json.dumps(label)} is not a class: 0, 1, 2, … are")
    return label


def read_labels(path: Path | str, text: bytes, names: Sequence[str]) -> list[int] | None:
    """Read a `dataset.json`: {"labels": [["00000/img.png", 3], …]} or {"labels": null}.

    A label is an integer, or a one-hot list of floats, or null; null for all means no labels.

    Args:
        path: where the text came from, for messages.
        text: the file's bytes.
        names: the candidates; each must have a label.

    Returns:
        The class of each of `names`, or None.

    Raises:
        ImagesError: malformed, or a candidate without a label.
    """
    try:
        entries = json.loads(text)["labels"]
        if entries is None or all(label is None for _, label in entries):
            return None
        table = {name: None if label is None else _class(label) for name, label in entries}
    # RecursionError: brackets nested by the thousand.
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ImagesError(
            f'{path}: not a label file: {{"labels": [["name.png", 3], …]}} is expected '
            f"({type(error).__name__}: {error}). Repair or remove it."
        ) from error
    labels = [table.get(name) for name in names]
    missing = [name for name, label in zip(names, labels, strict=True) if label is None]
    if missing:
        raise ImagesError(
            f"{path}: {len(missing)} of {len(names)} images have no label, among them "
            f"{printable(missing[0])}. Label all of them or none."
        )
    return [label for label in labels if label is not None]
