"""W&B and Trackio, whose modules have the same calls."""

import secrets
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any

from probe.errors import ProbeError, printable
from probe.files import write_text
from probe.run_files import TRACKED_FILE
from probe.training.tracking import Rows, Tracked

PROJECT = "probe"  # W&B's own variable WANDB_PROJECT names another


class Hosted:
    """Passes records on to a module with W&B's calls; the horizontal axis is "kimg".

    Args:
        module: the module.
        run: the run that its `init` returned.
    """

    def __init__(self, module: Any, run: Any) -> None:
        self._module, self._run = module, run

    def scalars(self, images: int, values: Mapping[str, float]) -> None:
        """Log numbers."""
        self._run.log({**values, "kimg": images / 1000})

    def picture(self, images: int, name: str, path: Path) -> None:
        """Log an image."""
        caption = f"{images / 1000:g} kimg"
        shown = self._module.Image(str(path), caption=caption)
        self._run.log({name: shown, "kimg": images / 1000})

    def table(self, images: int, name: str, headings: Sequence[str], rows: Rows) -> None:
        """Log a table."""
        table = self._module.Table(columns=list(headings), data=[list(row) for row in rows])
        self._run.log({name: table, "kimg": images / 1000})

    def close(self) -> None:
        """Send what is left."""
        with redirect_stdout(sys.stderr):
            self._run.finish()


def open_wandb(run: Tracked) -> Hosted:
    """Begin a run of W&B, or go on with it.

    Raises:
        ProbeError: W&B refuses, for example because nobody is logged in.
    """
    module = import_module("wandb")
    options = {
        "id": _name(run),
        "name": run.folder.resolve().name,
        "dir": str(run.folder),
        "settings": module.Settings(console="off"),  # the bar's redrawing is no log
    }
    try:
        began = module.init(**_common(run), **options)
    except module.Error as error:
        raise ProbeError(
            f"--log wandb: W&B could not begin ({printable(str(error), 200)}). Log in with `wandb "
            "login`, or keep it on this machine with WANDB_MODE=offline."
        ) from error
    began.define_metric("*", step_metric="kimg")  # its own steps may not go back, as a resume does
    return Hosted(module, began)


def open_trackio(run: Tracked) -> Hosted:
    """Begin a run of Trackio, or go on with it."""
    module = import_module("trackio")
    with redirect_stdout(sys.stderr):  # it prints how to see the run
        return Hosted(module, module.init(**_common(run), name=_name(run)))


def _common(run: Tracked) -> dict[str, Any]:
    return {"project": PROJECT, "config": dict(run.record), "resume": "allow"}


def _name(run: Tracked) -> str:
    """Return a name of the run that no run elsewhere has, the same when it is resumed."""
    path = run.folder / TRACKED_FILE
    if not path.exists():
        write_text(path, f"{run.folder.resolve().name}-{secrets.token_hex(4)}\n")
    return path.read_text("utf-8").strip()
