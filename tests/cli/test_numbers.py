"""Numbers that mean nothing, for every option of every command that takes one."""

import inspect
import re
from collections.abc import Iterator
from dataclasses import fields
from typing import get_args

import pytest
import typer
from typer.models import ArgumentInfo

from probe.cli import app
from probe.errors import UsageError
from probe.generators.config import SampleOptions
from probe.metrics.config import MeasureOptions
from probe.options import Range, flags_of
from probe.probing.config import RankOptions
from probe.training.config import TrainConfig

OPTIONS = (RankOptions, MeasureOptions, SampleOptions, TrainConfig)
# Below, above, no number, and what a slip of the keyboard gives.
ABSURD = (
    "word",
    "",
    "nan",
    "inf",
    "-inf",
    "1e300",
    "-1000000000000",
    "1000000000000",
    "9" * 400,
    "9" * 5000,
)


def commands(group: typer.Typer = app) -> Iterator[tuple[str, inspect.Signature]]:
    """Yield the name and the parameters of every command."""
    for command in group.registered_commands:
        name = command.name or command.callback.__name__
        yield name, inspect.signature(command.callback)
    for inner in group.registered_groups:
        for name, signature in commands(inner.typer_instance):
            yield f"{inner.name} {name}", signature


def called(name: str, parameter: inspect.Parameter) -> str | None:
    """Return a parameter's flag; None for an argument."""
    (info,) = parameter.annotation.__metadata__
    if isinstance(info, ArgumentInfo):
        return None
    # Typer takes the first flag for a default until it looks at the annotation.
    declared = [d for d in (info.default, *(info.param_decls or ())) if str(d).startswith("--")]
    return declared[0] if declared else "--" + name.replace("_", "-")


CASES = [
    (command, called(name, parameter))
    for command, signature in commands()
    for name, parameter in signature.parameters.items()
    if get_args(parameter.annotation)[0] in (int, float, int | None, float | None)
]


def test_every_number_has_a_range():
    for options in OPTIONS:
        for field in fields(options):
            is_number = field.type in (int, float, int | None, float | None)
            assert (field.metadata["within"] is not None) == is_number, field.name
    assert {command for command, _ in CASES} >= {"rank", "train", "metrics", "generate", "doctor"}
    assert ("score", "--threshold") in CASES and ("train", "--kimg") in CASES


@pytest.mark.parametrize(("command", "option"), CASES, ids=lambda v: v)
def test_absurd_numbers_are_refused_at_the_door(cli, tmp_path, monkeypatch, command, option):
    """Nothing that is named exists: whoever looked further than the number would say that."""
    monkeypatch.chdir(tmp_path)
    arguments = []
    for name, parameter in dict(commands())[command].parameters.items():
        if parameter.default is parameter.empty:
            arguments += [part for part in (called(name, parameter), "nowhere") if part]
    for value in ABSURD:
        for more in ((), ("--dry-run",)) if command == "train" else ((),):
            result = cli(*command.split(), *arguments, f"{option}={value}", *more)
            assert result.code == 2, (value, result.err)
            assert result.err.startswith(f"Error: {option}: must be a")
            assert re.search(r"from \S+ to \d+|above 0 and at most \d+", result.err)
            assert result.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_the_refusal_names_flag_range_and_value(cli):
    for arguments, words in [
        (("--kimg", "nan"), "--kimg: must be a number from 0.001 to 1000000, not nan."),
        (("--tick", "inf"), "--tick: must be a number above 0 and at most 1000000, not inf."),
        (("--tick", "0"), "--tick: must be a number above 0"),
        (("--z-dim", "1000000000"), "--z-dim: must be a whole number from 1 to 16384"),
        (("--channel-base", "1"), "--channel-base: must be a whole number from 16 to 1048576"),
        (("--ema-rampup", "nan"), "--ema-rampup: must be a number from 0 to 1000, not nan."),
        (("--stage-kimg", "nan"), "--stage-kimg: must be a number from 0 to 1000000, not nan."),
        (("--stage-kimg", "1e300"), "--stage-kimg: must be a number from 0 to 1000000, not 1e+300"),
        (("--stage-kimg", "x"), "--stage-kimg: must be a number from 0 to 1000000, not x."),
        (("--stage-kimg", "1e-9"), "'1e-9' is too short"),
        (("--k", "9" * 50), "--k: must be a whole number from 1 to 1000, not one of more than 40"),
    ]:
        for dry in ((), ("--dry-run",)):
            result = cli("train", "--real", "nowhere", *arguments, *dry)
            assert result.code == 2 and words in result.err, result.err


def test_python_is_told_the_same():
    for options, given in [
        (TrainConfig, {"batch": 4.5}), (TrainConfig, {"k": True}), (TrainConfig, {"lr": "0.1"}),
        (RankOptions, {"num": 10**400}), (MeasureOptions, {"seed": 2**31}),
        (SampleOptions, {"trunc": float("inf")}),
    ]:  # fmt: skip
        (name,) = given
        flag = flags_of(next(f for f in fields(options) if f.name == name))[0]
        with pytest.raises(UsageError, match=f"^{flag}: must be"):
            options(**given)


def test_a_network_without_channels_is_refused(cli, reals, bank, tmp_path):
    result = cli("train", "--real", reals, "--outdir", tmp_path / "runs", "--bank", bank,
                 "--channel-base", "16", "--dry-run")  # fmt: skip
    assert result.code == 2 and "--channel-base: 16 leaves no channel at 32 px" in result.err


def test_ends_belong_to_a_range_unless_it_is_open():
    Range(0, 1).check("--p", 0)
    Range(0, 1).check("--p", 1.0)
    Range(0, 1, is_open=True).check("--p", 1)
    with pytest.raises(UsageError, match="above 0 and at most 1, not 0"):
        Range(0, 1, is_open=True).check("--p", 0)


@pytest.mark.parametrize(
    "arguments",
    [("--older-than", "9" * 400 + "d"), ("--larger-than", "9" * 400), ("--larger-than", "nanGB")],
)
def test_absurd_sizes_and_times_are_refused(cli, arguments):
    result = cli("cache", "prune", *arguments)
    assert result.code == 2 and arguments[0] in result.err
