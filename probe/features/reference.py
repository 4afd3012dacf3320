"""Reference files: what comparisons need of a set of real images, without the images.

A reference is a safetensors file. Per backbone it holds the features of a seeded sample, the
moments of all images, and the record of the feature space that both belong to. Nothing in it is
trusted before it is checked, and none of its features enters the store.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from probe.errors import ImagesError, ProbeError, first_line, printable
from probe.features.moments import Moments
from probe.features.store import digest_keys
from probe.files import atomic_path, digest_bytes, near_path, to_json, utf8_path
from probe.stored import parse_record

VERSION = 1
SUFFIX = ".safetensors"
MARK = "probe.reference"  # key of the metadata
AGAIN = "Make it again with probe reference, or take a whole copy."
TEXTS = ("keys", "names")  # lists of text, one per image of the sample, as JSON in uint8
UNREADABLE = (OSError, SafetensorError, MemoryError, ValueError, TypeError)


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What a reference says of one backbone.

    Attributes:
        space: the record of its feature space.
        facts: measurements made along with its features.
        images: number of images of the moments.
    """

    space: dict[str, Any]
    facts: dict[str, Any]
    images: int


@dataclass(frozen=True, kw_only=True)
class About:
    """What a reference says of itself.

    Attributes:
        version: of the format.
        probe: version of the program that made it.
        source: name of the images.
        images: number of usable images.
        sample: how many of them the features are of, the first in the seeded order.
        sample_digest: digest of their content keys.
        seed: of the order.
        resolution: side in pixels to which all were brought.
        classes: number of classes, if the images' labels say.
        notes: sentences on how the images were read.
        backbones: name → what is kept of it.
        sha256: tensor → digest of its bytes.
    """

    version: int = VERSION
    probe: str
    source: str
    images: int
    sample: int
    sample_digest: str
    seed: int
    resolution: int
    classes: int | None = None
    notes: list[str] = field(default_factory=list)
    backbones: dict[str, Kept]
    sha256: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Reference:
    """A reference file whose records were checked; tensors are checked as they are read.

    Attributes:
        path: the file.
        name: its path or URL, as the user gave it.
        about: its record.
        keys: content keys of the sample, in the seeded order.
        names: the images' names.
        labels: their classes, None if they have none.
    """

    path: Path
    name: str
    about: About
    keys: list[str]
    names: list[str]
    labels: list[int] | None

    def features(self, name: str) -> np.ndarray:
        """Return one backbone's features of the sample, float32 (n, d).

        Raises:
            ImagesError: they are damaged.
        """
        with _opened(self.path, self.name) as file:
            found = _tensor(file, self.name, f"features.{name}", self.about)
        shape = (len(self.keys), self.about.backbones[name].facts.get("dim"))
        if found.dtype != np.float32 or found.shape != shape or not np.isfinite(found).all():
            raise _damaged(self.name, f"its features in {name} are not finite float32 {shape}")
        return found

    def moments(self, name: str) -> Moments:
        """Return the moments of all images in one backbone.

        Raises:
            ImagesError: they are damaged.
        """
        with _opened(self.path, self.name) as file:
            mean, scatter = (
                _tensor(file, self.name, f"{part}.{name}", self.about)
                for part in ("mean", "scatter")
            )
        right = mean.ndim == 1 and scatter.ndim == 2 and scatter.shape[1:] == mean.shape
        right = right and mean.dtype == scatter.dtype == np.float64
        if not (right and np.isfinite(mean).all() and np.isfinite(scatter).all()):
            raise _damaged(self.name, f"its moments in {name} are not finite float64 numbers")
        return Moments(self.about.backbones[name].images, mean, scatter)

    def check(self) -> None:
        """Read all tensors.

        Raises:
            ImagesError: one is damaged.
        """
        with _opened(self.path, self.name) as file:
            for tensor in self.about.sha256:
                _tensor(file, self.name, tensor, self.about)


@dataclass(frozen=True, kw_only=True)
class Contents:
    """A reference file, described.

    Attributes:
        path: its path or URL.
        bytes: its size.
        problem: None; it was read.
        kind: "reference".
        made: the program and its version.
        source: name of the images.
        images: how many the moments are of.
        sample: of how many it holds features, and the seed.
        resolution: side in pixels.
        backbones: each with the width of its features, precision and weights.
    """

    path: str
    bytes: int
    problem: None = None
    kind: str = "reference"
    made: str
    source: str
    images: int
    sample: int
    seed: int
    resolution: int
    backbones: list[str]


def describe_reference(reference: Reference) -> Contents:
    """Describe a reference."""
    about = reference.about
    return Contents(
        path=reference.name,
        bytes=reference.path.stat().st_size,
        made=f"probe {about.probe}",
        source=about.source,
        images=about.images,
        sample=about.sample,
        seed=about.seed,
        resolution=about.resolution,
        backbones=[
            f"{name}: {kept.facts.get('dim')} features, {kept.space.get('precision')}, weights "
            f"{str(kept.space.get('weights'))[:8]}"
            for name, kept in about.backbones.items()
        ],
    )


def is_reference(path: Path) -> bool:
    """Return whether a file says that it is a reference."""
    if path.suffix != SUFFIX or not path.is_file():
        return False
    try:
        with _opened(path, str(path)) as file:
            return MARK in (file.metadata() or {})
    except ProbeError:
        return False


def load_reference(path: Path, name: str | None = None) -> Reference:
    """Open a reference file.

    Args:
        path: the file.
        name: what to call it in messages; its path by default.

    Raises:
        ImagesError: there is no such file, or it is damaged, of another version or no reference.
    """
    name = name or str(path)
    if not path.is_file():
        raise ImagesError(f"{name}: no such file.{near_path(path)} Check the path.")
    with _opened(path, name) as file:
        text = (file.metadata() or {}).get(MARK)
        if text is None:
            raise ImagesError(
                f"{name}: is not a reference of real images. Make one with probe reference, or "
                "pass the images."
            )
        about = _parse(name, text)
        keys, names = (
            _parse_texts(name, _tensor(file, name, key, about), key, about.sample) for key in TEXTS
        )
        labels = None
        if "labels" in about.sha256:
            labels = _labels(name, _tensor(file, name, "labels", about), about.sample)
    if digest_keys(keys) != about.sample_digest:
        raise _damaged(name, "the digest of its sample is another")
    return Reference(path, name, about, keys, names, labels)


def save_reference(path: Path, about: About, tensors: Mapping[str, np.ndarray]) -> None:
    """Write a reference file atomically.

    Args:
        path: the file.
        about: its record, without digests.
        tensors: "keys" and "names" as `pack` gives them, maybe "labels", int64 (n,), and for each
            backbone "features.NAME", "mean.NAME" and "scatter.NAME"; see `Moments`.

    Raises:
        ProbeError: it cannot be written.
    """
    digests = {name: digest_bytes(tensor.tobytes()) for name, tensor in tensors.items()}
    record = {**asdict(about), "sha256": digests}
    with atomic_path(path) as temporary:
        save_file(dict(tensors), temporary, metadata={MARK: to_json(record)})


def pack(texts: list[str]) -> np.ndarray:
    """Return a list of text as one tensor, uint8."""
    return np.frombuffer(to_json(texts).encode("utf-8", "backslashreplace"), np.uint8)


def _damaged(name: str, why: str) -> ImagesError:
    return ImagesError(f"{name} is damaged: {why}. {AGAIN}")


def _parse(name: str, text: str) -> About:
    try:
        version = parse_record(text, dict[str, Any], name, AGAIN).get("version")
        if version != VERSION:
            raise ImagesError(
                f"{name}: is a reference of format {printable(str(version), 20)}; this version of "
                f"probe reads format {VERSION}. Make it again with probe reference."
            )
        about = parse_record(text, About, name, AGAIN)
    except ImagesError:
        raise
    except ProbeError as error:
        raise ImagesError(str(error)) from error
    counts = [about.images, *(kept.images for kept in about.backbones.values())]
    if not 1 <= about.sample <= min(counts) or about.resolution < 1 or min(counts) < 2:
        raise _damaged(name, "its numbers of images do not go together")
    return about


def _parse_texts(name: str, packed: np.ndarray, key: str, count: int) -> list[str]:
    try:
        texts = parse_record(packed.tobytes(), list[str], f"{name}: '{key}'", AGAIN)
    except ProbeError as error:
        raise ImagesError(str(error)) from error
    if len(texts) != count:
        raise _damaged(name, f"'{key}' are {len(texts)}, and the sample has {count} images")
    return texts


def _labels(name: str, found: np.ndarray, count: int) -> list[int]:
    if found.dtype != np.int64 or found.shape != (count,) or found.min() < 0:
        raise _damaged(name, f"its labels are not {count} classes")
    return found.tolist()


@contextmanager
def _opened(path: Path, name: str) -> Iterator[Any]:
    """Open a safetensors file.

    Raises:
        ImagesError: it cannot be read.
    """
    try:
        with utf8_path(path) as reachable, safe_open(reachable, framework="numpy") as file:
            yield file
    except UNREADABLE as error:
        why = getattr(error, "strerror", None) or first_line(error)
        raise ImagesError(f"{name} cannot be read ({why}). {AGAIN}") from error


def _tensor(file: Any, of: str, name: str, about: About) -> np.ndarray:
    """Return a tensor whose bytes are those that were written.

    Raises:
        ImagesError: they are not, or there is no such tensor.
    """
    if name not in about.sha256 or name not in file.keys():
        raise _damaged(of, f"it lacks '{printable(name, 100)}'")
    found = file.get_tensor(name)
    if digest_bytes(found.tobytes()) != about.sha256[name]:
        raise _damaged(of, f"'{printable(name, 100)}' is not what was written")
    return found
