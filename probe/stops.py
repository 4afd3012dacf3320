"""Signals that ask a program to stop, and delaying them until its work is saved."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

# What Ctrl-C, queues and `--signal` of SLURM send; Windows has no SIGUSR1.
SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)
)
# Seconds within which a second signal counts as the first one again: a queue may signal every
# process of a job, and their launcher then passes on its own copy.
REPEATED = 2.0


class Stopped(BaseException):
    """A signal asked to stop the command line.

    Attributes:
        exit_code: 128 plus the signal's number.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.exit_code = 128 + signum


def stop_at_once(signum: int, frame: FrameType | None) -> None:
    """Raise `Stopped`: the handler of `SIGNALS` on the command line."""
    raise Stopped(signum)


class StopRequest:
    """Whether a signal has asked this program to stop; see `delayed_stops`.

    Attributes:
        signum: the first signal that was delayed, or None.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self._since = 0.0
        self._immediate = False
        self._handlers: dict[int, Any] = {}

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Let signals act at once in the body, and one that was delayed before it."""
        self._immediate = True
        try:
            if self.signum is not None:
                self.act()
            yield
        finally:
            self._immediate = False

    def act(self) -> None:
        """Let the delayed signal do what it would have done; SIGTERM if there was none.

        Raises:
            BaseException: what the program's own handler raises, KeyboardInterrupt by default.
        """
        self.release()
        signal.raise_signal(self.signum or signal.SIGTERM)
        raise KeyboardInterrupt  # the program's handler did not end it

    def take(self) -> None:
        """Delay signals from now on. Those that the program ignores stay ignored."""
        for signum in SIGNALS:
            if signal.getsignal(signum) not in (signal.SIG_IGN, None):
                self._handlers[signum] = signal.signal(signum, self._note)

    def release(self) -> None:
        """Put the program's own handlers back."""
        while self._handlers:
            signum, handler = self._handlers.popitem()
            signal.signal(signum, handler)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.signum is None:
            self.signum, self._since = signum, now
        elif now - self._since > REPEATED:
            self._immediate = True
        if self._immediate:
            self.act()


@contextmanager
def delayed_stops() -> Iterator[StopRequest]:
    """Delay the signals that ask to stop: the body looks at `StopRequest.signum` and acts on it.

    A second signal, some seconds after the first, acts at once. If the body ends by itself, a
    delayed signal acts then. Outside the main thread, where Python handles no signals, nothing is
    delayed.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    request.take()
    try:
        yield request
    finally:
        request.release()
    if request.signum is not None:
        request.act()
