"""Read images from a zip."""

import bz2
import io
import lzma
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from probe.errors import BrokenImageError, ImagesError
from probe.events import OnEvent
from probe.images.blob import Blob, BlobFile
from probe.images.encoded import LONGEST_MAGIC
from probe.images.files import FileSource
from probe.images.limits import ENCODED
from probe.images.names import sort_files
from probe.images.places import open_blob
from probe.images.remote import is_remote

# What zipfile and the decompressors raise on damaged or hostile archives: NotImplementedError for
# an unknown compression, RuntimeError for a missing password, the others from parsing.
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
LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, …, lengths of name and extra fields
LOCAL_SIGNATURE = b"PK\3\4"
SPARE = 64  # bytes
SUFFIX = ".zip"
# Packed bytes needed to see a member's beginning; bzip2 packs 900 kB at a time.
PACKED_START, BZIP2_START = 2**12, 2**20
LZMA_MEMORY = 2**28  # largest dictionary, in bytes
# Compressions that occur but are not supported.
OTHERS = {9: "Deflate64", 93: "Zstandard", 95: "xz", 98: "PPMd"}


def _inflate(packed: bytes, most: int) -> bytes:
    return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, most)


def _unpack_bzip2(packed: bytes, most: int) -> bytes:
    return bz2.BZ2Decompressor().decompress(packed, most)


def _unpack_lzma(packed: bytes, most: int) -> bytes:
    # A zip member has version and length of the properties, the properties, then data. An .lzma
    # file has the unpacked length, unknown here, between properties and data.
    (length,) = struct.unpack_from("<2xH", packed)
    file = packed[4 : 4 + length] + b"\xff" * 8 + packed[4 + length :]
    unpacker = lzma.LZMADecompressor(format=lzma.FORMAT_ALONE, memlimit=LZMA_MEMORY)
    return unpacker.decompress(file, most)


# (packed bytes, limit) → unpacked bytes. zipfile itself unpacks without a limit.
UNPACK: Mapping[int, Callable[[bytes, int], bytes]] = {
    zipfile.ZIP_STORED: lambda packed, most: packed[:most],
    zipfile.ZIP_DEFLATED: _inflate,
    zipfile.ZIP_BZIP2: _unpack_bzip2,
    zipfile.ZIP_LZMA: _unpack_lzma,
}


def is_zip(place: str) -> bool:
    """Return whether a file is a zip, or has a zip's suffix; at a URL the suffix decides.

    Raises:
        OSError: if it cannot be read.
    """
    if is_remote(place):
        return place.lower().endswith(SUFFIX)
    path = Path(place)
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return path.suffix.lower() == SUFFIX or zipfile.is_zipfile(file)


class Members:
    """The members of a zip by name, readable from several threads.

    Args:
        blob: the zip.

    Raises:
        BadZipFile: if it is not a zip, or a damaged one; or another error in `DAMAGED`.
        OSError: if the file cannot be read.
    """

    def __init__(self, blob: Blob) -> None:
        self._blob, self.threads = blob, blob.threads
        infos = zipfile.ZipFile(io.BufferedReader(BlobFile(blob), blob.window)).infolist()
        if sum(info.compress_size for info in infos) > blob.size:
            raise zipfile.BadZipFile("its members are larger than the file")
        self._infos = {info.filename: info for info in infos if not info.is_dir()}

    def __iter__(self) -> Iterator[str]:
        """Return the names; if several members share a name, the last one counts."""
        return iter(self._infos)

    @contextmanager
    def read(self, name: str) -> Iterator[bytes]:
        """Yield a member's bytes while holding memory for them.

        Raises:
            BrokenImageError: if it is encrypted, packed by an unsupported method, too large,
                damaged, or changed.
            OSError: if the file cannot be read.
        """
        info = self._infos[name]
        if info.flag_bits & ENCRYPTED:
            raise BrokenImageError("encrypted zip member")
        if info.compress_type not in UNPACK:
            how = OTHERS.get(info.compress_type, f"method {info.compress_type}")
            raise BrokenImageError(
                f"packed with {how}, which is not supported; unpack the zip, or pack it with "
                "Deflate"
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
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                raise BrokenImageError(f"damaged zip member ({reason})") from error
            yield data

    def start(self, name: str) -> bytes:
        """Return a member's first bytes, none if it is damaged."""
        info = self._infos[name]
        if info.flag_bits & ENCRYPTED or info.compress_type not in UNPACK:
            return b""
        try:
            enough = BZIP2_START if info.compress_type == zipfile.ZIP_BZIP2 else PACKED_START
            return self._unpack(info, min(info.compress_size, enough), LONGEST_MAGIC)
        except (*DAMAGED, OSError):
            return b""

    def _unpack(self, info: zipfile.ZipInfo, packed: int, most: int) -> bytes:
        """Return up to `most` bytes of a member, unpacked from `packed` bytes."""
        # Read at once what the list of members says, and a little more: the lengths of name and
        # extra fields before the data may differ from those in the list.
        about = LOCAL_HEADER.size + 2 * len(info.filename) + len(info.extra) + SPARE
        data = self._blob.read(info.header_offset, about + packed)
        signature, *lengths = LOCAL_HEADER.unpack(data[: LOCAL_HEADER.size])
        if signature != LOCAL_SIGNATURE:
            raise zipfile.BadZipFile("it is not where the list of members says")
        start = LOCAL_HEADER.size + sum(lengths)
        missing = start + packed - len(data)
        if missing > 0:
            data += self._blob.read(info.header_offset + len(data), missing)
        return UNPACK[info.compress_type](data[start : start + packed], most) if most else b""

    def mark(self, name: str) -> str:
        """Return a member's checksum and size, from the list of members."""
        info = self._infos[name]
        return f"{info.CRC:08x}:{info.file_size}"


def member_start(blob: Blob, info: zipfile.ZipInfo) -> int:
    """Return the offset of a member's packed bytes.

    Raises:
        BadZipFile: if the member is not there; or another error in `DAMAGED`.
        OSError: if the file cannot be read.
    """
    head = blob.read(info.header_offset, LOCAL_HEADER.size)
    signature, *lengths = LOCAL_HEADER.unpack(head)
    if signature != LOCAL_SIGNATURE:
        raise zipfile.BadZipFile("it is not where the list of members says")
    return info.header_offset + LOCAL_HEADER.size + sum(lengths)


def open_zip(place: str, name: str, on_event: OnEvent) -> FileSource:
    """Open a zip as an `ImageSource`; classes come from its dataset.json, if there is one.

    A member's path may be anything, because nothing is unpacked to disk.

    Args:
        place: the zip's path or URL.
        name: its name in messages.
        on_event: told nothing, since it opens in one step.

    Raises:
        ImagesError: if it is not a zip, or has no candidates.
        OSError: if the file cannot be read.
    """
    try:
        members = Members(open_blob(place))
    except DAMAGED as error:
        raise ImagesError(
            f"{name}: not a zip file, or a damaged one ({error}). Copy or download it again."
        ) from error
    found = sort_files(members, members.start)
    return FileSource(name, "zip", found, members.read, mark=members.mark, threads=members.threads)
