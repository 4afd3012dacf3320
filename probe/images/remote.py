"""Files on object storage and web servers, through fsspec.

Nothing is downloaded whole: what is needed is asked for by offset. A failed request is repeated; so
that an image is asked for once although it is hashed first and decoded afterwards, the last ones
are kept in memory.
"""

import errno
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from probe.errors import ImagesError, first_line
from probe.images.blob import ReadAt
from probe.images.recent import Recent

URL = re.compile(r"[a-z][a-z0-9+.-]*(::[a-z][a-z0-9+.-]*)*://", re.IGNORECASE)
WEB = ("http://", "https://")
HUB = "hf://"
WAITS = (0.5, 1.0, 2.0)  # seconds before a failed request is repeated
CONNECT_SECONDS, SILENT_SECONDS = 10, 60  # without an answer, after which a request has failed
THREADS = 32  # a request waits for the network most of the time
WINDOW = 2**20  # bytes that take about as long as the request itself
RECENT_BYTES, LARGEST_RECENT = 2**28, 2**25  # kept in memory: together, and of one read
INSTALL = 'pip install "gan-probe[remote]"'
# Packages that fsspec needs for a kind of URL, besides those of the extra.
PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}
# What changes with a file's contents, under the names of different systems.
VERSIONS = (
    "ETag", "etag", "Content-MD5", "md5Hash", "blob_id", "LastModified", "Last-Modified", "mtime",
    "updated", "created",
)  # fmt: skip
GONE = (404, 410)  # HTTP
PAGE = "text/html"

T = TypeVar("T")


class RemoteError(OSError):
    """A place that cannot be reached or read; `strerror` says why."""


def is_remote(place: str) -> bool:
    """Return whether a path is a URL."""
    return URL.match(place) is not None


class RemoteBlob:
    """A file at a URL.

    Args:
        url: as fsspec takes it.
        listed: what a listing of its folder says of it; None to ask.

    Raises:
        ImagesError: if a package is missing, it is a web page, or the server gives no parts of
            files.
        FileNotFoundError: if there is none.
        RemoteError: if it cannot be reached.
    """

    window, threads = WINDOW, THREADS

    def __init__(self, url: str, listed: Mapping[str, Any] | None = None) -> None:
        self.place = url
        info = listed
        if info is None or info.get("size") is None:
            info = _ask(url, lambda system, path: system.info(path))
        if info.get("type") == "directory":
            raise FileNotFoundError(errno.ENOENT, "No such file", url)
        if info.get("mimetype") == PAGE:
            raise ImagesError(
                f"{url}: is a web page, not a file. Take the address that downloads the file, or "
                "one that needs no login."
            )
        if info.get("size") is None:
            raise RemoteError(errno.EIO, "the server does not say how large it is", url)
        self.size = int(info["size"])
        version = next((str(info[name]) for name in VERSIONS if info.get(name)), "")
        self.mark = f"{self.size}:{version}"
        if listed is None and _is_web(url) and self.size > 1:
            _ask(url, _require_parts)

    @contextmanager
    def opened(self) -> Iterator[ReadAt]:
        """Yield a function that reads."""
        yield self._fetch

    def read(self, start: int, count: int) -> bytes:
        """Return up to `count` bytes from `start` on."""
        if count > LARGEST_RECENT:
            return self._fetch(start, count)
        key = (self.place, self.mark, start, count)
        return _RECENT.get(key, lambda: self._fetch(start, count))

    def _fetch(self, start: int, count: int) -> bytes:
        end = min(start + count, self.size)
        if start < 0:
            raise ValueError(f"negative position {start}")
        if start >= end:
            return b""

        def fetched(system: Any, path: str) -> bytes:
            data = system.cat_file(path, start=start, end=end, **_exactly(self.place))
            if len(data) != end - start:
                raise ConnectionError(f"{len(data)} bytes came in place of {end - start}")
            return data

        return _ask(self.place, fetched)


def _require_parts(system: Any, path: str) -> None:
    """Raise unless a web server gives parts of files.

    Raises:
        ImagesError: if it sends whole files only.
    """
    with system.open(path, block_size=1, cache_type="none") as file:
        file.seek(1)
        try:
            file.read(1)
        except ValueError as error:
            raise ImagesError(
                f"{path}: its server sends whole files only, without range requests. Download the "
                "file, or serve it from one that supports them."
            ) from error


def list_remote(url: str) -> list[tuple[str, bool]]:
    """Return what lies in a folder at a URL: each URL, and whether it is a folder.

    Raises:
        ImagesError: if a package is missing.
        FileNotFoundError: if there is no such folder.
        RemoteError: if it cannot be reached.
    """

    def listed(system: Any, path: str) -> list[tuple[str, bool]]:
        entries = system.ls(path, detail=True)
        names = [(e["name"].rstrip("/"), e["type"] == "directory") for e in entries]
        return [(system.unstrip_protocol(name), is_folder) for name, is_folder in names]

    return sorted(_ask(url, listed))


def find_remote(url: str) -> dict[str, dict[str, Any]]:
    """Return the files below a folder at a URL: path below it → what is known, with its "url".

    Raises:
        ImagesError: if a package is missing.
        FileNotFoundError: if there is no such folder.
        RemoteError: if it cannot be reached.
    """

    def found(system: Any, path: str) -> dict[str, dict[str, Any]]:
        top = path.rstrip("/") + "/"
        infos = system.find(path, detail=True)
        below = {name.removeprefix(top): name for name in infos if name.startswith(top)}
        if not below:
            raise FileNotFoundError(errno.ENOENT, "No such folder", url)
        return {
            short: {**infos[name], "url": system.unstrip_protocol(name)}
            for short, name in below.items()
        }

    return _ask(url, found)


def _ask(url: str, call: Callable[[Any, str], T]) -> T:
    """Return what a call of the URL's file system gives; repeated if it fails.

    Raises:
        ImagesError: if a package is missing, or the kind of URL is unknown.
        FileNotFoundError: if the place does not exist.
        RemoteError: if the last try fails as well.
    """
    for wait in (*WAITS, None):
        try:
            return call(*_system(url))
        except ImagesError:
            raise
        except Exception as error:  # each file system raises its own kinds
            if _is_missing(url, error):
                raise FileNotFoundError(errno.ENOENT, "No such file or folder", url) from error
            if wait is None or isinstance(error, PermissionError):
                raise RemoteError(errno.EIO, _reason(error), url) from error
        time.sleep(wait)
    raise AssertionError


def _system(url: str) -> tuple[Any, str]:
    """Return the file system for a URL and the path in it; fsspec keeps one per process.

    Raises:
        ImagesError: if a package is missing, or the kind of URL is unknown.
    """
    try:
        from fsspec.core import url_to_fs

        return url_to_fs(url, **_options(url))
    except ImportError as error:
        kind = url.partition("://")[0].rpartition("::")[2].lower()
        install = f"pip install {PACKAGES[kind]}" if kind in PACKAGES else INSTALL
        raise ImagesError(f"{url}: {kind}:// needs a package: {install}.") from error
    except ValueError as error:
        raise ImagesError(f"{url}: {first_line(error)}. Check the address.") from error


def _is_web(url: str) -> bool:
    return url.lower().startswith(WEB)


def is_on_hub(url: str) -> bool:
    """Return whether a URL is on the Hugging Face hub."""
    return url.lower().startswith(HUB)


def _options(url: str) -> dict[str, Any]:
    if not _is_web(url):
        return {}
    from aiohttp import ClientTimeout

    timeout = ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENT_SECONDS)
    return {"client_kwargs": {"timeout": timeout}}


def _exactly(url: str) -> dict[str, Any]:
    """Return the arguments that keep a file system from reading ahead, by 5 MiB for each image."""
    return {"cache_type": "none"} if is_on_hub(url) else {}


def _is_missing(url: str, error: Exception) -> bool:
    """Return whether a place does not exist; fsspec says so of any error of a web server."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        return False
    cause = error.__cause__
    return cause is None or not _is_web(url) or getattr(cause, "status", None) in GONE


def _reason(error: Exception) -> str:
    """Return why a place cannot be reached, as a clause."""
    cause = error.__cause__ or error
    status = getattr(cause, "status", None)
    if status is not None:
        return f"the server answered {status} {getattr(cause, 'message', '')}".strip()
    return first_line(cause)


_RECENT = Recent[bytes](RECENT_BYTES, len)
