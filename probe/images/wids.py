"""Lists of tars in the form that webdataset's `widsindex` writes."""

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from probe.errors import ImagesError, ProbeError
from probe.images.places import open_blob
from probe.images.remote import is_remote
from probe.stored import parse_record

SUFFIX = ".json"
VERSION = 1
LARGEST = 2**26  # bytes: a list of some 400 000 tars
REMEDY = "Pass a list of tars that widsindex wrote, or the tars themselves."


@dataclass(frozen=True)
class ListedTar:
    """A tar in a list.

    Attributes:
        url: its URL, or its path below the list's folder.
        nsamples: number of samples in it.
    """

    url: str
    nsamples: int


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What is used of a list.

    Attributes:
        wids_version: of the form.
        shardlist: the tars, in order.
        base: the folder of relative paths, if it is not the list's own.
        datasets: other lists.
    """

    wids_version: int
    shardlist: list[ListedTar]
    base: str | None = None
    datasets: list[Any] = field(default_factory=list)


def is_listing(place: str) -> bool:
    """Return whether a path or URL may be a list of tars, by its suffix."""
    return place.lower().endswith(SUFFIX) and (is_remote(place) or Path(place).is_file())


def read_listing(place: str) -> dict[str, int]:
    """Return the tars of a list, in order: path or URL → number of samples.

    Raises:
        ImagesError: if it is damaged, names none, or is another kind of file.
        OSError: if it cannot be read.
    """
    blob = open_blob(place)
    if blob.size > LARGEST:
        raise ImagesError(f"{place}: is larger than {LARGEST >> 20} MiB. {REMEDY}")
    try:
        found = parse_record(blob.read(0, blob.size), Listing, place, REMEDY)
    except ProbeError as error:
        raise ImagesError(str(error)) from error
    if found.wids_version != VERSION:
        raise ImagesError(
            f"{place}: is a list of version {found.wids_version}, and version {VERSION} is read. "
            "Name the tars themselves."
        )
    if found.datasets or not found.shardlist:
        what = "names other lists" if found.datasets else "names no tars"
        raise ImagesError(f"{place}: {what}. {REMEDY}")
    folder = _join(_folder_of(place), found.base or "")
    tars = {_join(folder, shard.url): shard.nsamples for shard in found.shardlist}
    if len(tars) < len(found.shardlist):
        raise ImagesError(f"{place}: names a tar twice. Correct the list.")
    return tars


def _folder_of(place: str) -> str:
    if not is_remote(place):
        return str(Path(place).parent)
    kind, _, rest = place.partition("://")
    return f"{kind}://{rest.rpartition('/')[0]}"


def _join(folder: str, below: str) -> str:
    """Return the path or URL that a relative one stands for in a folder."""
    if is_remote(below) or not is_remote(folder):
        return below if is_remote(below) else str(Path(folder) / below)
    kind, _, rest = folder.partition("://")
    if below.startswith("/"):
        return f"{kind}://{rest.partition('/')[0]}{below}"
    return f"{kind}://{posixpath.normpath(f'{rest}/{below}')}"


def disagreements(name: str, said: Mapping[str, int], held: Sequence[int]) -> list[str]:
    """Return a sentence if a list's sample counts are wrong; else nothing.

    Args:
        name: of the list.
        said: tar → number of samples according to the list.
        held: number of samples with an image in each.
    """
    pairs = zip(said.items(), held, strict=True)
    wrong = [(tar, count, found) for (tar, count), found in pairs if count != found]
    if not wrong:
        return []
    tar, count, found = wrong[0]
    return [
        f"{name}: wrong sample counts for {len(wrong)} of {len(said)} tars, for example {tar}: "
        f"{count} listed, {found} with an image found. All images that were found are used."
    ]
