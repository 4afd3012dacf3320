"""Heartbeats, by which the processes of a job notice that one of them is lost."""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

BEAT = 5.0  # seconds from one heartbeat to the next
SILENT = 24  # missed heartbeats after which a process counts as lost
LOST = "Find out why, then run the same command to resume from what is saved."


def heartbeat_key(rank: int) -> str:
    """Return the key in the store under which a process writes its heartbeats."""
    return f"heartbeat {rank}"


class Heartbeat:
    """Tells the other processes that this one is alive, and watches them, in the background.

    Args:
        connect: opens a connection to the store that the background thread alone uses.
        rank: of this process.
        size: number of processes; each has written its first heartbeat.
        on_lost: called from a thread, with a sentence, if another is silent or has failed.
        beat: seconds from one heartbeat to the next.
    """

    def __init__(
        self,
        connect: "Callable[[], Store]",
        rank: int,
        size: int,
        on_lost: Callable[[str], None],
        beat: float = BEAT,
    ) -> None:
        self._connect, self._rank, self._on_lost, self._beat = connect, rank, on_lost, beat
        self._others = [other for other in range(size) if other != rank]
        # A count of beats and not a time, because a suspended machine writes none.
        self._silent = dict.fromkeys(self._others, 0)
        self._ended, self._last = threading.Event(), "done"
        self._beating = threading.Thread(target=self._run, daemon=True)
        for thread in (self._beating, threading.Thread(target=self._watch, daemon=True)):
            thread.start()

    def stop(self, last: str) -> None:
        """Stop, with "done" or "failed" as the last heartbeat."""
        self._last = last
        self._ended.set()
        self._beating.join(self._beat)

    def _run(self) -> None:
        seen: dict[int, bytes] = {}
        count = 0
        try:
            store = self._connect()
            while not self._ended.wait(self._beat):
                count += 1
                store.set(heartbeat_key(self._rank), str(count))
                for other in self._others:
                    last = store.get(heartbeat_key(other))
                    if last == b"failed":
                        self._silent[other] += SILENT // 2  # it may be an error that we meet too
                    elif last != seen.get(other) or last == b"done":
                        self._silent[other] = 0
                    seen[other] = last
            store.set(heartbeat_key(self._rank), self._last)
        except RuntimeError:
            return  # the store is gone, and with it every heartbeat: `_watch` counts on

    def _watch(self) -> None:
        while not self._ended.wait(self._beat):
            for other in self._others:
                self._silent[other] += 1
            lost = [other for other in self._others if self._silent[other] > SILENT]
            if lost:
                names = ", ".join(str(rank) for rank in lost[:5]) + (", …" if lost[5:] else "")
                which = f"Process {names} has" if len(lost) == 1 else f"Processes {names} have"
                self._on_lost(f"{which} ended or cannot be reached. {LOST}")
                return
