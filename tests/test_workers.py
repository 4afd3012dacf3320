"""Calls in processes of their own: results, errors, a killed process, an interrupted command."""

import operator
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from functools import partial

import psutil
import pytest

from probe.workers import Workers


def children():
    """Return the workers that this process has started and not yet waited for."""
    found = []
    for process in psutil.Process().children():
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            found += [process] if "probe.workers" in " ".join(process.cmdline()) else []
    return found


def test_results_come_in_the_order_of_the_calls():
    with Workers() as workers:
        calls = [partial(pow, i, 2) for i in range(20)]
        assert list(workers.run(calls, 2)) == [i * i for i in range(20)]
        assert len(children()) <= 2
        assert os.getpid() not in set(workers.run([os.getpid] * 4, 2))
    assert not children()


def test_processes_are_kept_for_the_next_calls():
    with Workers() as workers:
        for i in range(3):
            results = workers.run([partial(pow, i, 2), partial(pow, i, 3)], 2)
            assert (next(results), next(results)) == (i**2, i**3)  # not asked for more
            del results
        assert len(workers) <= 2


def test_nothing_is_started_without_a_call():
    with Workers():
        assert not children()


def test_an_error_is_raised_as_it_would_be_here_and_ends_the_others():
    started = time.monotonic()
    with Workers() as workers:
        calls = [partial(operator.truediv, 1, 0), *[partial(time.sleep, 30)] * 4]
        with pytest.raises(ZeroDivisionError):
            list(workers.run(calls, 2))
    assert time.monotonic() - started < 20
    assert not children()


def test_results_before_an_error_are_kept():
    with Workers() as workers:
        results = workers.run([partial(pow, 3, 2), partial(operator.truediv, 1, 0)], 2)
        assert next(results) == 9
        with pytest.raises(ZeroDivisionError):
            next(results)


def die_unless(pid):
    """End a process at once, but not that one; return its number."""
    if os.getpid() != pid:
        os._exit(1)
    return pid


def test_the_call_of_a_process_that_died_runs_here():
    here = os.getpid()
    with Workers() as workers:
        assert list(workers.run([partial(die_unless, here)] * 3, 2)) == [here] * 3


def test_what_a_call_prints_is_no_result():
    with Workers() as workers:
        assert list(workers.run([partial(print, "aside", flush=True)], 1)) == [None]


def test_processes_of_a_script_without_a_guard(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from probe.workers import Workers\n"
        "print('once')\n"
        "with Workers() as workers:\n"
        "    print(list(workers.run([int, int], 2)))\n"
    )
    found = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60)
    assert found.stdout == "once\n[0, 0]\n" and found.stderr == ""


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_an_interrupt_ends_all_processes(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import time\nfrom functools import partial\nfrom probe.workers import Workers\n"
        "print('ready', flush=True)\n"
        "with Workers() as workers:\n"
        "    list(workers.run([partial(time.sleep, 60)] * 3, 2))\n"
    )
    with subprocess.Popen(
        [sys.executable, script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.default_int_handler),
    ) as running:
        assert running.stdout.readline() == "ready\n"
        time.sleep(1)
        started = time.monotonic()
        os.killpg(running.pid, signal.SIGINT)
        _, errors = running.communicate(timeout=30)
    assert time.monotonic() - started < 15
    assert errors.rstrip().endswith("KeyboardInterrupt") and errors.count("Traceback") == 1


def test_threads_that_wait_do_not_outlive_the_workers():
    before = threading.active_count()
    with Workers() as workers:
        results = workers.run([partial(time.sleep, s) for s in (0, 60, 60)], 2)
        next(results)
        results.close()
    assert threading.active_count() == before
