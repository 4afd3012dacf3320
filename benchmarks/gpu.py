"""Drawing, training, ranking, extraction and feeding on a GPU, each against a plain PyTorch loop.

    python benchmarks/gpu.py [--quick] [--only draw,train] [--minutes 5] [--out FILE.json]

Each part is a process of its own with a limit of time. The record is written after every row, so
what is finished is kept if the machine is taken away; a part that fails or runs out of time leaves
a row that says so. Parts, in this order:

  card      matrix products and copies: the card's ceilings
  draw      images per second of a StyleGAN2 of 256 px
  train     seconds per thousand images, peak memory, and the cost of regularised steps
  rank      a cold and a warm `probe rank` of nine backbones, by phase
  extract   features per second of four architectures
  feed      decoded images per second that reach the GPU
  compiled  drawing, extraction and training under torch.compile, with the time that is left
"""

import argparse
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import gpu_parts
from common import Record, arguments, scratch
from gpu_parts import PARTS, TABLES, Check, Found, Setting

CONTEXT = get_context("forkserver")
TITLE = "On a GPU: drawing, training, ranking, extraction, feeding"


def in_process(name: str, setting: Setting, seconds: float) -> Iterator[Found | Check | str]:
    """Run one part in a process of its own and yield what it finds.

    Args:
        name: a key of `PARTS`.
        setting: what is measured.
        seconds: after which the process is ended.

    Yields:
        Rows and checks, and last a string if the part did not finish: the reason.
    """
    receiver, sender = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=_child, args=(name, setting, sender))
    process.start()
    sender.close()
    until = time.monotonic() + seconds
    try:
        while receiver.poll(max(0.0, until - time.monotonic())):
            try:
                found = receiver.recv()
            except EOFError:
                process.join()
                if process.exitcode:
                    yield f"its process ended with code {process.exitcode}"
                return
            yield found
        yield f"not finished in {seconds:.0f} s"
    finally:
        if process.is_alive():
            with suppress(ProcessLookupError):
                os.killpg(process.pid or 0, signal.SIGKILL)
            process.kill()
        process.join()


def _child(name: str, setting: Setting, sender: Connection) -> None:
    os.setsid()  # so that its own processes end with it
    try:
        for found in PARTS[name].work(setting):
            sender.send(found)
    except Exception as error:
        traceback.print_exc()
        sender.send(gpu_parts.reason(error))


def measure(args: argparse.Namespace, record: Record, setting: Setting) -> None:
    """Run the chosen parts and write the record whenever it grows."""
    rows: dict[str, list[list[Any]]] = {}
    until = time.monotonic() + 60 * args.minutes
    for name in args.only:
        started, left = time.monotonic(), until - time.monotonic()
        limit = min(left, PARTS[name].share * 60 * args.minutes)
        messages = in_process(name, setting, limit) if limit > 0 else iter(["no time was left"])
        for found in messages:
            if isinstance(found, Check):
                record.check(found.what, found.value, **found.bounds)
            elif isinstance(found, Found):
                rows.setdefault(found.table, []).append(found.row)
            else:
                table = PARTS[name].table
                empty = [None] * (len(TABLES[table].columns) - 2)
                rows.setdefault(table, []).append([name, found, *empty])
            record.tables = []
            for key, table in TABLES.items():
                if key in rows:
                    record.table(table.title(setting), table.columns, rows[key])
            record.write(args.out, quick=args.quick)
        record.values[f"{name}, seconds"] = time.monotonic() - started
        print(f"{name}: {record.values[f'{name}, seconds']:.0f} s", file=sys.stderr, flush=True)


def parts(text: str) -> list[str]:
    """Return the names of a comma-separated flag, in the order in which they run."""
    chosen = text.split(",")
    unknown = sorted(set(chosen) - set(PARTS))
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; of {', '.join(PARTS)}")
    return [name for name in PARTS if name in chosen]


def main() -> None:
    parser = arguments(__doc__, "gpu")
    parser.add_argument("--only", type=parts, default=list(PARTS), help=", ".join(PARTS))
    parser.add_argument("--minutes", type=float, default=5.0, help="after which it ends (5)")
    args = parser.parse_args()
    CONTEXT.set_forkserver_preload(["gpu_parts"])  # libraries are loaded once
    record = Record("gpu", TITLE)
    with scratch() as folder:
        setting = Setting(folder, args.quick)
        record.settings = {"only": args.only, "minutes": args.minutes, **setting.sizes()}
        measure(args, record, setting)
    record.finish(args.out, quick=args.quick)


if __name__ == "__main__":
    main()
