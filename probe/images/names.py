"""Which files of a set are images: by suffix, or by first bytes if there is none. Without torch."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from probe.images.encoded import is_image, is_suffix
from probe.images.labels import LABELS_FILE

# What file managers, network drives and notebooks leave next to images, besides hidden names.
SYSTEM = frozenset(
    (
        "__macosx", "@eadir", "#recycle", "@recycle", "@recently-snapshot", "@tmp", "#snapshot",
        "$recycle.bin", "lost+found",
        "system volume information", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r",
    )
)  # fmt: skip


def is_system(part: str) -> bool:
    """Return whether one part of a path is hidden, or created by a system rather than a person."""
    return (part.startswith(".") and part not in (".", "..")) or part.lower() in SYSTEM


@dataclass(frozen=True)
class Found:
    """The files of a set, by role.

    Attributes:
        images: relative paths of the candidates, sorted.
        labels: relative paths of all files named dataset.json.
        left_out: suffix → number of other files with it, excluding system files.
        notes: sentences for the user.
    """

    images: Sequence[str]
    labels: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    notes: Sequence[str] = ()


def sort_files(names: Iterable[str], start: Callable[[str], bytes]) -> Found:
    """Separate images from other files by suffix.

    Args:
        names: relative paths.
        start: path → the first bytes of a file; called for files without a suffix.
    """
    images, labels, left_out = [], [], Counter[str]()
    system, known = dict[str, bool](), dict[str, bool]()  # a set has few folders and suffixes
    for name in names:
        folder, _, base = name.replace("\\", "/").rpartition("/")  # from Windows programs
        if folder not in system:
            system[folder] = any(map(is_system, folder.split("/")))
        if system[folder] or is_system(base):
            continue
        dot = base.rfind(".")
        suffix = base[dot:].lower() if 0 < dot < len(base) - 1 else ""
        if suffix not in known:
            known[suffix] = is_suffix(suffix)
        if known[suffix] or (not suffix and is_image(start(name))):
            images.append(name)
        elif base == LABELS_FILE:
            labels.append(name)
        else:
            left_out[suffix] += 1
    return Found(sorted(images), labels, left_out)
