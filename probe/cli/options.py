"""Build Typer options from option dataclasses, so that every option is defined once."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Annotated, Any

import typer

from probe.cli.complete import backbones, words
from probe.options import Range, flags_of, is_integer


def number_option(flag: str, within: Range, *, whole: bool) -> dict[str, Any]:
    """Return the arguments of `typer.Option` that refuse a number outside its range.

    Args:
        flag: named in the error.
        within: the range, also named.
        whole: whether it is an integer.
    """

    def parse(text: str) -> float:
        try:
            value: Any = int(text) if whole else float(text)
        except ValueError:
            value = text
        within.check(flag, value, whole=whole)
        return value

    return {"parser": parse, "metavar": "<int>" if whole else "<float>"}


# What several commands take.
KINDS = "folder, zip, tars or a list of them, Parquet, .npz or LMDB, here or at a URL"
REAL = typer.Option(
    "--real", "--data", help=f"Real images: {KINDS}; or a reference.", show_default=False
)
GEN = typer.Option(
    "--gen",
    "--network",
    help="Checkpoint, run directory, module:function, or images as for --real.",
    show_default=False,
)
Reals = Annotated[
    str, typer.Argument(metavar="REALS", help=f"Images: {KINDS}.", show_default=False)
]
BankPath = Annotated[
    Path | None, typer.Option(help="Model bank; ./modelbank.yaml or the packaged one.")
]
Backbones = Annotated[
    str | None,
    typer.Option(
        help="Names, patterns, presets, layers: 'dino*,@small,swin-t@2,3'.",
        autocompletion=backbones,
    ),
]
Device = Annotated[
    str,
    typer.Option(help="auto, cpu, cuda or cuda:N.", autocompletion=words(("auto", "cpu", "cuda"))),
]
Offline = Annotated[
    bool, typer.Option("--offline/--no-offline", help="Never download weights or references.")
]
Quiet = Annotated[bool, typer.Option("--quiet/--no-quiet", help="Hide progress.")]


def _parameter(field: Field[Any], panel: str) -> inspect.Parameter:
    """Return the Typer parameter of one dataclass field."""
    names = flags_of(field)
    if field.type is bool:
        names = [f"{name}/--no-{name.removeprefix('--')}" for name in names]
    assert field.default is not MISSING
    within, choices = field.metadata["within"], field.metadata["choices"]
    numeric = {} if within is None else number_option(names[0], within, whole=is_integer(field))
    annotation = Annotated[
        field.type,
        typer.Option(
            *names,
            help=field.metadata["help"],
            rich_help_panel=field.metadata["panel"] or panel,
            autocompletion=words(choices) if choices else None,
            **numeric,
        ),
    ]
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=field.default,
        annotation=annotation,
    )


def with_options(
    parameter: str, options: type[Any], panel: str
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Replace one parameter of a command by the fields of an option dataclass.

    Args:
        parameter: the command's parameter that receives the dataclass.
        options: the dataclass; its fields are made by `probe.options.option`.
        panel: title of the group in the help.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(command)
        own = [p for name, p in signature.parameters.items() if name != parameter]
        derived = [_parameter(field, panel) for field in fields(options)]

        @functools.wraps(command)
        def wrapper(**values: Any) -> Any:
            chosen = {field.name: values.pop(field.name) for field in fields(options)}
            return command(**values, **{parameter: options(**chosen)})

        vars(wrapper)["__signature__"] = signature.replace(parameters=[*own, *derived])
        return wrapper

    return decorate
