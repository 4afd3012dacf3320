"""References at URLs: a copy in the cache, fetched again if the file at the URL changes."""

import os
from dataclasses import asdict, dataclass
from pathlib import Path

from probe.errors import ImagesError, ProbeError
from probe.events import OnEvent
from probe.features.reference import SUFFIX, load_reference
from probe.features.store import REFERENCES
from probe.files import PARTIAL, cache_root, digest_bytes, digest_file, in_cache, lock, write_json
from probe.images.meter import Meter
from probe.images.open import opening
from probe.images.remote import RemoteBlob
from probe.stored import read_record
from probe.stored_arrays import NAME_DIGITS

COPY_FILE = "copy.json"
LOCK_FILE = ".lock"
PIECE = 2**23  # bytes that are asked for at once


@dataclass(frozen=True, kw_only=True)
class Copy:
    """The copy that the cache holds of a reference.

    Attributes:
        url: of the reference.
        mark: what the server said of the file: its size and version.
        file: name of the copy, after the digest of its bytes.
    """

    url: str
    mark: str
    file: str


def fetch_reference(url: str, *, offline: bool, on_event: OnEvent) -> Path:
    """Return the copy of a reference at a URL; download it if there is none, or it has changed.

    Args:
        url: as fsspec takes it.
        offline: take the copy that is there, and ask nobody.
        on_event: told of the download.

    Raises:
        ImagesError: it cannot be downloaded, is damaged or no reference, or is not there offline.
        CacheError: the cache cannot be used.
    """
    folder = cache_root() / REFERENCES / digest_bytes(url.encode())[:NAME_DIGITS]
    copy = _find(folder)
    if offline:
        if copy is None:
            raise ImagesError(
                f"{url}: the cache has no copy of it, and --offline forbids the download. Run the "
                "command once without --offline, or download the file and pass its path."
            )
        return folder / copy.file
    try:
        blob = _open(url)
    except ImagesError as error:
        if copy is None:
            raise
        raise ImagesError(f"{error} The cache has a copy: --offline takes it.") from error
    if copy is None or copy.mark != blob.mark:
        copy = _download(blob, folder, on_event)
    return folder / copy.file


def _find(folder: Path) -> Copy | None:
    """Return what a folder says of its copy, None if it has none."""
    try:
        copy = read_record(folder / COPY_FILE, Copy, "")
    except ProbeError:  # missing or damaged: a new copy is made
        return None
    return copy if (folder / copy.file).is_file() else None


def _open(url: str) -> RemoteBlob:
    with opening(url, url):
        return RemoteBlob(url)


def _download(blob: RemoteBlob, folder: Path, on_event: OnEvent) -> Copy:
    """Download a reference, unless another process is doing so: then wait for its copy."""
    with in_cache():
        folder.mkdir(parents=True, exist_ok=True)
        held = lock(folder / LOCK_FILE, wait=True)
    assert held is not None
    try:
        copy = _find(folder)
        if copy is None or copy.mark != blob.mark:
            copy = _renew(blob, folder, on_event)
        return copy
    finally:
        held.release()


def _renew(blob: RemoteBlob, folder: Path, on_event: OnEvent) -> Copy:
    """Download a reference, or what an interrupted download has left of it, and check it."""
    partial = folder / f".{digest_bytes(blob.mark.encode())[:NAME_DIGITS]}{PARTIAL}"
    _fill(partial, blob, on_event)
    now = _open(blob.place).mark
    try:
        if now != blob.mark:
            raise ImagesError(
                f"{blob.place}: changed while it was downloaded. Run the command again."
            )
        load_reference(partial, blob.place).check()
    except ImagesError:
        partial.unlink()
        raise
    with in_cache():
        file = f"{digest_file(partial)[:NAME_DIGITS]}{SUFFIX}"
        partial.replace(folder / file)
    copy = Copy(url=blob.place, mark=blob.mark, file=file)
    write_json(folder / COPY_FILE, asdict(copy))
    return copy


def _fill(partial: Path, blob: RemoteBlob, on_event: OnEvent) -> None:
    """Append to a file what it lacks."""
    meter = Meter(f"downloading {blob.place}", blob.size, on_event)
    with in_cache():
        file = partial.open("ab")
    with file, blob.opened() as read:
        have = file.tell()
        meter.add(have)
        while have < blob.size:
            with opening(blob.place, blob.place):
                data = read(have, PIECE)
            with in_cache():
                file.write(data)
            have += len(data)
            meter.add(len(data))
        with in_cache():
            file.flush()
            os.fsync(file.fileno())
