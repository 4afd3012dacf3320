"""Records that an earlier command wrote: read back with the shape relied on, or refused."""

import functools
import json
import stat
from pathlib import Path
from typing import Annotated, Any, TypeVar, overload

from pydantic import PlainValidator, TypeAdapter, ValidationError

from probe.errors import ProbeError, printable

LARGEST = 2**28  # bytes of a record or log that is read
# What Python's reader of JSON raises; nested without end is a RecursionError.
NO_JSON = (ValueError, RecursionError)
MISSING = ("missing", "missing_keyword_only_argument", "missing_argument")
T = TypeVar("T")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("should be text")
    return value


# Text that may hold bytes of a file's name that are not UTF-8, for which pydantic has no room.
Text = Annotated[str, PlainValidator(_text)]


@overload
def read_record(path: Path, kind: type[T], remedy: str) -> T: ...


@overload
def read_record(path: Path, kind: Any, remedy: str) -> Any: ...  # an annotated type is no `type`


def read_record(path: Path, kind: Any, remedy: str) -> Any:
    """Return what an earlier command wrote as JSON, provided that it has the shape of `kind`.

    Args:
        path: the file.
        kind: a dataclass, whose other keys are left out, or a type of plain values.
        remedy: what helps where the file is damaged, as a sentence.

    Raises:
        ProbeError: missing, cut off or of another shape; names the file and the key.
    """
    try:
        return _shape(kind).validate_python(json.loads(_read(path)))
    except OSError as error:
        raise ProbeError(f"{path} cannot be read ({error.strerror or error}). {remedy}") from error
    except ValidationError as error:
        raise ProbeError(f"{path} is damaged ({_first_mistake(error)}). {remedy}") from error
    except NO_JSON as error:
        what = printable(str(error), 200)
        raise ProbeError(f"{path} is damaged (no JSON: {what}). {remedy}") from error


def read_lines(path: Path, kind: type[T]) -> list[T]:
    """Return the records of a .jsonl file, none where there is no file.

    Lines that are cut off or of another shape are left out: a run that goes on may be writing one.

    Args:
        path: the file.
        kind: see `read_record`.

    Raises:
        ProbeError: it cannot be read.
    """
    if not path.exists():
        return []
    try:
        lines = _read(path).splitlines()
    except OSError as error:
        raise ProbeError(
            f"{path} cannot be read ({error.strerror or error}). Move it away to go on without it."
        ) from error
    records = []
    for line in lines:
        try:
            records.append(_shape(kind).validate_python(json.loads(line)))
        except NO_JSON:  # pydantic's error is a ValueError
            continue
    return records


def _read(path: Path) -> bytes:
    """Return the bytes of a text file.

    Raises:
        OSError: there is none, or it is no regular file or larger than any that we write.
    """
    facts = path.stat()
    if not stat.S_ISREG(facts.st_mode):
        raise OSError("it is no regular file")
    if facts.st_size > LARGEST:
        raise OSError(f"it is larger than {LARGEST >> 20} MiB")
    return path.read_bytes()


@functools.cache
def _shape(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _first_mistake(error: ValidationError) -> str:
    """Return the first thing that is wrong with a record, as a clause."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    what = "is missing" if first["type"] in MISSING else first["msg"]
    what = what.removeprefix("Input ").removeprefix("Value error, ")
    key = ".".join(map(str, first["loc"]))
    return printable(f"'{key}' {what}" if key else what, 200)
