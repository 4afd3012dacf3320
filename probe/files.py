"""Digests, atomic writes, records read back, and the cache folder."""

import contextlib
import functools
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import platformdirs

from probe.errors import ProbeError, printable

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError

LARGEST_TEXT = 2**28  # bytes of a record or log that is read
T = TypeVar("T")


def cache_root() -> Path:
    """Return the cache folder: `$PROBE_CACHE_DIR`, else the platform's cache directory."""
    chosen = os.environ.get("PROBE_CACHE_DIR")
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("probe"))


def digest_bytes(data: bytes) -> str:
    """Return the SHA-256 of `data` as 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def digest_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hex digits."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def digest_json(value: Any) -> str:
    """Return the SHA-256 of a plain value in canonical JSON (sorted keys) as 64 hex digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return digest_bytes(text.encode())


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it replaces `path` in one step.

    A crash at any moment leaves the old file or the new one, never a part. The file is flushed
    to disk before it is renamed.

    Raises:
        ProbeError: the folder cannot be written, or the disk is full; names the path.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb+") as f:
            os.fsync(f.fileno())
        # mkstemp makes private files; what users get follows their umask as usual.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except OSError as error:
        raise ProbeError(
            f"Cannot write {path}: {error.strerror or error}. Free some space or choose "
            "another folder (--out, --outdir, PROBE_CACHE_DIR)."
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def copy_file(source: Path, path: Path) -> None:
    """Copy a file atomically."""
    with atomic_path(path) as temporary:
        shutil.copyfile(source, temporary)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    write_bytes(path, text.encode())


def read_record(path: Path, kind: type[T], remedy: str) -> T:
    """Return what an earlier command wrote as JSON, provided that it has the shape of `kind`.

    Args:
        path: the file.
        kind: a dataclass, whose other keys are left out, or a type of plain values.
        remedy: what helps where the file is damaged, as a sentence.

    Raises:
        ProbeError: missing, cut off or of another shape; names the file and the key.
    """
    from pydantic import ValidationError

    try:
        return _shape(kind).validate_json(_read_text(path))
    except ValidationError as error:
        raise ProbeError(f"{path} is damaged ({_first_mistake(error)}). {remedy}") from error
    except OSError as error:
        raise ProbeError(f"{path} cannot be read ({error.strerror or error}). {remedy}") from error


def read_lines(path: Path, kind: type[T]) -> list[T]:
    """Return the records of a .jsonl file, none where there is no file.

    Lines that are cut off or of another shape are left out: a run that goes on may be writing one.

    Args:
        path: the file.
        kind: see `read_record`.

    Raises:
        ProbeError: it cannot be read.
    """
    from pydantic import ValidationError

    if not path.exists():
        return []
    try:
        lines = _read_text(path).splitlines()
    except OSError as error:
        raise ProbeError(
            f"{path} cannot be read ({error.strerror or error}). Move it away to go on without it."
        ) from error
    records = []
    for line in lines:
        with contextlib.suppress(ValidationError):
            records.append(_shape(kind).validate_json(line))
    return records


def _read_text(path: Path) -> bytes:
    """Return the bytes of a text file.

    Raises:
        OSError: none, no regular file, or larger than any that we write.
    """
    facts = path.stat()
    if not stat.S_ISREG(facts.st_mode):
        raise OSError("it is no regular file")
    if facts.st_size > LARGEST_TEXT:
        raise OSError(f"it is larger than {LARGEST_TEXT >> 20} MiB")
    return path.read_bytes()


@functools.cache
def _shape(kind: Any) -> "TypeAdapter[Any]":
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def _first_mistake(error: "ValidationError") -> str:
    """Return the first thing that is wrong with a record, as a clause."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    what = "is missing" if first["type"] == "missing" else first["msg"].removeprefix("Input ")
    key = ".".join(map(str, first["loc"]))
    return printable(f"'{key}' {what}" if key else what, 200)


def write_json(path: Path, value: Any) -> None:
    """Write a plain value as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
