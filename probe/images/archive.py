"""A zip of images."""

import bz2
import lzma
import os
import struct
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from probe.errors import BrokenImageError, ImagesError
from probe.files import stamp
from probe.images.encoded import LONGEST_MAGIC
from probe.images.files import FileSource, sort_files
from probe.images.limits import ENCODED

# What zipfile and the decompressors raise on damaged or hostile archives: NotImplementedError for
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
LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, …, lengths of the name and of extra fields
LOCAL_SIGNATURE = b"PK\3\4"
# Packed bytes that are enough to see how a member begins; bzip2 packs 900 kB at a time.
PACKED_START, BZIP2_START = 2**12, 2**20
LZMA_MEMORY = 2**28  # bytes that a dictionary may have
# Compressions that are met and not read.
OTHERS = {9: "Deflate64", 93: "Zstandard", 95: "xz", 98: "PPMd"}


def _inflate(packed: bytes, most: int) -> bytes:
    return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, most)


def _unpack_bzip2(packed: bytes, most: int) -> bytes:
    return bz2.BZ2Decompressor().decompress(packed, most)


def _unpack_lzma(packed: bytes, most: int) -> bytes:
    # Version and length of the properties, the properties, data; an .lzma file has the length of
    # what is unpacked, here unknown, in between.
    (length,) = struct.unpack_from("<2xH", packed)
    file = packed[4 : 4 + length] + b"\xff" * 8 + packed[4 + length :]
    unpacker = lzma.LZMADecompressor(format=lzma.FORMAT_ALONE, memlimit=LZMA_MEMORY)
    return unpacker.decompress(file, most)


# Packed bytes → at most so many bytes. zipfile unpacks what it takes, however much that becomes.
UNPACK: Mapping[int, Callable[[bytes, int], bytes]] = {
    zipfile.ZIP_STORED: lambda packed, most: packed[:most],
    zipfile.ZIP_DEFLATED: _inflate,
    zipfile.ZIP_BZIP2: _unpack_bzip2,
    zipfile.ZIP_LZMA: _unpack_lzma,
}


def is_zip(path: Path) -> bool:
    """Return whether a regular file is a zip, or is called one.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return path.suffix.lower() == ".zip" or zipfile.is_zipfile(file)


class Members:
    """The members of a zip by name, which several threads may read.

    Raises:
        BadZipFile: not a zip, or a damaged one; other errors of `DAMAGED` as well.
        OSError: the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._file, self._lock = path.open("rb"), threading.Lock()
        self._opened = os.fstat(self._file.fileno())
        infos = zipfile.ZipFile(self._file).infolist()
        if sum(info.compress_size for info in infos) > self._opened.st_size:
            raise zipfile.BadZipFile("its members are larger than the file")
        self._infos = {info.filename: info for info in infos if not info.is_dir()}

    def __iter__(self) -> Iterator[str]:
        """Return the names; of several members of one name the last counts."""
        return iter(self._infos)

    @contextmanager
    def read(self, name: str) -> Iterator[bytes]:
        """Yield a member's bytes, and hold the room for them.

        Raises:
            BrokenImageError: encrypted, packed in a way that is not read, too large, damaged, or
                changed.
            OSError: the file cannot be read.
        """
        info = self._infos[name]
        if info.flag_bits & ENCRYPTED:
            raise BrokenImageError("encrypted zip member")
        if info.compress_type not in UNPACK:
            how = OTHERS.get(info.compress_type, f"method {info.compress_type}")
            raise BrokenImageError(
                f"packed with {how}, which is not read; unpack the zip, or pack it with Deflate"
            )
        if max(info.file_size, info.compress_size) > ENCODED.most:
            raise BrokenImageError(f"larger than {ENCODED.most >> 20} MiB")
        unpacked = 0 if info.compress_type == zipfile.ZIP_STORED else info.file_size
        with ENCODED.take(min(info.compress_size + unpacked, ENCODED.most)):
            try:
                data = self._unpack(info, info.compress_size, info.file_size)
                if len(data) != info.file_size or zlib.crc32(data) != info.CRC:
                    raise zipfile.BadZipFile("its checksum is wrong")
            except DAMAGED as error:
                if stamp(os.fstat(self._file.fileno())) != stamp(self._opened):
                    raise BrokenImageError("its zip changed while it was read") from error
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                raise BrokenImageError(f"damaged zip member ({reason})") from error
            yield data

    def start(self, name: str) -> bytes:
        """Return the first bytes of a member, none of one that is damaged."""
        info = self._infos[name]
        if info.flag_bits & ENCRYPTED or info.compress_type not in UNPACK:
            return b""
        try:
            enough = BZIP2_START if info.compress_type == zipfile.ZIP_BZIP2 else PACKED_START
            return self._unpack(info, min(info.compress_size, enough), LONGEST_MAGIC)
        except (*DAMAGED, OSError):
            return b""

    def _unpack(self, info: zipfile.ZipInfo, packed: int, most: int) -> bytes:
        """Return up to `most` bytes of a member, from so many packed ones."""
        with self._lock:  # one position in the file for all threads
            self._file.seek(info.header_offset)
            signature, *lengths = LOCAL_HEADER.unpack(self._file.read(LOCAL_HEADER.size))
            if signature != LOCAL_SIGNATURE:
                raise zipfile.BadZipFile("it is not where the list of members says")
            self._file.seek(sum(lengths), os.SEEK_CUR)
            data = self._file.read(packed)
        return UNPACK[info.compress_type](data, most) if most else b""


def open_zip(path: Path, name: str) -> FileSource:
    """Open a zip as an `ImageSource`; classes come from its dataset.json, if there is one.

    A member's path may be anything, since nothing is unpacked to disk.

    Args:
        path: the zip.
        name: what to call it in messages.

    Raises:
        ImagesError: not a zip, or no candidates.
        OSError: the file cannot be read.
    """
    try:
        members = Members(path)
    except DAMAGED as error:
        raise ImagesError(
            f"{name}: not a zip file, or a damaged one ({error}). Copy or download it again."
        ) from error
    return FileSource(name, "zip", sort_files(members, members.start), members.read)
