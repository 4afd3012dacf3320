"""What torchrun and SLURM say of the processes of a job, in environment variables."""

import os
import re

from probe.errors import UsageError

ADVICE = "Let torchrun set these variables, or unset WORLD_SIZE for a single process."


def launched_size() -> int:
    """Return how many processes a launcher says there are; 1 without a launcher.

    Raises:
        UsageError: its variables are incomplete or wrong, or SLURM has started several tasks that
            would each do the whole job.
    """
    text = os.environ.get("WORLD_SIZE", "1")
    if not re.fullmatch("[0-9]{1,6}", text) or int(text) < 1:
        raise UsageError(f"WORLD_SIZE is {text!r} and should be a number of processes. {ADVICE}")
    size = int(text)
    if size == 1:
        _refuse_tasks()
        return 1
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if missing:
        names, verb = " and ".join(missing), "is" if len(missing) == 1 else "are"
        raise UsageError(f"WORLD_SIZE is {size}, but {names} {verb} not set. {ADVICE}")
    rank = os.environ["RANK"]
    if not re.fullmatch("[0-9]{1,6}", rank) or int(rank) >= size:
        raise UsageError(f"RANK is {rank!r} and should be below WORLD_SIZE, {size}. {ADVICE}")
    return size


def _refuse_tasks() -> None:
    """Refuse to be one of several SLURM tasks that know nothing of each other.

    Raises:
        UsageError: it is.
    """
    environ = os.environ
    if "SLURM_PROCID" not in environ:
        return
    if "SLURM_JOB_ID" in environ and "SLURM_STEP_ID" not in environ:
        return  # the script of a job runs once, however many tasks srun may start in it
    tasks = environ.get("SLURM_STEP_NUM_TASKS") or environ.get("SLURM_NTASKS", "1")
    if tasks != "1":
        raise UsageError(
            f"SLURM started {tasks} tasks, and each would do the whole job. Start one task with "
            "srun --ntasks=1, or torchrun in one task of each node; the page on scale "
            "(docs/scale.md) has the script."
        )
