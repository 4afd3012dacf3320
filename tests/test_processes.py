"""Processes that work on one job: what a launcher must say, and signs of life."""

import threading

import pytest
from torch.distributed import HashStore

from probe.errors import ProbeError, UsageError
from probe.heartbeat import SILENT, Heartbeat
from probe.launchers import launched_size
from probe.processes import Processes, _reaching

LAUNCHER = ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT", "SLURM_PROCID", "SLURM_NTASKS",
            "SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_STEP_NUM_TASKS")  # fmt: skip
WHOLE = {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}


@pytest.fixture
def launched(monkeypatch):
    def size(**variables):
        for name in LAUNCHER:
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return launched_size()

    return size


def test_a_launcher_says_how_many_processes_there_are(launched):
    assert launched() == 1
    assert launched(WORLD_SIZE="1") == 1
    assert launched(**WHOLE) == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"RANK": ""}, "WORLD_SIZE is 2, but RANK is not set. Let torchrun"),
        ({"RANK": "", "MASTER_ADDR": ""}, "RANK and MASTER_ADDR are not set"),
        ({"RANK": "2"}, "RANK is '2' and should be below WORLD_SIZE, 2"),
        ({"RANK": "first"}, "RANK is 'first'"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two'"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE is '0'"),
    ],
)
def test_what_a_launcher_left_out_is_named(launched, changes, words):
    with pytest.raises(UsageError, match=words):
        launched(**WHOLE | changes)


@pytest.mark.parametrize("known", [{}, {"WORLD_SIZE": "1"}])
@pytest.mark.parametrize("task", ["0", "1"])
def test_slurm_tasks_that_know_nothing_of_each_other_are_refused(launched, known, task):
    for tasks in (
        {"SLURM_NTASKS": "2"},
        {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2"},
    ):
        with pytest.raises(UsageError, match=r"SLURM started 2 tasks.*torchrun in one task"):
            launched(SLURM_PROCID=task, **tasks, **known)


def test_one_slurm_task_is_fine(launched):
    one = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "1"}
    assert launched(SLURM_PROCID="0", SLURM_NTASKS="4", **one) == 1
    script = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"}
    assert launched(**script) == 1, "a job's script runs once"
    assert launched(SLURM_NTASKS="4", SLURM_JOB_ID="7") == 1, "a shell in an allocation"
    assert launched(**WHOLE, SLURM_PROCID="1", SLURM_NTASKS="2") == 2, "torchrun in every task"


BEAT = 0.01


class Group:
    """Processes of which each is a heartbeat in this one."""

    def __init__(self, size):
        self.store = HashStore()
        self.lost = [threading.Event() for _ in range(size)]
        self.said = [""] * size
        for rank in range(size):
            self.store.set(f"sign of life {rank}", "0")
        self.beats = [
            Heartbeat(lambda: self.store, rank, size, self.teller(rank), beat=BEAT)
            for rank in range(size)
        ]

    def teller(self, rank):
        def tell(text):
            self.said[rank] = text
            self.lost[rank].set()

        return tell

    def stop(self):
        for beat in self.beats:
            beat.stop("done")


def test_processes_that_live_or_are_done_are_not_lost():
    group = Group(3)
    group.beats[2].stop("done")
    assert not group.lost[0].wait(BEAT * SILENT * 4) and not group.lost[1].is_set()
    group.stop()


def test_a_silent_process_is_noticed_by_all_others():
    group = Group(3)
    silent = group.beats[1]
    silent._ended.set()  # as if it were gone: it says nothing any more
    silent._last = "7"
    for rank in (0, 2):
        assert group.lost[rank].wait(10)
        assert group.said[rank].startswith("Process 1 has ended or cannot be reached. Find out why")
    group.stop()


def test_a_failed_process_is_noticed_soon():
    group = Group(2)
    group.beats[1].stop("failed")
    assert group.lost[0].wait(10) and "Process 1 has ended" in group.said[0]
    group.stop()


def test_a_store_that_is_gone_counts_as_silence():
    lost = threading.Event()

    def connect():
        raise RuntimeError("Connection reset by peer")

    Heartbeat(connect, 0, 2, lambda text: lost.set(), beat=BEAT)
    assert lost.wait(10)


def test_what_backends_say_of_a_lost_process_becomes_a_sentence():
    with pytest.raises(ProbeError, match="Another process of this job has ended"), _reaching():
        raise RuntimeError("[../gloo/transport/tcp/pair.cc:534] Connection closed by peer")
    with pytest.raises(RuntimeError, match="shape"), _reaching():
        raise RuntimeError("a bug: wrong shape")


def test_a_single_process_collects_its_own_value():
    assert Processes().collect("a") == ["a"]
