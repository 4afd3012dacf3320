"""What is freed stays with a process until it is given back."""

import platform
import subprocess
import sys

import pytest

SCRIPT = """
from probe.memory import give_back_freed_memory, keep_freed_memory

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
