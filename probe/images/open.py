"""Choose the reader for a path."""

import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from probe.errors import ImagesError
from probe.files import near_path
from probe.images.archive import is_zip, open_zip
from probe.images.base import ImageSource
from probe.images.files import FileSource
from probe.images.folder import open_folder, read_file
from probe.images.names import Found
from probe.images.sheets import refuse_sheets

READERS: Mapping[str, tuple[Callable[[Path], bool], Callable[[Path, str], FileSource]]] = {
    "folder": (Path.is_dir, open_folder),
    "zip": (is_zip, open_zip),
}


def open_files(paths: Sequence[Path]) -> ImageSource:
    """Open single image files; unreadable ones are found when they are decoded."""
    names = [str(path) for path in paths]
    return FileSource(f"{len(names)} files", "files", Found(names), lambda n: read_file(Path(n)))


def open_images(path: Path | str, name: str | None = None) -> ImageSource:
    """Open a folder or a zip of images.

    Args:
        path: where the images are.
        name: the source's name in messages; the path by default.

    Raises:
        ImagesError: if there is no such path, it is not a folder or zip, it has no images, or it
            has sample sheets from a training run.
    """
    path = Path(path)
    name = name or str(path)
    try:
        mode = path.stat().st_mode
        if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):  # reading a pipe would block
            raise ImagesError(f"{name}: is a pipe or a device. Pass a folder or a zip of images.")
        for matches, reader in READERS.values():
            if matches(path):
                source = reader(path, name)
                refuse_sheets(source)
                return source
    except FileNotFoundError as error:
        raise ImagesError(
            f"{name}: no such file or folder.{near_path(path)} Check the path."
        ) from error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ImagesError(f"{name}: cannot be opened: {reason}. Check its permissions.") from error
    kinds = " or ".join(READERS)
    raise ImagesError(f"{name}: not a {kinds} of images. Pass a {kinds} that holds some.")
