"""Choose the reader for a path or URL."""

import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from probe.errors import ImagesError
from probe.events import OnEvent, ignore
from probe.files import near_path
from probe.images.archive import is_zip, open_zip
from probe.images.arrays import is_array, open_array
from probe.images.base import ImageSource
from probe.images.files import FileSource
from probe.images.folder import is_folder, mark_file, open_folder, read_file
from probe.images.lsun import is_database, open_database
from probe.images.names import Found
from probe.images.parquet import is_parquet, open_parquet
from probe.images.places import is_pattern
from probe.images.remote import is_on_hub, is_remote
from probe.images.shards import is_shards, open_shards
from probe.images.sheets import refuse_sheets
from probe.registry import either

Matches = Callable[[str], bool]  # a path or URL → whether the reader takes it
# (path or URL, name in messages, who is told if it takes long) → images
Reader = Callable[[str, str, OnEvent], ImageSource]

# The last one that takes a path is used: a folder of tars is also a folder.
READERS: dict[str, tuple[Matches, Reader]] = {
    "folder": (is_folder, open_folder),
    "zip": (is_zip, open_zip),
    "tar": (is_shards, open_shards),
    "Parquet file": (is_parquet, open_parquet),
    "NumPy file": (is_array, open_array),
    "LMDB": (is_database, open_database),
}


def open_files(paths: Sequence[Path]) -> ImageSource:
    """Open single image files; unreadable ones are found when they are decoded."""
    names = [str(path) for path in paths]
    return FileSource(
        f"{len(names)} files",
        "files",
        Found(names),
        lambda name: read_file(Path(name)),
        mark=mark_file,
    )


def kind_of_set(place: str) -> str | None:
    """Return which of `READERS` takes a path or URL, None if none does.

    Raises:
        ImagesError: if a URL cannot be used.
        OSError: if it cannot be read.
    """
    fitting = [kind for kind, (matches, _) in READERS.items() if matches(place)]
    return fitting[-1] if fitting else None


def is_elsewhere(place: str) -> bool:
    """Return whether this is a URL, or braces that stand for several paths, so not one path."""
    return is_remote(place) or is_pattern(place)


def open_images(
    path: Path | str, name: str | None = None, on_event: OnEvent = ignore
) -> ImageSource:
    """Open a set of images: a folder, a zip, tars, …; see `READERS`.

    Args:
        path: where the images are: a path, a path with braces, or a URL.
        name: the source's name in messages; the path by default.
        on_event: called as an index is built, which may take minutes; see `probe.events`.

    Raises:
        ImagesError: if there is no such path, nothing reads it, it has no images, or it has sample
            sheets from a training run.
    """
    place = str(path)
    name = name or place
    with opening(place, name):
        if not is_elsewhere(place):
            mode = Path(place).stat().st_mode
            if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):  # reading a pipe would block
                raise ImagesError(f"{name}: is a pipe or a device. Pass a {either(READERS)}.")
        kind = kind_of_set(place)
        if kind is not None:
            source = READERS[kind][1](place, name, on_event)
            refuse_sheets(source)
            return source
    kinds = either(READERS)
    raise ImagesError(f"{name}: not a {kinds} of images. Pass a {kinds} that holds some.")


@contextmanager
def opening(place: str, name: str) -> Iterator[None]:
    """Turn a file error in the body into one that names the path or URL and says what to do.

    Raises:
        ImagesError: for any OSError.
    """
    try:
        yield
    except FileNotFoundError as error:
        near = "" if is_elsewhere(place) else near_path(Path(place))
        what = "path"
        if is_on_hub(place):  # which does not tell the one from the other
            what = "address, and set HF_TOKEN if it is private"
        raise ImagesError(f"{name}: no such file or folder.{near} Check the {what}.") from error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        what = "permissions"
        if is_remote(place):
            what = "address, your permissions and the connection"
        raise ImagesError(f"{name}: cannot be opened: {reason}. Check its {what}.") from error
