"""Runs of one seed begin alike: their warm-up is trained once, and each goes on from its end.

Until the first backbone joins, all arms do the same, so that what a run takes over is bit for bit
what it would have made (tests/experiments shows it).
"""

import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from plan import Run, Study

from probe.events import RunPlanned
from probe.run_files import (
    LOCK_FILE,
    OPTIONS_FILE,
    PREVIOUS_FILE,
    PROBES_FILE,
    PROGRESS_FILE,
    REPORT_FILE,
    STATE_FILE,
)
from probe.training.state_file import has_state, read_state, write_state

# Those of a run alone. Without progress.json a run counts as one that has not ended.
OWN_FILES = {LOCK_FILE, OPTIONS_FILE, PROGRESS_FILE, STATE_FILE, PREVIOUS_FILE, REPORT_FILE}


def shared_warmups(study: Study, runs: Sequence[Run]) -> list[Run]:
    """Return the warm-ups, as runs without backbones, that more than one of `runs` begins with."""
    found = [warmup for run in runs if (warmup := study.warmup_of(run))]
    counts = Counter(warmup.name for warmup in found)
    return [w for w in {w.name: w for w in found}.values() if counts[w.name] > 1]


def go_on_from(warmup: Path, run: Run, plan: RunPlanned) -> bool:
    """Give a run directory that is about to be trained in the end of a warm-up.

    Args:
        warmup: the finished run directory of the warm-up.
        run: which run.
        plan: tells its directory and the digest of its options.

    Returns:
        Whether it began at the warm-up's end; False where it has a state of its own.
    """
    folder = Path(plan.folder)
    if has_state(folder):
        return False
    for file in warmup.iterdir():
        if file.name in OWN_FILES or (file.name == PROBES_FILE and not run.options["track_probes"]):
            continue
        shutil.copyfile(file, folder / file.name)
    state = read_state(warmup)
    assert state is not None, "a finished run has one"
    write_state(folder, {**state.record, "digest": plan.record["digest"]})  # last: now it is begun
    return True
