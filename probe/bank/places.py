"""Validate the locations of weights in a bank, before anything is looked for there."""

import re
from pathlib import Path, PurePosixPath
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from probe.errors import shown

MISTAKEN = "place"  # pydantic's type for these errors


def mistaken_place(text: str) -> PydanticCustomError:
    """Return the error for an invalid location.

    It affects only its own entry: the others in the bank can be used.
    """
    return PydanticCustomError(MISTAKEN, "{text}", {"text": text})


def _repository(text: str) -> str:
    # The hub's own rules (huggingface_hub.utils.validate_repo_id), which are slow to import.
    part = r"[A-Za-z0-9_](?:[\w.-]*[A-Za-z0-9_])?"
    named = re.fullmatch(f"(?:{part}/)?{part}", text, re.ASCII) and len(text) <= 96
    if not named or text.endswith(".git") or "--" in text or ".." in text:
        raise mistaken_place(
            f"{shown(text)} is not a hub repository; write org/name, as in timm/resnet18.a1_in1k"
        )
    return text


def _address(text: str) -> str:
    try:
        parts = urlsplit(text)
        port_is_number = parts.port is None or parts.port > 0
    except ValueError:
        parts, port_is_number = urlsplit(""), False
    name = PurePosixPath(parts.path).name
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or not port_is_number
        or "@" in parts.netloc
        or parts.path.endswith("/")
        or name in ("", "..")
        or not re.fullmatch(r"[!-~]+", text)
    ):
        raise mistaken_place(
            f"{shown(text)} is not the address of a file; write https://HOST/PATH/FILE"
        )
    return text


def _package(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?", text):
        raise mistaken_place(f"{shown(text)} is not a package name; write it as pip does")
    return text


def _version(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9.!+_-]*[A-Za-z0-9])?", text):
        raise mistaken_place(f"{shown(text)} is not a version; write it as pip does, as in 1.0.1")
    return text


def _file(text: str) -> str:
    try:
        Path(text).expanduser()
    except RuntimeError as error:
        raise mistaken_place(f"{shown(text)} names a user who does not exist") from error
    if not text or text.endswith("/"):
        raise mistaken_place(f"{shown(text)} is not a file name")
    return text


def is_inside(file: str) -> bool:
    """Return whether a path stays inside the repository or package it is relative to."""
    path = PurePosixPath(file)
    return not path.is_absolute() and ".." not in path.parts and "\\" not in file


Repository = Annotated[str, AfterValidator(_repository)]
Address = Annotated[str, AfterValidator(_address)]
Package = Annotated[str, AfterValidator(_package)]
Version = Annotated[str, AfterValidator(_version)]
File = Annotated[str, AfterValidator(_file)]
