"""Read records that an earlier command wrote, and refuse damaged ones."""

import functools
import json
from pathlib import Path
from typing import Annotated, Any, TypeVar, overload

from pydantic import PlainValidator, TypeAdapter, ValidationError

from probe.errors import ProbeError, printable
from probe.files import read_small

LARGEST = 2**28  # bytes of a record or log; more than any that we write
# Errors of Python's JSON parser; endless nesting raises RecursionError.
NOT_JSON = (ValueError, RecursionError)
# pydantic's types for a missing key.
MISSING = ("missing", "missing_keyword_only_argument", "missing_argument")
T = TypeVar("T")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("should be text")
    return value


# Text that may hold bytes of a file name that are not UTF-8, which pydantic's str rejects.
Text = Annotated[str, PlainValidator(_text)]


@overload
def read_record(path: Path, kind: type[T], remedy: str) -> T: ...


@overload
def read_record(path: Path, kind: Any, remedy: str) -> Any: ...  # annotated types are not `type`s


def read_record(path: Path, kind: Any, remedy: str) -> Any:
    """Return JSON that an earlier command wrote, validated against `kind`.

    Args:
        path: the file.
        kind: a dataclass, whose other keys are ignored, or a type of plain values.
        remedy: what to do if the file is damaged, as a sentence.

    Raises:
        ProbeError: missing, truncated or of another shape; names the file and the key.
    """
    try:
        text = read_small(path, LARGEST)
    except OSError as error:
        raise ProbeError(f"{path} cannot be read ({error.strerror or error}). {remedy}") from error
    return parse_record(text, kind, str(path), remedy)


@overload
def parse_record(text: str | bytes, kind: type[T], name: str, remedy: str) -> T: ...


@overload
def parse_record(text: str | bytes, kind: Any, name: str, remedy: str) -> Any: ...


def parse_record(text: str | bytes, kind: Any, name: str, remedy: str) -> Any:
    """Return JSON, validated against `kind`; see `read_record`.

    Args:
        text: the JSON.
        kind: see `read_record`.
        name: of what holds it, for the message.
        remedy: see `read_record`.

    Raises:
        ProbeError: truncated or of another shape; names the key.
    """
    try:
        return _shape(kind).validate_python(json.loads(text))
    except ValidationError as error:
        raise ProbeError(f"{name} is damaged ({_first_mistake(error)}). {remedy}") from error
    except NOT_JSON as error:
        what = printable(str(error), 200)
        raise ProbeError(f"{name} is damaged (not JSON: {what}). {remedy}") from error


def read_lines(path: Path, kind: type[T]) -> list[T]:
    """Return the records in a .jsonl file, [] if there is no file.

    Invalid lines are skipped, since a running job may be writing one.

    Args:
        path: the file.
        kind: see `read_record`.

    Raises:
        ProbeError: it cannot be read.
    """
    if not path.exists():
        return []
    try:
        lines = read_small(path, LARGEST).splitlines()
    except OSError as error:
        raise ProbeError(
            f"{path} cannot be read ({error.strerror or error}). Move it away to go on without it."
        ) from error
    records = []
    for line in lines:
        try:
            records.append(_shape(kind).validate_python(json.loads(line)))
        except NOT_JSON:  # pydantic's error is a ValueError
            continue
    return records


@functools.cache
def _shape(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _first_mistake(error: ValidationError) -> str:
    """Return the first problem in a record, as a clause."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    what = "is missing" if first["type"] in MISSING else first["msg"]
    if first["type"] == "dataclass_type":  # pydantic names our class, which means nothing to a user
        what = "should be a dictionary"
    what = what.removeprefix("Input ").removeprefix("Value error, ")
    key = ".".join(map(str, first["loc"]))
    return printable(f"'{key}' {what}" if key else what, 200)
