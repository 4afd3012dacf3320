"""Digests, atomic writes and the cache folder."""

import contextlib
import errno
import hashlib
import itertools
import json
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs

from probe.errors import UNREADABLE, CacheError, ProbeError
from probe.registry import nearest

if TYPE_CHECKING:
    from filelock import BaseFileLock

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
MOST_COMPARED = 10_000  # names beside a missing file
PARTIAL = ".partial"  # suffix of temporary files


def cache_root() -> Path:
    """Return the cache folder: `$PROBE_CACHE_DIR`, else the platform's cache directory.

    Raises:
        CacheError: it is a file, or lies below one.
    """
    root = cache_folder()
    with in_cache():
        there = next(place for place in (root, *root.absolute().parents) if place.exists())
        if not there.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, f"{there} is not a folder")
    return root


def cache_folder() -> Path:
    """Return the cache folder, whether or not it can be used; see `cache_root`.

    Raises:
        CacheError: PROBE_CACHE_DIR names a user who does not exist.
    """
    chosen = os.environ.get("PROBE_CACHE_DIR")
    try:
        return Path(chosen or platformdirs.user_cache_dir("probe")).expanduser()
    except RuntimeError as error:
        text = f"PROBE_CACHE_DIR: '{chosen}' names a user who does not exist."
        raise CacheError(text) from error


@contextlib.contextmanager
def in_cache() -> Iterator[None]:
    """Turn a file error in the cache into one that names the cache folder and its variable.

    Raises:
        FileNotFoundError: the file is gone; passed on unchanged.
        CacheError: for any other OSError.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _cache_error(error) from error


def _cache_error(error: OSError) -> CacheError:
    what = "Set PROBE_CACHE_DIR to a folder that you can write to."
    if error.errno in FULL:
        what = "Free some space, or set PROBE_CACHE_DIR to another folder; then repeat the command."
    why = error.strerror or str(error)
    return CacheError(f"The cache {cache_folder()} cannot be used: {why}. {what}")


def digest_bytes(data: bytes) -> str:
    """Return the SHA-256 of `data` as 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def digest_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hex digits."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def stamp(found: os.stat_result) -> tuple[int, ...]:
    """Return values that change when a file is written or replaced: identity, size and times."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def digest_json(value: Any) -> str:
    """Return the SHA-256 of a plain value in canonical JSON (sorted keys) as 64 hex digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return digest_bytes(text.encode())


def near_path(path: Path) -> str:
    """Return " Did you mean 'x'?" for the path beside a missing one that is most like it, or ""."""
    try:
        with os.scandir(path.parent) as found:
            names = [entry.name for entry in itertools.islice(found, MOST_COMPARED)]
    except OSError:
        return ""
    near = nearest(path.name, names)
    return f" Did you mean '{path.parent / near[0]}'?" if near else ""


def why_not(error: OSError, path: Path) -> str:
    """Return a sentence on why a file cannot be read, which suggests the file that was meant."""
    near = near_path(path) if isinstance(error, FileNotFoundError) else ""
    return f"cannot be read ({error.strerror}).{near}"


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to `path`; on success it replaces `path` in one step.

    A crash at any time leaves the old file or the new one, never a partial one. The file is flushed
    to disk before the rename.

    Raises:
        ProbeError: the folder cannot be written, or the disk is full; names the path, or the cache
            if the path is in it.
    """
    temporary = path.parent / f".{secrets.token_hex(8)}{PARTIAL}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.open("xb").close()
        mode = stat.S_IMODE(temporary.stat().st_mode)  # follows the user's umask
        with utf8_path(temporary) as reachable:
            yield reachable
        with temporary.open("rb+") as f:
            os.fsync(f.fileno())
        temporary.chmod(mode)  # safetensors replaces the file by one that only its owner can read
        temporary.replace(path)
    except OSError as error:
        if path.is_relative_to(cache_folder()):
            raise _cache_error(error) from error
        raise ProbeError(
            f"Cannot write {path}: {error.strerror or error}. Free some space or choose "
            "another folder (--out, --outdir)."
        ) from error
    finally:
        with contextlib.suppress(OSError):  # it may never have been created
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def utf8_path(path: Path) -> Iterator[Path]:
    """Yield a path in UTF-8 bytes for an existing file or folder, which every library can open.

    A file name can be any bytes, and the locale may not be UTF-8, but libraries not written in
    Python receive the name as UTF-8 and cannot open others. For such a path, this yields one
    through a temporary link to its folder, or a link to the file itself with the same suffix.
    """
    if _is_utf8(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / "link"
        if _is_utf8(Path(path.name)):
            link.symlink_to(path.parent.absolute())
            yield link / path.name
        else:
            link = link.with_suffix(path.suffix if path.suffix.isascii() else "")
            link.symlink_to(path.absolute())
            yield link


def _is_utf8(path: Path) -> bool:
    try:
        return str(path).encode() == os.fsencode(path)
    except UnicodeEncodeError:
        return False


def lock(path: Path, *, wait: bool = False) -> "BaseFileLock | None":
    """Lock a file until the lock is released or this process ends.

    Args:
        path: the file.
        wait: for another process that holds it.

    Returns:
        The lock, or None if another process holds it.
    """
    from filelock import FileLock, Timeout  # 20 ms that most commands do not need

    found = FileLock(path, blocking=wait, thread_local=False)
    try:
        found.acquire()
    except Timeout:
        return None
    return found


def leftovers(folder: Path) -> list[Path]:
    """Return the temporary files in a folder, left by a killed process or still being written."""
    return sorted(folder.glob(f".*{PARTIAL}"))


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def copy_file(source: Path, path: Path) -> None:
    """Copy a file atomically."""
    with atomic_path(path) as temporary:
        shutil.copyfile(source, temporary)


def write_text(path: Path, text: str) -> None:
    r"""Write a UTF-8 text file atomically.

    Bytes of a file name that are not UTF-8 are escaped as in \udce9, which JSON reads back
    unchanged.
    """
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def read_small(path: Path, most: int) -> bytes:
    """Return the bytes of a file that users write or edit.

    Args:
        path: the file.
        most: maximum size in bytes.

    Raises:
        OSError: it cannot be read, is too large, or is not a regular file: a pipe may never end.
    """
    with open(path, "rb", opener=_open_at_once) as f:
        if not stat.S_ISREG(os.fstat(f.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        data = f.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"more than {most / 2**20:g} MiB", str(path))
    return data


def _open_at_once(path: str, flags: int) -> int:
    """Open a file without blocking, even a pipe without a writer; Windows has no such flag."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def to_json(value: Any, *, indent: int | None = None) -> str:
    r"""Return a plain value as JSON that is safe to display.

    Letters of every script are kept. Characters that `printable` would escape become JSON escapes
    (\u202e), so a parser recovers the exact value.
    """
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return UNREADABLE.sub(lambda c: c[0] if c[0] == "\n" else json.dumps(c[0])[1:-1], text)


def write_json(path: Path, value: Any) -> None:
    """Write a plain value as indented JSON, atomically."""
    write_text(path, to_json(value, indent=2) + "\n")
