"""Digests, atomic writes and the cache folder."""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import platformdirs

from probe.errors import ProbeError


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


def stamp(found: os.stat_result) -> tuple[int, ...]:
    """Return what changes whenever a file is written or replaced: which it is, size and times."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


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


def read_json(path: Path) -> dict[str, Any]:
    """Return a file's record, empty where there is no file."""
    return json.loads(path.read_text("utf-8")) if path.exists() else {}


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the records of a .jsonl file; the last line of a run that goes on may be cut."""
    records = []
    for line in path.read_text("utf-8").splitlines() if path.exists() else []:
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return records


def write_json(path: Path, value: Any) -> None:
    """Write a plain value as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
