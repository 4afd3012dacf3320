"""Image classes from the `dataset.json` of the NVlabs tools."""

import json
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from probe.errors import BrokenImageError, ImagesError, printable, shown

LABELS_FILE = "dataset.json"
# Allowed size of a file: a base and a share per image, enough for a one-hot list of 1 000 floats.
# Parsing takes about twenty times as much memory.
FIXED_BYTES, BYTES_PER_IMAGE, MOST_BYTES = 2**20, 2**13, 2**27
MOST_CLASSES = 100_000  # as for the networks that can be read
LONGEST_NUMBER = 20  # digits
EXPECTED = '{"labels": [["name.png", 3], …]} is expected'


@dataclass(frozen=True)
class Labels:
    """The classes of a set's images.

    Attributes:
        indices: class of every image.
        classes: number of classes, if one-hot lists give it; else None.
    """

    indices: list[int]
    classes: int | None


def find_labels(
    names: Sequence[str],
    files: Sequence[str],
    read: Callable[[str], AbstractContextManager[bytes]],
    place: str,
) -> Labels | None:
    """Read the `dataset.json` of a set; None if it has none, or one without labels.

    The file is at the top, or in the only folder above all images, as in the zip of a folder. Names
    in it are relative to its own location.

    Args:
        names: the images, as relative paths.
        files: relative paths of all files named dataset.json.
        read: relative path → its bytes.
        place: the set's name in messages.

    Raises:
        ImagesError: if it cannot be read, or does not give exactly one class per image.
    """
    if not files:
        return None
    images, places = [_canonical(name) for name in names], {_canonical(f): f for f in files}
    folder = next((f for f in _shared_folders(images) if f + LABELS_FILE in places), None)
    if folder is None:
        return None
    file = places[folder + LABELS_FILE]
    path = printable(f"{place}/{file}")
    try:
        with read(file) as text:
            entries = _parse(path, text, len(names))
    except BrokenImageError as error:
        raise ImagesError(f"{path}: {error}. Write it again.") from error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ImagesError(f"{path}: cannot be read: {reason}. Check its permissions.") from error
    if all(label is None for _, label in entries):
        return None
    return _match(path, entries, [name.removeprefix(folder) for name in images])


def _shared_folders(names: Sequence[str]) -> Iterator[str]:
    """Yield the folders that contain all files, from the top: "", "a/", "a/b/"."""
    for parent in reversed(PurePosixPath(names[0]).parents):
        folder = f"{parent}/" if parent.name else ""
        if all(name.startswith(folder) for name in names):
            yield folder


def _canonical(name: str) -> str:
    r"""Return a relative path in one spelling: Windows zips use "\", macOS NFD letters."""
    return unicodedata.normalize("NFC", name.replace("\\", "/")).removeprefix("./")


def _parse(path: str, text: bytes, images: int) -> list[tuple[str, Any]]:
    """Return the entries of a label file: canonical name and label.

    Raises:
        ImagesError: if it is too large, or not of the expected form.
    """
    most = min(MOST_BYTES, FIXED_BYTES + BYTES_PER_IMAGE * images)
    if len(text) > most:
        raise ImagesError(
            f"{path}: {len(text) / 2**20:.0f} MiB are too many for the labels of {images} images; "
            f"up to {most / 2**20:.0f} MiB are read. Write each class as a number."
        )
    try:
        # Numbers that Python refuses to parse, or parses slowly, stay text.
        entries = json.loads(text, parse_int=lambda n: int(n) if len(n) < LONGEST_NUMBER else n)
        entries = entries["labels"]
        if entries is None:
            return []
        if not isinstance(entries, list):
            raise ValueError(f"labels are {shown(entries)}")
    # RecursionError: brackets nested thousands deep.
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        what = printable(f"{type(error).__name__}: {error}", 100)
        raise ImagesError(f"{path}: not a label file: {EXPECTED} ({what}).") from error
    for number, entry in enumerate(entries):
        if not (isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str)):
            raise ImagesError(
                f"{path}: entry {number} is not a name and its class: {EXPECTED}. Correct it."
            )
    return [(_canonical(name), label) for name, label in entries]


def _match(path: str, entries: Sequence[tuple[str, Any]], names: Sequence[str]) -> Labels:
    """Return the labels of images by their canonical names.

    Raises:
        ImagesError: names the first entry that is not a class, is a duplicate, or contradicts the
            others, or the first image without an entry.
    """
    table: dict[str, int | None] = {}
    classes, first = None, ""
    for name, label in entries:
        if name in table:
            raise ImagesError(f"{path}: {printable(name)} is listed twice. Leave one entry of it.")
        if isinstance(label, list):
            if classes is None:
                classes, first = len(label), name
            elif len(label) != classes:
                raise ImagesError(
                    f"{path}: the list of {printable(name)} has {len(label)} classes, and that of "
                    f"{printable(first)} has {classes}. Make all of one length."
                )
        table[name] = None if label is None else _class(path, name, label)
    for name, index in table.items():
        if classes is not None and index is not None and index >= classes:
            raise ImagesError(
                f"{path}: {printable(name)} is of class {index}, and the list of "
                f"{printable(first)} has {classes}. Write all as numbers, or all as lists."
            )
    missing = [name for name in names if table.get(name) is None]
    if missing:
        raise ImagesError(
            f"{path}: {len(missing)} of {len(names)} images have no label, among them "
            f"{printable(missing[0])}. Label all of them or none."
        )
    return Labels([index for name in names if (index := table[name]) is not None], classes)


def _class(path: str, name: str, label: Any) -> int:
    """Return an entry's class: a number, or the position of the 1 in a one-hot list.

    Raises:
        ImagesError: if it is neither.
    """
    if isinstance(label, list):
        ones = [place for place, value in enumerate(label) if value == 1]
        if len(ones) == 1 and all(type(v) in (int, float) and v in (0, 1) for v in label):
            return ones[0]
        some = ", ".join(map(shown, label[:4])) + (", …" if len(label) > 4 else "")
        raise ImagesError(
            f"{path}: the label of {printable(name)}, [{some}], is not one-hot. An image has one "
            "class: write its number."
        )
    if type(label) is int and 0 <= label < MOST_CLASSES:
        return label
    raise ImagesError(
        f"{path}: the label of {printable(name)}, {shown(label)}, is not a class: 0, 1, 2, … are, "
        f"up to {MOST_CLASSES - 1}. Correct it."
    )
