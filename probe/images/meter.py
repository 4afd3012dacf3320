"""Report how much of the inputs was read, from several threads."""

import threading

from probe.events import InputRead, OnEvent


class Meter:
    """Adds up what threads have read, and sends an event each time.

    Args:
        what: goes on, in a few words.
        total: bytes to read.
        on_event: called by one thread at a time.
    """

    def __init__(self, what: str, total: int, on_event: OnEvent) -> None:
        self._what, self._total, self._on_event = what, total, on_event
        self._done, self._lock = 0, threading.Lock()
        self.add(0)

    def add(self, count: int) -> None:
        """Count so many bytes more."""
        with self._lock:
            self._done += count
            self._on_event(InputRead(self._what, self._done, self._total))
