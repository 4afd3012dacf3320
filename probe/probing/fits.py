"""The fits of a ranking: recalled, or done side by side in processes if that is faster."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib import metadata
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import psutil

from probe.accel.memory import large_blocks_apart
from probe.features.store import FeatureStore, digest_keys
from probe.files import digest_bytes
from probe.probing.protocol import ProbePlan, ProbeResult
from probe.workers import Workers, usable_cores

if TYPE_CHECKING:
    from probe.probing.fit import Split

SOLVER = 6  # raised whenever the probe's grid, tolerance, search or result changes
# A process takes about 1.3 s to start and then fits 1.4 million features a second (`FAIR`).
WORTH = 8e6  # features of all fits together from which processes are started
# Of a process: it reads both classes, and holds half of the rows in double and in single precision.
BYTES, BYTES_PER_FEATURE = 200 * 2**20, 16
MEMORY_SHARE = 0.5  # of what is free


class Rows(Protocol):
    """Features of one backbone, whose rows are read by key; `FeatureSpace` is one."""

    @property
    def key(self) -> str:
        """A digest of all that determines a row besides its own key."""
        ...

    def read(self, keys: Sequence[str]) -> np.ndarray:
        """Return the rows of keys, float32 (n, d)."""
        ...


@dataclass(frozen=True)
class Fit:
    """One probe to be fitted.

    Attributes:
        spaces: whose features are taken, the columns of one after those of another.
        real: content keys of the reals.
        fake: content keys of the fakes.
        plan: of the splits.
    """

    spaces: tuple[Rows, ...]
    real: Sequence[str]
    fake: Sequence[str]
    plan: ProbePlan

    def record(self) -> dict[str, Any]:
        """Return all that decides the result."""
        return {
            "spaces": [space.key for space in self.spaces],
            "real": digest_keys(self.real),
            "fake": digest_keys(self.fake),
            "groups": digest_bytes(self.plan.groups.astype("<i8").tobytes()),
            "protocol": asdict(self.plan.protocol),
            "solver": SOLVER,
            "seed": self.plan.seed,
            "sklearn": metadata.version("scikit-learn"),
        }

    def features(self) -> int:
        """Return how many numbers the probe learns from."""
        width = sum(space.read(self.real[:1]).shape[1] for space in self.spaces)
        return width * (len(self.real) + len(self.fake))

    def whole(self) -> ProbeResult:
        """Fit all splits in this process."""
        from probe.probing.fit import evaluate  # scikit-learn is slow to import

        plan = self.plan
        with large_blocks_apart():
            return evaluate(
                *self._tables(), protocol=plan.protocol, seed=plan.seed, groups=plan.groups
            )

    def split(self, number: int) -> tuple["Split", int]:
        """Fit one split, see `evaluate_split`."""
        from probe.probing.fit import evaluate_split

        return evaluate_split(*self._tables(), self.plan, number)

    def _tables(self) -> tuple[np.ndarray, np.ndarray]:
        real, fake = (_side_by_side(self.spaces, keys) for keys in (self.real, self.fake))
        return real, fake


def fit_all(fits: Sequence[Fit], store: FeatureStore, workers: Workers) -> Iterator[ProbeResult]:
    """Yield the results of fits in order; the store remembers them.

    They are the same to the last bit whether processes are used or not.

    Args:
        fits: what to fit.
        store: holds the results of earlier fits.
        workers: the processes; they are used from `WORTH` on.
    """
    records = [fit.record() for fit in fits]
    recalled = [store.recall(record) for record in records]
    missing = [fit for fit, arrays in zip(fits, recalled, strict=True) if arrays is None]
    results = _fitted(missing, workers)
    for record, arrays in zip(records, recalled, strict=True):
        if arrays is not None:
            yield ProbeResult.from_arrays(arrays)
            continue
        result = next(results)
        store.remember(record, result.to_arrays())
        yield result


def _fitted(fits: Sequence[Fit], workers: Workers) -> Iterator[ProbeResult]:
    count = _worth_starting([fit.features() for fit in fits])
    if count < 2:
        yield from (fit.whole() for fit in fits)
        return
    numbers = [range(len(fit.plan.pairs)) for fit in fits]
    calls = [partial(fit.split, n) for fit, all_of in zip(fits, numbers, strict=True)
             for n in all_of]  # fmt: skip
    results = workers.run(calls, count)
    from probe.probing.fit import join_splits  # imported while the first splits are fitted

    for fit, all_of in zip(fits, numbers, strict=True):
        done, unconverged = zip(*(next(results) for _ in all_of), strict=True)
        yield join_splits(fit.plan, done, sum(unconverged))


def _worth_starting(features: Sequence[int]) -> int:
    """Return how many processes make fits of so many features faster and fit the memory."""
    if sum(features) < WORTH:
        return 0
    room = MEMORY_SHARE * psutil.virtual_memory().available
    return min(usable_cores(), int(room / (BYTES + BYTES_PER_FEATURE * max(features))))


def _side_by_side(spaces: Sequence[Rows], keys: Sequence[str]) -> np.ndarray:
    """Return the rows of all keys, the columns of one space after those of another."""
    tables = [space.read(keys) for space in spaces]
    return tables[0] if len(tables) == 1 else np.concatenate(tables, axis=1)
