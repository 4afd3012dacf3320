"""What is freed stays with a process until it is given back."""

import platform
import subprocess
import sys

import pytest

from probe.accel import memory

SCRIPT = """
from probe.accel.memory import give_back_freed_memory, keep_freed_memory

def resident():  # MiB
    return int(open("/proc/self/statm").read().split()[1]) * 4096 // 2**20

keep_freed_memory()
blocks = [bytearray(b"x" * 2**22) for _ in range(64)]
holes = blocks[::2]  # between them stay blocks in use
del blocks[::2]
full = resident()
del holes
kept = resident()
give_back_freed_memory()
print(full, kept, resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc")
def test_freed_memory_is_kept_and_then_given_back():
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    full, kept, rest = map(int, done.stdout.split())
    assert kept > full - 32
    assert rest < kept - 96  # of 128


APART = """
from probe.accel.memory import keep_freed_memory, large_blocks_apart

def resident():  # MiB
    return int(open("/proc/self/statm").read().split()[1]) * 4096 // 2**20

def fill_and_free_every_other():
    blocks = [bytearray(b"x" * 2**24) for _ in range(16)]
    del blocks[::2]
    return blocks, resident()

keep_freed_memory()
with large_blocks_apart():
    some, inside = fill_and_free_every_other()
more, outside = fill_and_free_every_other()
print(inside, outside - inside)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc")
def test_large_blocks_leave_no_holes_in_between():
    """128 MiB are in use either way; where blocks are not apart the holes stay, 128 more."""
    command = [sys.executable, "-c", APART]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    inside, more = map(int, done.stdout.split())
    assert inside < 128 + 64
    assert more > 128 + 64


@pytest.mark.parametrize("keeps", [True, False])
def test_a_process_that_gives_memory_back_is_left_as_it_is(monkeypatch, keeps):
    calls = []
    monkeypatch.setattr(memory, "_keeps", keeps)
    monkeypatch.setattr(memory, "_glibc", lambda name: lambda *given: calls.append(given))
    with memory.large_blocks_apart():
        during = len(calls)
    assert (during > 0) == keeps
    assert calls[during:] == ([(memory.M_MMAP_MAX, 0)] if keeps else [])
