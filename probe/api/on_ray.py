"""Extraction on a Ray cluster: actors that each hold the backbones, and read images themselves.

Plain actors and not Ray Data: what is read is an `ImageSource`, by index, so that keys, order and
broken images are those of a ranking; Ray Data reads files in its own way and needs pyarrow. Rows go
into the store that all share, so only names and keys travel.
"""

import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch

from probe.api.context import open_context
from probe.api.inputs import Images, open_given
from probe.bank.spec import BackboneSpec
from probe.context import Context
from probe.errors import ProbeError, UsageError
from probe.events import BatchComputed, ExtractionStarted, FeaturesStored
from probe.features.config import ExtractOptions
from probe.features.extract import Extraction, Extractor
from probe.features.share import Share

PART = 256  # images that an actor takes at a time; what is done again if it dies
AHEAD = 2  # parts that each actor has, so that none waits for the next
RESTARTS = 3  # of an actor, before the others take over its parts


@dataclass(frozen=True, kw_only=True)
class Job:
    """What every actor is told.

    Attributes:
        images: as given; a path is opened by each actor.
        specs: the backbones.
        options: see `ExtractOptions`.
        device: as given.
        offline: never download weights.
        cache: the cache folder, which all share.
    """

    images: Images
    specs: Sequence[BackboneSpec]
    options: ExtractOptions
    device: str
    offline: bool
    cache: str


class Worker:
    """Runs parts of the images through all backbones; becomes an actor."""

    def __init__(self, job: Job, threads: int) -> None:
        self._job, self._threads = job, threads
        self._kept = ExitStack()  # until the actor ends
        self._share: Share | None = None
        self._extractor: Extractor | None = None

    def run(self, part: Sequence[int]) -> Extraction | ProbeError:
        """Extract some images, given by index; an error meant for the user is returned."""
        try:
            if self._share is None:
                self._open()
            assert self._share is not None
            if self._extractor is None:
                return Extraction(failures=self._share.failures)
            found = self._extractor.extract(
                self._share.source, part, len(part), strict=self._job.options.strict
            )
            found.failures = {**self._share.failures, **found.failures}
            self._share.failures = found.failures  # a backbone that has failed is not tried again
            return found
        except ProbeError as error:
            return error

    def _open(self) -> None:
        job = self._job
        os.environ["PROBE_CACHE_DIR"] = job.cache
        torch.set_num_threads(self._threads)
        ctx = self._kept.enter_context(
            open_context(job.device, precision=job.options.precision, offline=job.offline)
        )
        self._share = Share(open_given(job.images, "real"), job.specs, job.options, ctx)
        self._extractor = self._share.extractor() if self._share.spaces else None


def extract_on_ray(share: Share, job: Job, ctx: Context) -> Extraction:
    """Extract a share of the images on a Ray cluster, or on a local one if there is none.

    A part of the images whose actor dies is done again, by that actor once Ray has restarted it, or
    by another.

    Args:
        share: which images; its store is the one that the actors share.
        job: what they are told.
        ctx: is told of progress.

    Returns:
        Which images were used, which are broken, and which backbones failed.

    Raises:
        UsageError: Ray is not installed.
        ProbeError: all actors are lost, or one has met an error.
    """
    found = Extraction()
    with _cluster() as ray:
        actors = _start(ray, job)
        names = tuple(share.spaces)
        ctx.on_event(ExtractionStarted("given", share.count, share.count, names))
        position, started = 0, time.monotonic()
        while len(found.keys) < share.count and position < len(share.order):
            want = min(share.count - len(found.keys), len(share.order) - position)
            wanted = share.order[position : position + want]
            position += want
            parts = [list(wanted[start : start + PART]) for start in range(0, want, PART)]
            results = dict[int, Extraction]()
            for number, done in _map(ray, actors, parts):
                results[number] = done
                _tell(ctx, [name for name in names if name not in done.failures], done, started)
                started = time.monotonic()
            for number in range(len(parts)):
                _add(found, results[number])
            if not names or len(found.failures) == len(share.specs):
                break
    for space in share.spaces.values():
        space.refresh()
    able = [space for name, space in share.spaces.items() if name not in found.failures]
    if found.keys and able and all(len(s.missing(found.keys)) == len(found.keys) for s in able):
        raise ProbeError(
            f"--engine ray: the workers have stored features, and none of them is in {job.cache}. "
            "Set PROBE_CACHE_DIR to a folder that all nodes share."
        )
    return found


def _tell(ctx: Context, names: Sequence[str], done: Extraction, started: float) -> None:
    """Tell of a part that went through backbones since a time; all take the same share of it."""
    for name in names:
        seconds = (time.monotonic() - started) / len(names)
        ctx.on_event(BatchComputed(name, len(done.keys), seconds))
        ctx.on_event(FeaturesStored(name, len(done.keys), len(done.keys), seconds))


def _add(found: Extraction, part: Extraction) -> None:
    found.indices += part.indices
    found.keys += part.keys
    found.broken += part.broken
    found.failures |= part.failures


@contextmanager
def _cluster() -> Iterator[Any]:
    """Yield the module, connected to the cluster that there is, or to one of this machine.

    Raises:
        UsageError: Ray is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        ray = import_module("ray")
    except ImportError as error:
        raise UsageError(
            "--engine ray: Ray is not installed. Install the extra: pip install 'gan-probe[ray]'"
        ) from error
    if ray.is_initialized():  # by the caller's own program
        yield ray
        return
    try:
        ray.init(log_to_driver=False, logging_level="error")
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ProbeError(
            f"--engine ray: no cluster can be reached or started ({str(error).splitlines()[0]}). "
            "Check RAY_ADDRESS, or leave --engine out."
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _start(ray: Any, job: Job) -> list[Any]:
    """Start an actor on every GPU of the cluster, or else on every node."""
    total = ray.cluster_resources()
    gpus, cores = int(total.get("GPU", 0)), int(total.get("CPU", 1))
    use_gpus = gpus > 0 and job.device != "cpu"
    count = job.options.workers or (gpus if use_gpus else len(ray.nodes()))
    threads = max(1, cores // count)
    share: dict[str, Any] = {"num_gpus": min(1, gpus / count)} if use_gpus else {}
    actor = ray.remote(Worker).options(
        num_cpus=threads if not use_gpus else min(1, threads),
        max_restarts=RESTARTS,
        max_task_retries=RESTARTS,
        **share,
    )
    return [actor.remote(job, threads) for _ in range(count)]


def _map(
    ray: Any, actors: list[Any], parts: Sequence[Sequence[int]]
) -> Iterator[tuple[int, Extraction]]:
    """Yield the number of each part and what an actor has made of it, as they come.

    Args:
        ray: the module.
        actors: those that live; one that is lost for good is removed.
        parts: indices of images.

    Raises:
        ProbeError: all actors are lost, or one has met an error.
    """
    waiting, busy = deque(enumerate(parts)), dict[Any, tuple[Any, int]]()

    def give(actor: Any) -> None:
        if waiting and actor in actors:
            number, part = waiting.popleft()
            busy[actor.run.remote(part)] = actor, number

    for actor in [*actors] * AHEAD:
        give(actor)
    while busy:
        (done,), _ = ray.wait(list(busy))
        actor, number = busy.pop(done)
        try:
            result = ray.get(done)
        except ray.exceptions.RayActorError as error:
            if actor in actors:
                actors.remove(actor)
            waiting.append((number, parts[number]))
            if not actors:
                raise ProbeError(
                    "--engine ray: all workers were lost. What they have done is stored; run the "
                    "same command again, and look at the cluster's logs (ray logs)."
                ) from error
            for other in actors:
                give(other)
            continue
        if isinstance(result, ProbeError):
            raise result
        yield number, result
        give(actor)
