"""Typer options from option dataclasses, so that every option is written once."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from typing import Annotated, Any

import typer


def _parameter(field: Field[Any], panel: str, flags: dict[str, str]) -> inspect.Parameter:
    """Return the Typer parameter of one dataclass field."""
    flag = flags.get(field.name, "--" + field.name.replace("_", "-"))
    if field.type is bool:
        flag = f"{flag}/--no-{flag.removeprefix('--')}"
    names = flag.split(" ")
    assert field.default is not MISSING
    annotation = Annotated[
        field.type, typer.Option(*names, help=field.metadata["help"], rich_help_panel=panel)
    ]
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=field.default,
        annotation=annotation,
    )


def with_options(
    parameter: str, options: type[Any], panel: str, **flags: str
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Replace one parameter of a command by the fields of an option dataclass.

    Args:
        parameter: the command's parameter that receives the dataclass.
        options: the dataclass; every field has a default and `help` metadata.
        panel: title of the group in the help.
        flags: field name → flags, where they are not `--field-name`; several separated by spaces.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(command)
        own = [p for name, p in signature.parameters.items() if name != parameter]
        derived = [_parameter(field, panel, flags) for field in fields(options)]

        @functools.wraps(command)
        def wrapper(**values: Any) -> Any:
            chosen = {field.name: values.pop(field.name) for field in fields(options)}
            return command(**values, **{parameter: options(**chosen)})

        wrapper.__signature__ = signature.replace(parameters=[*own, *derived])  # type: ignore[attr-defined]
        return wrapper

    return decorate
