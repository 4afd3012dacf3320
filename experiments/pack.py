"""What judging needs of trained runs, as a few small archives that unpack into another --out."""

import tarfile
from collections.abc import Sequence
from pathlib import Path

from execute import IDENTITY, TRAINED, finished_training, run_folder
from plan import Run, Study
from records import last_snapshot

from probe.errors import UsageError
from probe.files import atomic_path
from probe.run_files import (
    BEST,
    LOG_FILE,
    OPTIONS_FILE,
    PROBES_FILE,
    PROGRESS_FILE,
    SELECTIONS,
    STATS_FILE,
)

MOST_BYTES = 15 * 2**20  # of an archive, before it is compressed
KEPT = (STATS_FILE, "metric-*.jsonl", PROBES_FILE, SELECTIONS, OPTIONS_FILE, PROGRESS_FILE, BEST)


def pack_runs(study: Study, runs: Sequence[Run], out: Path, folder: Path) -> list[Path]:
    """Write the trained runs as runs-1.tar.gz, …; `tar -xf` in an --out puts them there.

    Each holds the last and the best snapshot of its runs, and every record that results are made
    of. The training states stay behind: to go on with a run elsewhere, copy its whole folder.

    Args:
        study: the configuration.
        runs: those to pack, if they are trained.
        out: folder of the runs.
        folder: where to write.

    Returns:
        The archives.

    Raises:
        UsageError: a run alone is too large.
    """
    groups: list[list[Path]] = []
    size = MOST_BYTES
    for run in runs:
        files = _files(study, run, out)
        length = sum(file.stat().st_size for file in files)
        if length > MOST_BYTES:
            raise UsageError(f"--pack: {run.name} has {length} bytes, more than {MOST_BYTES}.")
        if not files:
            continue
        if size + length > MOST_BYTES:
            groups.append([])
            size = 0
        groups[-1] += files
        size += length
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for number, files in enumerate(groups, 1):
        path = folder / f"runs-{number}.tar.gz"
        with atomic_path(path) as temporary, tarfile.open(temporary, "w:gz") as archive:
            for file in files:
                archive.add(file, arcname=file.relative_to(out))
        written.append(path)
    return written


def _files(study: Study, run: Run, out: Path) -> list[Path]:
    """Return the files of a trained run that judging needs; none of one that is not."""
    trained = finished_training(out, study, run)
    if trained is None:
        return []
    files = {last_snapshot(trained, run.kimg)}
    for pattern in KEPT:
        files.update(trained.glob(pattern))
    records = [run_folder(out, run) / name for name in (IDENTITY, TRAINED, LOG_FILE)]
    return sorted(files) + [file for file in records if file.exists()]
