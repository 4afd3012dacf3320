"""Rename tensors by regular expressions, in a separate process with time and memory limits.

Python's regular expressions can run almost without end and use unbounded memory, and nothing inside
the process can stop them. So this file doubles as the program that applies them, started once per
key map: it imports nothing from `probe` and takes some hundredths of a second.
"""

import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from types import ModuleType

resource: ModuleType | None
try:
    import resource
except ImportError:  # Windows
    resource = None

CPU_SECONDS = 2
SECONDS = 10  # if processor time and memory cannot be limited
MEMORY_BYTES = 2**30
LONGEST = 1000  # characters of a name

Step = tuple[str, str | None]  # a pattern and its replacement; None drops the name


class TooCostly(Exception):
    """The patterns take more time or memory than tensor names can need."""


def rename(names: Sequence[str], steps: Sequence[Step]) -> list[str | None]:
    """Return each name after all steps, in order; None for a dropped name.

    Raises:
        TooCostly: if a limit is reached.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", __file__],
            input=json.dumps([list(names), list(steps)]),
            capture_output=True,
            encoding="utf-8",
            timeout=SECONDS if resource is None else None,
        )
    except subprocess.TimeoutExpired:
        raise TooCostly from None
    if done.returncode:
        raise TooCostly
    return json.loads(done.stdout)


def _apply(name: str | None, pattern: re.Pattern[str], to: str | None) -> str | None:
    if name is None or (to is None and pattern.search(name)):
        return None
    renamed = name if to is None else pattern.sub(to, name)
    if len(renamed) > LONGEST:
        raise MemoryError
    return renamed


def _limit(resource: ModuleType, kind: int, most: int) -> None:
    hard = resource.getrlimit(kind)[1]
    with contextlib.suppress(ValueError):  # macOS cannot limit a process's address space
        resource.setrlimit(
            kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard)
        )


def _main() -> None:
    if resource is not None:
        _limit(resource, resource.RLIMIT_CPU, CPU_SECONDS)
        _limit(resource, resource.RLIMIT_AS, MEMORY_BYTES)
        _limit(resource, resource.RLIMIT_CORE, 0)
    names, steps = json.load(sys.stdin)
    for pattern, to in steps:
        compiled = re.compile(pattern)
        names = [_apply(name, compiled, to) for name in names]
    json.dump(names, sys.stdout)


if __name__ == "__main__":
    _main()
