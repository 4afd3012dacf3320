"""A zip of images."""

import lzma
import struct
import threading
import zipfile
import zlib
from pathlib import Path

from probe.errors import BrokenImageError, ImagesError
from probe.images.files import MOST_BYTES, FileSource, is_candidate
from probe.images.labels import LABELS_FILE, read_labels

# What zipfile and its decompressors raise on damaged or hostile archives: NotImplementedError for
# an unknown compression, RuntimeError for a missing password, the rest from parsing.
DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OverflowError,
    IndexError,
)
ENCRYPTED = 0x1  # bit of ZipInfo.flag_bits


def is_zip(path: Path) -> bool:
    """Return whether a file is a zip, or is called one.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return path.suffix.lower() == ".zip" or zipfile.is_zipfile(file)


def open_zip(path: Path, name: str) -> FileSource:
    """Open a zip as an `ImageSource`; classes come from its dataset.json, if there is one.

    Nothing is unpacked to disk, so a member's path may be anything.

    Args:
        path: the zip.
        name: what to call it in messages.

    Raises:
        ImagesError: not a zip, no candidates, or a malformed dataset.json.
        OSError: the file cannot be read.
    """
    try:
        archive = zipfile.ZipFile(path)
    except DAMAGED as error:
        raise ImagesError(
            f"{name}: not a zip file, or a damaged one ({error}). Copy or download it again."
        ) from error
    lock = threading.Lock()

    def read(member: str) -> bytes:
        info = archive.getinfo(member)
        if info.flag_bits & ENCRYPTED:
            raise BrokenImageError("encrypted zip member")
        if info.file_size > MOST_BYTES:
            raise BrokenImageError("larger than 1 GiB")
        try:
            with lock:  # one file handle for all threads; ZipFile counts its readers unguarded
                return archive.read(info)
        except DAMAGED as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise BrokenImageError(f"damaged zip member ({reason})") from error

    found = {i.filename for i in archive.infolist() if not i.is_dir()}
    names = sorted(filter(is_candidate, found))
    labels = None
    if LABELS_FILE in found:
        try:
            labels = read_labels(f"{name}/{LABELS_FILE}", read(LABELS_FILE), names)
        except BrokenImageError as error:
            raise ImagesError(f"{name}/{LABELS_FILE}: {error}. Make the zip again.") from error
    return FileSource(name, "zip", names, read, labels)
