"""The images of a study: what its runs are trained on, and what its judges compare with."""

import zipfile
from pathlib import Path

import numpy as np
from plan import Run, Study

from probe.errors import UsageError
from probe.files import atomic_path
from probe.images.base import ImageSource
from probe.images.open import open_images
from probe.images.subset import Subset
from probe.streams import numpy_stream
from probe.training.reals import open_reals

POOL = "pool.zip"
POOL_SEED = 0
DATE = (1980, 1, 1, 0, 0, 0)  # the same bytes whenever it is written


def training_archive(study: Study, out: Path) -> Path:
    """Return the archive that runs are trained on; the pool is written to `out` unless it is there.

    A pool made elsewhere will do, so that a machine that only trains needs no other images.

    Raises:
        UsageError: there is neither the pool nor what it is drawn from.
    """
    if study.pool is None:
        return study.archive
    path = out / POOL
    if not path.exists():
        if not study.archive.exists():
            raise UsageError(
                f"{study.path.name}: there is no {study.archive}. Put it there, or copy a {path} "
                "that `study.py --prepare` has written on a machine with these images."
            )
        _write_pool(study, path)
    return path


def judged_parts(study: Study, run: Run) -> dict[str, list[int]]:
    """Return the parts of the whole archive that a run is judged by, as indices.

    Returns:
        all: what decides: every image, or with a pool every one outside it, which no run has seen;
        training: what this run was trained on; holdout: what it might have been trained on.
    """
    source = open_images(study.archive)
    places = range(len(source)) if study.pool is None else pool_indices(study, source)
    reals = open_reals(
        source if study.pool is None else Subset(source, places),
        resolution=run.config.resolution, holdout=run.config.holdout, cond=False, seed=run.seed,
    )  # fmt: skip
    every = range(len(source))
    return {
        "all": list(every if study.pool is None else sorted(set(every) - set(places))),
        "training": [places[i] for i in reals.training.indices],
        "holdout": [places[i] for i in reals.holdout.indices],
    }


def pool_indices(study: Study, source: ImageSource) -> list[int]:
    """Return which images of the whole archive are in the pool, in the archive's order."""
    assert study.pool is not None
    if study.pool >= len(source):
        raise UsageError(f"{study.path.name}: pool: {study.pool} leaves none of {len(source)}.")
    order = numpy_stream(POOL_SEED, "pool").permutation(len(source))
    return np.sort(order[: study.pool]).tolist()


def _write_pool(study: Study, path: Path) -> None:
    """Write the pool's images as a zip; their bytes, and so their keys, stay the same."""
    source = open_images(study.archive)
    names = source.captions(pool_indices(study, source))
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as target:
        if study.archive.is_dir():
            for name in names:
                target.writestr(zipfile.ZipInfo(name, DATE), (study.archive / name).read_bytes())
        else:
            with zipfile.ZipFile(study.archive) as whole:
                for name in names:
                    target.writestr(zipfile.ZipInfo(name, DATE), whole.read(name))
