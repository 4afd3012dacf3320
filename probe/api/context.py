"""Open the context of a command from a caller's arguments."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

from probe.bundled import BN_IMAGES
from probe.context import Context
from probe.devices import choose_device
from probe.events import Event, OnEvent, ignore
from probe.features.store import FeatureStore
from probe.files import cache_root
from probe.images.open import open_images
from probe.processes import Processes, join_processes, local_device
from probe.reports.progress import Bar, Progress


@contextmanager
def with_progress(
    on_event: OnEvent, progress: bool, display: Callable[..., Bar] | None = None
) -> Iterator[OnEvent]:
    """Yield who is to be told of events: the caller and, if progress is shown, a display.

    Args:
        on_event: the caller's.
        progress: whether to show it, on a terminal, in a notebook or as lines in a log.
        display: makes the display; default that of rankings.
    """
    if not progress:
        yield on_event
        return
    with (display or Progress)(quiet=False) as bar:

        def tell(event: Event) -> None:
            bar(event)
            on_event(event)

        yield tell


@contextmanager
def open_context(
    device: str = "auto",
    *,
    precision: str = "auto",
    offline: bool = False,
    on_event: OnEvent = ignore,
    shared: bool = False,
) -> Iterator[Context]:
    """Yield the context of a command.

    Args:
        device: "auto", "cpu", "cuda" or "cuda:N".
        precision: "auto", "fp32", "tf32" or "bf16".
        offline: never download weights.
        on_event: called with every event, in the first process only.
        shared: whether processes started by torchrun split the work.

    Raises:
        UsageError: the device is unknown or not on this machine.
        CacheError: the cache folder cannot be used.
    """
    chosen = local_device(choose_device(device))
    with join_processes(chosen) if shared else nullcontext(Processes()) as processes:
        yield Context(
            store=FeatureStore(cache_root()),
            device=chosen,
            precision=precision,
            offline=offline,
            bn_images=open_images(BN_IMAGES),
            processes=processes,
            on_event=on_event if processes.is_first else ignore,
        )
