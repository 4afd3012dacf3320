"""Where images may lie: paths on this machine and URLs, by one set of functions."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from probe.errors import ImagesError, UsageError, printable
from probe.images.blob import Blob, LocalBlob
from probe.images.braces import expand, has_braces
from probe.images.encoded import is_suffix
from probe.images.limits import map_threads
from probe.images.names import is_system
from probe.images.remote import THREADS as MANY
from probe.images.remote import RemoteBlob, find_remote, is_remote, list_remote

MOST_NAMED = 3
# A data set on the Hugging Face hub by its name alone, maybe with a revision.
REPOSITORY = re.compile(r"hf://datasets/[^/@]+/[^/@]+(@refs/[^/]+/[^/]+|@[^/]+)?/?", re.IGNORECASE)


def is_pattern(place: str) -> bool:
    """Return whether braces stand for several paths; one that exists with its braces is itself."""
    return has_braces(place) and (is_remote(place) or not Path(place).exists())


def may_be_folder(url: str) -> bool:
    """Return whether a URL may name a folder: it ends with a slash, or its last part has no suffix.

    To ask a web server would download a file.
    """
    return url.endswith("/") or is_repository(url) or not PurePosixPath(url).suffix


def is_repository(place: str) -> bool:
    """Return whether a URL is a data set on the Hugging Face hub by its name alone."""
    return REPOSITORY.fullmatch(place) is not None


def short_name(place: str) -> str:
    """Return a set's last part without suffix and braces, as a name for what is made of it."""
    return re.sub(r"[{}]", "", Path(place).resolve().stem) or "images"


def open_blob(place: str) -> Blob:
    """Return a file that can be read by offset.

    Raises:
        FileNotFoundError: if there is none.
        ImagesError: if it cannot be read by offset.
        OSError: if it cannot be reached.
    """
    return RemoteBlob(place) if is_remote(place) else LocalBlob(Path(place))


def files_with(place: str, suffixes: tuple[str, ...]) -> list[str]:
    """Return the files that a path or URL names by their suffix, sorted or in the order of braces.

    It may be a file, a path with braces, a folder that holds such files and neither folders nor
    images, or a repository that holds such files anywhere. Empty if it is none of those.

    Raises:
        OSError: if a folder cannot be listed.
        UsageError: if braces stand for too many.
    """
    if place.lower().endswith(suffixes) and not (not is_remote(place) and Path(place).is_dir()):
        return expand(place) if is_pattern(place) else [place]
    if is_pattern(place):
        return []
    if is_repository(place):  # which may hold pictures for its page, too
        below = find_remote(place)
        return [below[path]["url"] for path in sorted(below) if path.lower().endswith(suffixes)]
    found = []
    for path, is_folder in _listed(place):
        if is_folder or is_suffix(Path(path).suffix.lower()):
            return []
        if path.lower().endswith(suffixes):
            found.append(path)
    return sorted(found)


def _listed(place: str) -> Iterator[tuple[str, bool]]:
    """Yield what a folder holds, without system files: path, and whether it is a folder."""
    if is_remote(place):
        if not may_be_folder(place):
            return
        with suppress(FileNotFoundError):
            for path, is_folder in list_remote(place):
                if not is_system(path.rpartition("/")[2]):
                    yield path, is_folder
    elif Path(place).is_dir():
        with os.scandir(place) as entries:
            for entry in entries:
                if not is_system(entry.name):
                    yield entry.path, Path(entry.path).is_dir()


def open_blobs(paths: Sequence[str], name: str) -> dict[str, Blob]:
    """Open several files, as `files_with` gives them.

    Args:
        paths: their paths or URLs.
        name: of all together, for messages.

    Returns:
        Path below the folder that all are in → file.

    Raises:
        ImagesError: if some are missing; names them.
        OSError: if one cannot be reached.
    """

    def opened(path: str) -> Blob | None:
        try:
            return open_blob(path)
        except FileNotFoundError:
            if path == name:  # and not one of a list
                raise
            return None

    blobs = map_threads(opened, paths, MANY)
    missing = [path for path, blob in zip(paths, blobs, strict=True) if blob is None]
    if missing:
        some = ", ".join(printable(path) for path in missing[:MOST_NAMED])
        more = ", …" if len(missing) > MOST_NAMED else ""
        raise ImagesError(
            f"{name}: {len(missing)} of {len(paths)} files are missing: {some}{more}. Correct "
            "the list of names, or its range in braces."
        )
    if len(set(paths)) < len(paths):
        raise UsageError(f"{name}: names a file twice. Correct the braces.")
    parts = [path.replace("\\", "/").split("/") for path in paths]
    shortest = min(map(len, parts))
    shared = next((n for n in range(shortest) if len({part[n] for part in parts}) > 1), -1)
    titles = ["/".join(part[shared:]) for part in parts]
    return {title: blob for title, blob in zip(titles, blobs, strict=True) if blob is not None}
