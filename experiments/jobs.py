"""Runs in processes of their own, several at a time."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Protocol

PATIENCE = 60  # seconds in which a stopped run may write what it has
POLL = 0.5

Say = Callable[[str], None]


class Limit(Protocol):
    """Time that is not enough for everything; see `schedule.Limit`."""

    def allows(self, name: str) -> bool:
        """Return whether a process that is started now ends in time."""
        ...

    @property
    def over(self) -> bool:
        """Whether the time is up."""
        ...


class Stopped(Exception):
    """The user stopped the study."""


def run_all(
    commands: Mapping[str, Sequence[str]],
    logs: Mapping[str, Path],
    *,
    jobs: int,
    threads: int,
    say: Say,
    limit: Limit | None = None,
) -> list[str]:
    """Run commands, `jobs` at a time, in order. A failing one does not stop the others.

    Args:
        commands: name → command.
        logs: name → file that its output is appended to.
        jobs: at a time.
        threads: of each.
        say: is given one line at each start and end.
        limit: when running processes are stopped, and which are not started any more.

    Returns:
        The names of those that failed; what the limit kept from ending is not among them.

    Raises:
        Stopped: by Ctrl-C or SIGTERM; every run was stopped and goes on when it is started again.
    """
    waiting, failed = list(commands), []
    running: dict[str, tuple[subprocess.Popen, float]] = {}
    environment = dict(os.environ)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        environment[name] = str(threads)

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped

    previous = {n: signal.signal(n, stop) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        while waiting or running:
            if limit is not None:
                if limit.over:
                    for name in (*running, *waiting):
                        what = "stopped" if name in running else "not started"
                        say(f"{name}: {what}, the time is up")
                    return failed
                late = [name for name in waiting if not limit.allows(name)]
                waiting = [name for name in waiting if name not in late]
                for name in late:
                    say(f"{name}: not started, it would not end in time")
            while waiting and len(running) < jobs:
                name = waiting.pop(0)
                running[name] = _start(commands[name], logs[name], environment), time.monotonic()
                say(f"{name}: started")
            time.sleep(POLL)
            for name, (process, started) in list(running.items()):
                code = process.poll()
                if code is None:
                    continue
                del running[name]
                minutes = (time.monotonic() - started) / 60
                if code:
                    failed.append(name)
                    say(f"{name}: FAILED after {minutes:.0f} min: {_last_line(logs[name])}")
                else:
                    say(f"{name}: done after {minutes:.0f} min, {len(waiting)} waiting")
        return failed
    finally:
        for number in previous:
            signal.signal(number, signal.SIG_IGN)
        for process, _ in running.values():
            process.send_signal(signal.SIGTERM)
        for process, _ in running.values():
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
        for number, handler in previous.items():
            signal.signal(number, handler)


def _start(command: Sequence[str], log: Path, environment: dict[str, str]) -> subprocess.Popen:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as f:
        # In a session of its own: Ctrl-C reaches it through us alone, once.
        return subprocess.Popen(
            [sys.executable, *command], stdout=f, stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL, env=environment, start_new_session=True,
        )  # fmt: skip


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text("utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "no output"
