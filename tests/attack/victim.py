"""A command in a process of its own, that can be killed as if the power had gone.

Processes are forked from one that has everything imported, so that a test can afford many.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["probe.api.train", "probe.cli", "probe.reports.report", "torch.utils.tensorboard"]
)
MARK = "RENAMED"


def start(arguments: list[object], log: Path, *, renames: int | None = None, after: bool = False):
    """Start the command line.

    Args:
        arguments: without "probe".
        log: takes what it says.
        renames: kill it at the rename of this number, counted from 0.
        after: kill it as soon as that rename is done, and not before.
    """
    process = CONTEXT.Process(
        target=_run, args=([*map(str, arguments)], log, dict(os.environ), renames, after)
    )
    process.start()
    return process


def renames_in(log: Path) -> list[str]:
    """Return what a command renamed something to, from its log."""
    return [line.split(" ", 1)[1] for line in log.read_text().splitlines() if line.startswith(MARK)]


def _run(
    arguments: list[str], log: Path, environment: dict[str, str], fatal: int | None, after: bool
) -> None:
    os.environ.update(environment)
    import torch

    torch.set_num_threads(1)
    file = log.open("w", buffering=1)
    os.dup2(file.fileno(), 1)
    os.dup2(file.fileno(), 2)
    replace, count = os.replace, 0

    def counted(source, target, **keywords) -> None:
        nonlocal count
        print(MARK, target, file=file)
        if count == fatal and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target, **keywords)
        if count == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1

    os.replace = counted
    from probe.cli import main

    sys.argv = ["probe", *arguments]
    code = 0
    try:
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(bool(end.code))
    with contextlib.suppress(ValueError):
        sys.stdout.flush()
    os._exit(code)
