"""Processes beside this one that run calls, for work in which threads wait for Python's lock.

`concurrent.futures` has such processes too, but they import the caller's main module, so they run
every script without an `if __name__ == "__main__"` once more.
"""

import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

CODE = "import sys; sys.path[:] = {path!r}; from probe.workers import serve; serve()"


def usable_cores() -> int:
    """Return how many cores this process may use."""
    ask = getattr(os, "sched_getaffinity", None)  # Linux alone has it
    return len(ask(0)) if ask is not None else os.cpu_count() or 1


class _Process:
    """A process that runs one call at a time."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", CODE.format(path=sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            start_new_session=True,  # Ctrl-C reaches this process alone, which ends the others
        )

    def run(self, call: Callable[[], Any]) -> tuple[Any, ...]:
        """Return what a call gives, as one item; nothing if it fails.

        Raises:
            EOFError, OSError, pickle.UnpicklingError: the process has ended.
        """
        calls, results = self.process.stdin, self.process.stdout
        assert calls is not None and results is not None
        pickle.dump(call, calls)
        calls.flush()
        return pickle.load(results)

    def end(self) -> None:
        """End the process at once."""
        self.process.kill()
        with suppress(OSError):  # what was not sent is of no use any more
            self.process.communicate()


class Workers:
    """Processes that run calls side by side, from the first call until the object is left.

    A call that fails there, or whose process the system kills for its memory, runs once more in
    this process while no other does: errors are raised as if there were no workers.
    """

    def __init__(self) -> None:
        self._all: list[_Process] = []
        self._idle: list[_Process] = []
        self._lock, self._alone = threading.Lock(), threading.Lock()
        self._closed = False

    def __enter__(self) -> Self:
        """Start nothing yet."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End all processes."""
        self.end()

    def __len__(self) -> int:
        """Return how many processes were started."""
        return len(self._all)

    def end(self) -> None:
        """End all processes, in the middle of a call too."""
        with self._lock:
            self._closed = True
        for process in self._all:
            process.end()

    def run(self, calls: Iterable[Callable[[], Any]], count: int) -> Iterator[Any]:
        """Yield the results of calls in order.

        Args:
            calls: they and their results can be pickled.
            count: how many run at once.

        Raises:
            Exception: what the first call that failed has raised.
        """
        with ThreadPoolExecutor(count) as pool:
            found = [pool.submit(self._run, call) for call in calls]
            try:
                for future in found:
                    yield future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                if not all(future.done() for future in found):
                    self.end()  # so that no thread waits for a long call
                raise

    def _run(self, call: Callable[[], Any]) -> Any:
        found: tuple[Any, ...] = ()
        try:
            process = self._take()
            found = process.run(call)
        except (OSError, EOFError, pickle.UnpicklingError):
            if self._closed:
                raise
        else:
            with self._lock:
                self._idle.append(process)
        if found:
            return found[0]
        with self._alone:
            return call()

    def _take(self) -> _Process:
        """Return an idle process, or a new one."""
        with self._lock:
            if self._closed:
                raise EOFError
            if not self._idle:
                self._idle.append(_Process())
                self._all.append(self._idle[-1])
            return self._idle.pop()


def serve() -> None:
    """Run calls from standard input and write what each gives to standard output, until its end."""
    calls, results = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints
    with suppress(EOFError, BrokenPipeError):  # the other side has ended
        while True:
            call = pickle.load(calls)
            try:
                answer = pickle.dumps((call(),))
            except Exception:  # raised again where the call comes from
                answer = pickle.dumps(())
            results.write(answer)
            results.flush()
