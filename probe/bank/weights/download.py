"""Downloads: where the hub and torch store weight files, and how files get there."""

import contextlib
import errno
import http.client
import os
import shutil
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlparse

from probe.bank.spec import BackboneSpec, Weights
from probe.errors import BackboneAbsent, BackboneUnavailable, first_line
from probe.files import digest_file

DEFAULT_HUB_FILE = "model.safetensors"
TIMEOUT_SECONDS = 10
FORBIDDEN = (http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN)
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT)  # raised without a file name

# Why a host could not be reached. This process does not try it again, because behind a firewall
# each attempt can take its full timeout. Any other failure concerns a single file.
_unreachable: dict[str, str] = {}


class CutOff(Exception):
    """A download that ended early or whose bytes do not match the digest in its name."""


def fetch(spec: BackboneSpec) -> Path:
    """Download an entry's weights into the hub's or torch's own cache and return their path.

    An interrupted download leaves nothing that a later run would mistake for the whole file.

    Args:
        spec: an entry whose weights are of kind "hub" or "url".

    Raises:
        BackboneUnavailable: if the host cannot be reached, lacks or refuses the file, or the cache
            cannot be written.
    """
    weights = spec.weights
    if weights.kind == "hub":
        return _fetch_from(hub_endpoint(), spec, lambda: _fetch_hub(weights))
    reasons = []  # and not the errors, which keep connections open
    for url in (str(weights.url), *weights.mirrors):
        try:
            return _fetch_from(url, spec, lambda url=url: _fetch_url(spec, url))
        except BackboneUnavailable as error:
            if not weights.mirrors:
                raise
            reasons.append(error.reason)
    raise BackboneUnavailable(
        f"none of its addresses has sent it: {'; '.join(reasons)}",
        f"probe bank fetch {spec.name}",
    )


def _fetch_from(address: str, spec: BackboneSpec, download: Callable[[], Path]) -> Path:
    """Download from one address.

    Raises:
        BackboneUnavailable: see `fetch`.
    """
    host = urlparse(address).netloc or address
    if host in _unreachable:
        raise _cannot_reach(host, spec)
    try:
        return download()
    # huggingface_hub's errors and its HTTP library's share no base class.
    except Exception as error:
        if (disk := _of_disk(error)) is not None:
            raise _cannot_write(disk, spec) from error
        if _status(error) is None and not _connects(address):
            _unreachable[host] = _origin(error)
            raise _cannot_reach(host, spec) from error
        raise _failure(error, spec, address) from error


def hub_endpoint() -> str:
    """Return the model hub's address, without a trailing slash."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def hub_file(weights: Weights) -> str:
    """Return the weight file's name in its hub repository."""
    return weights.file or DEFAULT_HUB_FILE


def hub_cache() -> Path:
    """Return the hub's cache folder, following its own rules.

    huggingface_hub reads these variables only on import, so its value depends on import order.
    """
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(name):
            return Path(os.path.expandvars(os.environ[name])).expanduser()
    home = os.environ.get("HF_HOME") or str(_user_cache() / "huggingface")
    return Path(os.path.expandvars(home)).expanduser() / "hub"


def torch_cache_path(url: str) -> Path:
    """Return the path at which torch.hub stores the file of an address."""
    home = Path(os.environ.get("TORCH_HOME") or _user_cache() / "torch")
    return home.expanduser() / "hub" / "checkpoints" / Path(urlparse(url).path).name


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def _cannot_reach(host: str, spec: BackboneSpec) -> BackboneUnavailable:
    return BackboneAbsent(
        f"its weights are not on this machine and {host} cannot be reached ({_unreachable[host]})",
        f"probe bank fetch {spec.name}",
    )


def _cannot_write(disk: OSError, spec: BackboneSpec) -> BackboneUnavailable:
    if spec.weights.kind == "hub":
        folder, variable = hub_cache(), "HF_HUB_CACHE"
    else:
        folder, variable = torch_cache_path(str(spec.weights.url)).parent, "TORCH_HOME"
    return BackboneUnavailable(
        f"{disk.filename or folder} cannot be written ({disk.strerror})",
        f"free some space, or name another cache folder with {variable}, then "
        f"probe bank fetch {spec.name}",
    )


def _failure(error: Exception, spec: BackboneSpec, address: str) -> BackboneUnavailable:
    """Return the error for a download that failed although its host was reached."""
    host = urlparse(address).netloc or address
    again = f"probe bank fetch {spec.name}"
    weights, status = spec.weights, _status(error)
    repository = weights.hub if weights.kind == "hub" else None
    if status in FORBIDDEN and repository:
        return BackboneAbsent(
            f"{host} refuses access to {repository} ({status}): it is gated or private, "
            "or does not exist",
            f"accept its licence at {hub_endpoint()}/{repository}, set HF_TOKEN to a token of your "
            f"account there, then {again}",
        )
    if status == http.HTTPStatus.NOT_FOUND:
        what = f"no {hub_file(weights)} of {repository}" if repository else f"no {address}"
        return BackboneUnavailable(
            f"{host} has {what} ({status})", f"correct {weights.kind}: of the entry"
        )
    if status == http.HTTPStatus.TOO_MANY_REQUESTS:
        return BackboneAbsent(
            f"{host} takes no more requests for now ({status})", f"wait some minutes, then {again}"
        )
    reason = f"its weights are not on this machine and {host} did not send them ({_origin(error)})"
    return BackboneAbsent(reason, again)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes; libraries can make these circular."""
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        yield found
        seen.add(id(found))
        found = found.__cause__ or found.__context__


def _status(error: Exception) -> int | None:
    """Return the HTTP status of a response, None if there was no response."""
    for cause in _causes(error):
        if isinstance(cause, urllib.error.HTTPError):
            return cause.code
        status = getattr(getattr(cause, "response", None), "status_code", None)
        if status is not None:
            return int(status)
    return None


def _of_disk(error: Exception) -> OSError | None:
    """Return the disk error behind an error, None for a network error."""
    for cause in _causes(error):
        # urllib's errors are OSErrors too, with the address as their file name.
        if isinstance(cause, OSError) and not isinstance(cause, urllib.error.URLError):
            if cause.errno in DISK_ERRORS or cause.filename is not None:
                return cause
    return None


def _origin(error: BaseException) -> str:
    """Return the message of the first error in a chain; later ones often omit it."""
    *_, first = _causes(error)
    return first_line(first, 120)


class _Stay(urllib.request.HTTPRedirectHandler):
    """Treats a redirect as the response."""

    def redirect_request(
        self, req: object, fp: object, code: int, msg: str, headers: object, newurl: str
    ) -> None:
        """Return None, so that the redirect is not followed."""


def _connects(address: str) -> bool:
    """Return whether a host accepts connections, regardless of its response."""
    root = urlparse(address)._replace(path="/", params="", query="", fragment="").geturl()
    try:
        request = urllib.request.Request(root, method="HEAD", headers={"User-Agent": "probe"})
        opener = urllib.request.build_opener(_Stay)
        opener.open(request, timeout=TIMEOUT_SECONDS).close()
    except urllib.error.HTTPError:
        pass
    except urllib.error.URLError as error:
        # Certificate errors do not count: huggingface_hub has its own certificates.
        return isinstance(error.reason, ssl.SSLError)
    except (OSError, http.client.HTTPException, ValueError):
        pass  # connected, then no response or a malformed one; or the address is invalid
    return True


def _fetch_hub(weights: Weights) -> Path:
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    repository, name, endpoint = str(weights.hub), hub_file(weights), hub_endpoint()
    # Ask once first: the download itself tries six times, and waits between tries for as long as a
    # rate-limiting server says.
    address = hf_hub_url(repository, name, endpoint=endpoint)
    get_hf_file_metadata(address, timeout=TIMEOUT_SECONDS)
    return Path(
        hf_hub_download(
            repository,
            name,
            endpoint=endpoint,
            cache_dir=hub_cache(),
            etag_timeout=TIMEOUT_SECONDS,
        )
    )


def _fetch_url(spec: BackboneSpec, url: str) -> Path:
    """Download a file from one of an entry's addresses to torch.hub's path for the entry.

    torch.hub's own function has no timeout, takes a broken connection for the end of the file, and
    restarts each time, as pooch does. huggingface_hub's appends to the existing part even if the
    server sends everything again (0.27), tries six times and draws its own progress bar. If a
    connection breaks, the received part is kept as `.NAME.partial`, and the next call requests the
    rest. A file whose checksum is known, from the entry, its lock file or the file's name, takes
    its place only if it has it.
    """
    path = torch_cache_path(str(spec.weights.url))
    partial = path.with_name(f".{path.name}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    expected = spec.sha256 or spec.weights.digits
    length = _download(url, partial, checked=bool(expected))
    got = partial.stat().st_size
    if length is not None and got < length:
        raise CutOff(f"the download was cut off after {got} of {length} bytes")
    if (length is not None and got > length) or (
        expected and not digest_file(partial).startswith(expected)
    ):
        partial.unlink()
        raise CutOff(f"the bytes are not those that {path.name} stands for")
    partial.replace(path)
    _version_of(partial).unlink(missing_ok=True)
    return path


def _version_of(partial: Path) -> Path:
    """Return the file that says which address and version `partial` is a part of."""
    return partial.with_suffix(".version.partial")


def _download(url: str, partial: Path, *, checked: bool) -> int | None:
    """Download a file to `partial`, resuming an earlier download.

    Args:
        url: the address.
        partial: the part that is there, maybe of another address.
        checked: whether the checksum will tell if two parts do not belong together. If not, only a
            download of the same address is resumed, and the server must say that it is the same
            version.

    Returns:
        The whole file's length in bytes, if the server gives it.
    """
    version = _version_of(partial)
    place, _, tag = version.read_text("utf-8").partition("\n") if version.exists() else ("",) * 3
    same = tag if place == url else ""
    if not (checked or same):
        partial.unlink(missing_ok=True)
    have = partial.stat().st_size if partial.exists() else 0
    headers = {"User-Agent": "probe"} | ({"Range": f"bytes={have}-"} if have else {})
    if have and same:
        headers["If-Range"] = same  # everything is sent again if the file has changed
    try:
        request = urllib.request.Request(url, headers=headers)
        # Not urlopen, which keeps the proxies of its first call.
        opener = urllib.request.build_opener()
        answer = opener.open(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        # Nothing is left to download, or the file has changed.
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            partial.unlink()
            return _download(url, partial, checked=checked)
        raise
    with answer:
        goes_on = answer.status == http.HTTPStatus.PARTIAL_CONTENT
        length = answer.headers.get("Content-Length")
        tag = answer.headers.get("ETag", "")
        tag = answer.headers.get("Last-Modified", "") if tag.startswith("W/") or not tag else tag
        version.write_text(f"{url}\n{tag}", "utf-8")
        with partial.open("ab" if goes_on else "wb") as f:
            # A broken connection ends the loop, but the received part is kept.
            with contextlib.suppress(http.client.IncompleteRead):
                shutil.copyfileobj(answer, f, 2**20)
            f.flush()
            os.fsync(f.fileno())
    return None if length is None else int(length) + (have if goes_on else 0)
