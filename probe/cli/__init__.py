"""The command line: one file per command; this file lists them and sets the exit code.

A command parses, calls `probe.api`, renders the result and chooses the exit code: 0 success,
1 error, 2 usage, 3 some rows failed, 128 plus a signal's number if one stopped it: 130 for
Ctrl-C, 143 for SIGTERM.
"""

import io
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable, Collection
from typing import Any

import typer

from probe import __version__
from probe.accel.memory import is_out_of_memory
from probe.cli.help import App
from probe.cli.output import say
from probe.errors import ProbeError
from probe.registry import Place, load
from probe.stops import SIGNALS, Stopped, stop_at_once

# A command or a Typer app with several, in the order of the help.
COMMANDS: dict[str, Place[Callable[..., None] | typer.Typer]] = {
    "rank": "probe.cli.rank:rank",
    "metrics": "probe.cli.metrics:metrics",
    "score": "probe.cli.score:score",
    "features": "probe.cli.features:features",
    "reference": "probe.cli.reference:reference",
    "train": "probe.cli.train:train",
    "report": "probe.cli.report:report",
    "doctor": "probe.cli.doctor:doctor",
    "generate": "probe.cli.generate:generate",
    "inspect": "probe.cli.inspect:inspect",
    "export": "probe.cli.export:export",
    "demo": "probe.cli.demo:demo",
    "bank": "probe.cli.bank:app",
    "cache": "probe.cli.cache:app",
}
TRUE, FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def start(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", help="Print the version and exit."),
) -> None:
    """Take the options that stand before a command."""
    if version:
        say(f"probe {__version__}")
        raise typer.Exit


def make_app() -> typer.Typer:
    """Return an app with all `COMMANDS`."""
    app = App(
        name="probe",
        help="Which pretrained vision backbone can tell your real images from your generated ones, "
        "and by how much?",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={
            "help_option_names": ["-h", "--help"],
            # Typer parses options that are not given with pydantic, and importing it takes a
            # third of the time of `probe rank --help`.
            "default_map": dict.fromkeys(("help", "install_completion", "show_completion"), False),
        },
    )
    app.callback(invoke_without_command=True)(start)
    for name, place in COMMANDS.items():
        command = load(place)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name)(command)
    return app


app = make_app()  # for Sphinx and the tests; `main` makes its own from the current COMMANDS


def switches(command: Any) -> set[str]:
    """Return the names of all switches of a command and its subcommands, without dashes."""
    found = {flag[2:] for p in command.params if getattr(p, "is_flag", False) for flag in p.opts}
    return found.union(*map(switches, getattr(command, "commands", {}).values()))


def normalise_switches(arguments: list[str], known: Collection[str]) -> list[str]:
    """Turn `--mirror=1` and `--mirror=false`, as NVlabs users type them, into switches.

    A switch with any other value is left for the parser to refuse.

    Args:
        arguments: as typed.
        known: the switches; see `switches`.
    """
    result = []
    for argument in arguments:
        match = re.fullmatch(r"--([a-z0-9-]+)=(.*)", argument)
        if match is None or match[1] not in known:
            result.append(argument)
        elif match[2].lower() in TRUE:
            result.append(f"--{match[1]}")
        elif match[2].lower() in FALSE:
            result.append(f"--no-{match[1]}")
        else:
            result += [f"--{match[1]}", match[2]]  # the parser names the unexpected value
    return result


def _end_quietly() -> None:
    """Exit with 0 because the reader of our output is gone (`probe rank … | head`)."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(0)


def main() -> None:
    """Run the command line and exit with its code."""
    for signum in SIGNALS:
        signal.signal(signum, stop_at_once)
    # torch warns that TorchScript is deprecated, but as long as it reads these files we do too.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.jit\.")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Terminals get what their locale can encode; files and pipes get UTF-8.
        if sys.stdout.isatty():
            sys.stdout.reconfigure(errors="replace")
        else:
            sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    try:
        command = typer.main.get_command(make_app())
        command(normalise_switches(sys.argv[1:], switches(command)))
    except ProbeError as error:
        if not error.repeated:
            say(f"Error: {error}", err=True, style="red")
        sys.exit(error.exit_code)
    except (MemoryError, RuntimeError) as error:  # torch raises RuntimeError when out of memory
        if not is_out_of_memory(error):
            raise
        text = "Out of memory. Fewer or smaller images need less (--num, --resolution)."
        say(f"Error: {text}", err=True, style="red")
        sys.exit(1)
    except OSError as error:  # a full disk, a folder without permission
        if isinstance(error, BrokenPipeError):
            _end_quietly()
        what = f"{error.filename}: " if error.filename else ""
        why = f"{what}{error.strerror or error}"
        text = f"{why}. Completed work is saved; run the same command to resume."
        say(f"Error: {text}", err=True, style="red")
        sys.exit(1)
    except Stopped as stopped:
        if os.environ.get("RANK", "0") == "0":
            say("\nInterrupted; run the same command to resume from what is saved.", err=True)
        # Do not wait for a background thread that is still decoding.
        sys.stdout.flush()
        os._exit(stopped.exit_code)
