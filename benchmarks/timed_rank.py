"""A ranking that says when each of its phases began; `gpu.py` runs it as a process of its own.

    python benchmarks/timed_rank.py STARTED REAL GEN BANK NUM

STARTED is `time.monotonic()` just before this process was started. Prints JSON: seconds by phase
(start, reals, fakes, probes: each until the next begins; the last until the end), and each
backbone's status.
"""

import json
import sys
import time
from itertools import pairwise

from probe.accel.memory import keep_freed_memory

keep_freed_memory()  # as the command does, before anything else

import probe  # noqa: E402
from probe.events import Event, ExtractionStarted, FeaturesStored  # noqa: E402


def main() -> None:
    started, real, gen, bank, num = sys.argv[1:]
    begun: dict[str, float] = {}
    stored = time.monotonic()

    def note(event: Event) -> None:
        nonlocal stored
        if isinstance(event, ExtractionStarted):
            begun[event.kind] = time.monotonic()
        elif isinstance(event, FeaturesStored):
            stored = time.monotonic()

    ranking = probe.rank(
        real, gen, bank=bank, options=probe.RankOptions(num=int(num)), offline=True, on_event=note
    )
    end = time.monotonic()
    assert ranking is not None  # there is one process
    points = [float(started), begun["real"], begun["fake"], stored, end]
    seconds = [after - before for before, after in pairwise(points)]
    phases = dict(zip(("start", "reals", "fakes", "probes"), seconds, strict=True))
    rows = {row.name: row.status for row in ranking.leaderboard.rows}
    print(json.dumps({"phases": phases, "rows": rows}))


if __name__ == "__main__":
    main()
