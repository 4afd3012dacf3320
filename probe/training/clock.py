"""Timing of the parts of a step."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Clock:
    """Sums the time spent in named parts; on a GPU it uses events and does not synchronise."""

    def __init__(self, device: torch.device) -> None:
        self._gpu = device if device.type == "cuda" else None
        self._seconds: dict[str, float] = {}
        self._events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """Add the time of the body to `name`."""
        if self._gpu is not None:
            first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            stream = torch.cuda.current_stream(self._gpu)
            first.record(stream)
            yield
            last.record(stream)
            self._events.append((name, first, last))
        else:
            started = time.perf_counter()
            yield
            self._add(name, time.perf_counter() - started)

    def take(self) -> dict[str, float]:
        """Return seconds by name since the last call, and reset."""
        if self._events:
            torch.cuda.synchronize(self._gpu)
            for name, first, last in self._events:
                self._add(name, first.elapsed_time(last) / 1000)
            self._events = []
        taken, self._seconds = self._seconds, {}
        return taken

    def _add(self, name: str, seconds: float) -> None:
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds
