"""Open the context of a command from a caller's arguments."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from probe.bundled import BN_IMAGES
from probe.context import Context
from probe.devices import choose_device
from probe.events import OnEvent, ignore
from probe.features.store import FeatureStore
from probe.files import cache_root
from probe.images.open import open_images
from probe.processes import Processes, join_processes, local_device


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
