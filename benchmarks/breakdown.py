"""Where the time of a cold ranking goes: generator, backbones, decoding, hashing, probe, the rest.

    python benchmarks/breakdown.py [--quick] [--images 512] [--out FILE.json]

Runs `probe.rank` in this process with an empty cache, with timers put around the package's
functions from outside. Threads work side by side: each instant is shared out evenly among the
innermost timed functions that run at that instant, in whatever thread; where none runs it is
"the rest". So the shares add up to the wall time. On a GPU every forward is waited for.
"""

import argparse
import functools
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

from common import PACKAGED, Record, arguments, scratch, wait_for_gpu
from inputs import build_generator, save_generator, write_demo_reals

from probe.accel.memory import keep_freed_memory

FORWARDS = ("generator forward", "backbone forward")
TARGET = 80.0
REST = "the rest"

Event = tuple[float, str, int]  # when, phase, +1 begins or -1 ends


@dataclass
class Clock:
    """Notes when each phase begins and ends, in every thread."""

    events: list[Event] = field(default_factory=list)
    own: threading.local = field(default_factory=threading.local)

    def timed(self, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function with its calls noted; what it calls may be noted as well."""

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            stack = self.own.__dict__.setdefault("stack", [])
            if stack:
                self._note(stack[-1], -1)
            stack.append(phase)
            self._note(phase, +1)
            try:
                found = function(*args, **kwargs)
                if phase in FORWARDS:
                    wait_for_gpu()
                return found
            finally:
                self._note(stack.pop(), -1)
                if stack:
                    self._note(stack[-1], +1)

        return wrapper

    def _note(self, phase: str, change: int) -> None:
        self.events.append((time.perf_counter(), phase, change))


def share_out(events: Sequence[Event], start: float, end: float) -> dict[str, float]:
    """Share each instant out among the phases that run at it.

    Returns:
        phase → seconds; they add up to `end - start`. Under "any forward" stands, beside that
        sum, the time in which at least one forward runs.
    """
    seconds: dict[str, float] = defaultdict(float)
    running: dict[str, int] = defaultdict(int)
    before = start
    for when, phase, change in sorted([*events, (end, REST, 0)], key=lambda event: event[0]):
        total = sum(running.values())
        passed = when - before
        for name, number in running.items():
            if number:
                seconds[name] += passed * number / total
        if not total:
            seconds[REST] += passed
        if any(running[name] for name in FORWARDS):
            seconds["any forward"] += passed
        running[phase] += change
        before = when
    return dict(seconds)


def places() -> list[tuple[str, Any, str]]:
    """Return what is timed: phase, where it is looked up, its name there."""
    from probe.bank.base import Backbone
    from probe.features import extract, pair, space
    from probe.features.store import FeatureSpace, FeatureStore
    from probe.generators.files import snapshot
    from probe.generators.networks.stylegan2 import Generator
    from probe.generators.sampler import GeneratorSource
    from probe.images import decode
    from probe.images.files import FileSource
    from probe.probing import fit, rank, standing

    return [
        ("generator forward", Generator, "forward"),
        ("backbone forward", Backbone, "pool"),
        ("resize for the backbone", Backbone, "prepare"),
        ("decode", decode, "_upright_rgb"),
        ("resize to a square", decode, "to_square"),
        ("audit of encodings", rank, "audit"),
        ("hashing images", FileSource, "keys"),
        ("hashing images", GeneratorSource, "keys"),
        ("hashing images", FeatureSpace, "missing"),
        ("hashing weights", space, "weights_digest"),
        ("hashing weights", snapshot, "digest_file"),
        ("building the generator", snapshot, "build_network"),
        ("loading backbones", pair, "load_backbone"),
        ("counting FLOPs", extract, "measure"),
        ("store writes", FeatureSpace, "write"),
        ("store writes", FeatureSpace, "write_facts"),
        ("store writes", FeatureStore, "remember"),
        ("store reads", FeatureSpace, "read"),
        ("probe fitting", fit, "evaluate"),
        ("uncertainty", standing, "build_rows"),
    ]


@contextmanager
def timers(clock: Clock) -> Iterator[None]:
    """Put the clock around every function of `places`."""
    with ExitStack() as stack:
        for phase, owner, name in places():
            stack.enter_context(patch.object(owner, name, clock.timed(phase, getattr(owner, name))))
        yield


def measure(args: argparse.Namespace) -> tuple[dict[str, float], float, float]:
    """Rank once.

    Returns:
        Seconds of each phase, of the whole ranking, and of the imports before it.
    """
    started = time.perf_counter()
    import probe
    from probe import RankOptions

    imported = time.perf_counter() - started
    clock = Clock()
    with scratch() as folder, patch.dict("os.environ", PROBE_CACHE_DIR=str(folder / "cache")):
        write_demo_reals(folder / "reals", args.images, args.resolution)
        generator = build_generator(args.resolution, args.channel_base)
        save_generator(folder / "g.safetensors", generator)
        with timers(clock):
            start = time.perf_counter()
            probe.rank(
                folder / "reals",
                folder / "g.safetensors",
                backbones=args.backbones.split(","),
                options=RankOptions(num=args.images),
                offline=True,
            )
            end = time.perf_counter()
    return share_out(clock.events, start, end), end - start, imported


def report(args: argparse.Namespace, seconds: dict[str, float], whole: float, imported: float):
    """Return the record."""
    record = Record("breakdown", "Where the time of a cold ranking goes")
    flags = ("images", "resolution", "channel_base", "backbones")
    record.settings = {name: getattr(args, name) for name in flags}
    forward = seconds.pop("any forward", 0.0)
    ordered = sorted(seconds.items(), key=lambda item: -item[1])
    record.table(
        f"{args.images} images of each class, {args.resolution} px, {args.backbones}",
        ["phase", "seconds", "share of wall time, %"],
        [
            *[[name, value, 100 * value / whole] for name, value in ordered],
            ["whole ranking", whole, 100.0],
        ],
    )
    share = 100 * sum(seconds.get(name, 0.0) for name in FORWARDS) / whole
    record.check("Share of wall time in forwards", share, at_least=TARGET, unit=" %")
    record.values = {
        "seconds": seconds,
        "whole": whole,
        "any forward": forward,
        "imports in this process": imported,
    }
    return record


def main() -> None:
    keep_freed_memory()  # as the command does
    parser = arguments(__doc__, "breakdown")
    parser.add_argument("--images", type=int, help="of each class (512; quick 16)")
    parser.add_argument("--resolution", type=int, help="of the generator (64; quick 16)")
    parser.add_argument("--channel-base", type=int, help="of the generator (16384; quick 1024)")
    parser.add_argument("--backbones", default=",".join(PACKAGED), help="names, comma-separated")
    args = parser.parse_args()
    args.images = args.images or (16 if args.quick else 512)
    args.resolution = args.resolution or (16 if args.quick else 64)
    args.channel_base = args.channel_base or (1024 if args.quick else 16384)
    report(args, *measure(args)).finish(args.out, quick=args.quick)


if __name__ == "__main__":
    main()
