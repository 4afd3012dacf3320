"""Start a command in several processes of this machine, with torchrun."""

import logging
import os
import sys
from typing import NoReturn

from probe.errors import ProbeError
from probe.stops import Stopped


def start_processes(count: int, device: str) -> NoReturn:
    """Run this command `count` times under torchrun, and exit as the processes do.

    torchrun passes signals on, and ends all processes if one fails. What it says itself is left
    out: the processes say why they end.

    Args:
        count: number of processes.
        device: "auto", "cpu" or "cuda".

    Raises:
        UsageError: there are fewer GPUs than processes, or SLURM has started several tasks.
        ProbeError: a process was killed.
    """
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    from probe.devices import choose_device
    from probe.launchers import launched_size
    from probe.processes import check_gpus

    launched_size()
    if choose_device(device).type == "cuda":
        check_gpus(count)
    if "OMP_NUM_THREADS" not in os.environ:
        os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // count))
    logging.disable(logging.CRITICAL)
    # After "--", torchrun does not read our flags as abbreviations of its own.
    flags = ["--standalone", f"--nproc-per-node={count}", "-m", "--", "probe", *sys.argv[1:]]
    try:
        run.run(run.parse_args(flags))
    except SignalException as stopped:
        sys.exit(128 + stopped.sigval)
    except Stopped as stopped:  # by a signal that torchrun does not know
        sys.exit(stopped.exit_code)
    except ChildFailedError as failed:
        rank, first = failed.get_first_failure()
        if first.exitcode < 0:
            raise ProbeError(
                f"Process {rank} of {count} was killed ({first.signal_name()}), perhaps for lack "
                "of memory. Run the same command to resume from what is saved."
            ) from failed
        sys.exit(first.exitcode)
    sys.exit(0)
