"""How ranking and the start of a training grow with the images, and how decoding with threads.

    python benchmarks/scale.py [--quick] [--images 10000,100000,1000000] [--out FILE.json]

Start: zips of small 256 px JPEGs are made on the spot. `probe.train` runs in a process of its own
until its first step is done, with networks so small that the step takes no time; measured are the
seconds since the process began, how many of them belong to opening the zip, and the largest
resident set. Ranking: the same images in tars of 10,000; `probe rank` draws 1,000 of them against
1,000 others with a small random network, once with an empty cache and once more with another seed,
when the tars' index is known. Decoding: images per second to 256 px from a folder, by one thread
and by one per core, in turn; PNGs and JPEGs of that size, and JPEGs of 512 px.
"""

import argparse
import io
import json
import os
import shutil
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
from common import (
    Record,
    arguments,
    integers,
    interleave,
    run_probe,
    run_python,
    scratch,
    speedup,
)  # fmt: skip
from growth import fit_line
from inputs import write_noise
from PIL import Image

SIDE = 256
CONTENTS = 64  # pictures; every file differs from all others in its last bytes
MOST_SECONDS = 20.0  # until the first step, at a million images
MOST_GIB = 3.0
SPEEDUP = 1.8  # of decoding by two threads
BANK = Path(__file__).resolve().parent / "bank.yaml"
SHARD, DRAWN = 10_000, 1000  # images in a tar, and in a ranking
OPTIONS = {
    "batch": 4, "channel_base": 1024, "channel_max": 8, "z_dim": 8, "w_dim": 8, "map_layers": 2,
    "kimg": 1.0, "eval_num": 0, "pl_weight": 0.0,
}  # fmt: skip


def parse() -> argparse.Namespace:
    parser = arguments(__doc__, "scale")
    parser.add_argument("--images", type=integers, help="how many (10000,100000,1000000)")
    parser.add_argument("--until-first-step", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.images is None:
        args.images = [6000, 8000] if args.quick else [10_000, 100_000, 1_000_000]
    return args


def files(count: int) -> Iterator[tuple[str, bytes]]:
    """Yield names and contents of JPEGs of about 2 kB."""
    rng, pictures = np.random.default_rng(0), []
    for _ in range(CONTENTS):
        small = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        buffer = io.BytesIO()
        small.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=75)
        pictures.append(buffer.getvalue())
    for i in range(count):
        yield f"{i // 1000:05}/img{i:08}.jpg", pictures[i % CONTENTS] + i.to_bytes(4, "big")


def write_zip(path: Path, count: int) -> None:
    """Write a zip of `files`."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files(count):
            archive.writestr(name, data)


def write_tars(folder: Path, count: int) -> str:
    """Write `files` as tars of 10,000 each, and return what names them all."""
    folder.mkdir()
    every = files(count)
    shards = -(-count // SHARD)
    for shard in range(shards):
        with tarfile.open(folder / f"{shard:05}.tar", "w") as archive:
            for name, data in islice(every, SHARD):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return str(folder / f"{{00000..{shards - 1:05}}}.tar")


def run_until_first_step(path: Path) -> None:
    """Train until the first step is done, print what it took, and end."""
    from contextlib import ExitStack
    from unittest.mock import patch

    import torch

    import probe
    import probe.api.inputs as inputs
    from probe.devices import peak_gib
    from probe.events import Event, StepDone

    born = psutil.Process().create_time()
    opening: list[float] = []

    def open_timed(place: Path, **options):
        started = time.perf_counter()
        found = probe.open_images(place, **options)
        opening.append(time.perf_counter() - started)
        return found

    def note(event: Event) -> None:
        if isinstance(event, StepDone):
            found = {
                "seconds": time.time() - born,
                "opening": opening[0],
                "gib": peak_gib(torch.device("cpu")),
            }
            print(json.dumps(found), flush=True)
            os._exit(0)

    with scratch() as out, ExitStack() as stack:
        stack.enter_context(patch.object(inputs, "open_images", open_timed))
        config = probe.TrainConfig(**OPTIONS)
        probe.train(path, outdir=out, config=config, precision="fp32", device="cpu", on_event=note)


def measure_start(args: argparse.Namespace, record: Record) -> None:
    """Measure every size, and add the table with the straight line through it."""
    rows = []
    with scratch() as folder:
        for count in args.images:
            path = folder / f"{count}.zip"
            write_zip(path, count)
            done = run_python([Path(__file__), "--until-first-step", path])
            found = json.loads(done.stdout)
            rows.append([count, found["seconds"], found["opening"], found["gib"]])
            path.unlink()
    record.table(
        f"Start of training on {SIDE} px JPEGs in a zip",
        ["images", "s until the first step", "of them to open the zip", "GiB at most"],
        rows,
    )
    line = fit_line([row[0] for row in rows], [row[1] for row in rows])
    record.values["line"] = line
    add_line(record, line)
    count, seconds, _, gib = rows[-1]
    record.check(f"first step at {count:,} images", seconds, at_most=MOST_SECONDS, unit=" s")
    record.check(f"memory at {count:,} images", gib, at_most=MOST_GIB, unit=" GiB")


def measure_ranking(args: argparse.Namespace, record: Record) -> None:
    """Rank a sample of every size, first and again, and add the table with the line through it."""
    rows = []
    drawn = min(DRAWN, *args.images)
    with scratch() as folder:
        write_noise(folder / "fakes", drawn, SIDE, suffix=".jpg", seed=1)
        for count in args.images:
            real = write_tars(folder / str(count), count)
            command = (
                *("rank", "--real", real, "--gen", folder / "fakes", "--num", str(drawn)),
                *("--bank", BANK, "--backbones", "toy-0", "--offline", "--device", "cpu"),
            )
            with scratch() as cache:
                first = run_probe(*command, cache=cache)
                again = run_probe(*command, "--seed", "1", cache=cache)
            rows.append([count, first.seconds, again.seconds, first.peak_bytes / 2**30])
            shutil.rmtree(folder / str(count))
    record.table(
        f"Ranking of {drawn:,} images drawn from JPEGs in tars",
        ["images", "s the first time", "s with another seed", "GiB at most"],
        rows,
    )
    record.values["ranking"] = fit_line([row[0] for row in rows], [row[1] for row in rows])
    add_line(record, record.values["ranking"])


def add_line(record: Record, line: dict[str, Any]) -> None:
    """Add the table of a line through seconds."""
    record.table(
        "The line through the seconds",
        ["s at no images", "s per million images", "largest residual, %"],
        [[line["start"], 1e6 * line["slope"], max(map(abs, line["residuals"]))]],
    )


def measure_decoding(args: argparse.Namespace, record: Record) -> None:
    """Time decoding by one thread and by several, and add the table."""
    from unittest.mock import patch

    import probe

    count, rounds = (32, 1) if args.quick else (512, 7)
    cores, rows = os.cpu_count() or 1, []
    many = min(16, cores)
    with scratch() as folder:
        for kind, side in (("JPEG", SIDE), ("JPEG", 2 * SIDE), ("PNG", SIDE)):
            place = folder / f"{kind}{side}"
            write_noise(place, count, side, suffix=".jpg" if kind == "JPEG" else ".png", seed=0)
            source = probe.open_images(place)

            def decode(threads: int, source=source) -> None:
                with patch("probe.images.limits.THREADS", threads):
                    source.load(range(count), SIDE)

            times = interleave(
                {"one": lambda: decode(1), "many": lambda: decode(many)}, rounds
            )  # fmt: skip
            ratio = speedup(times["one"], times["many"])
            rows.append(
                [f"{kind} of {side} px", *(count / median(t) for t in times.values()), str(ratio)]
            )
            if many == 2:
                what = f"decoding {kind} of {side} px by two threads, times one"
                record.check(what, ratio.value, at_least=SPEEDUP)
    title = f"Images decoded to {SIDE} px per second, by one thread and by {many}"
    record.table(title, ["files", "one", f"{many}", "times faster"], rows)


def main() -> None:
    args = parse()
    if args.until_first_step is not None:
        run_until_first_step(args.until_first_step)
        return
    record = Record("scale", "Many images: ranking, the start of a training, and decoding")
    record.settings = {"images": args.images, "side": SIDE, "options": OPTIONS}
    measure_decoding(args, record)
    measure_ranking(args, record)
    measure_start(args, record)
    record.finish(args.out, quick=args.quick)


if __name__ == "__main__":
    sys.exit(main())
