"""How the start of a training grows with the number of images, and how decoding does with threads.

    python benchmarks/scale.py [--quick] [--images 10000,100000,1000000] [--out FILE.json]

Start: zips of small 256 px JPEGs are made on the spot. `probe.train` runs in a process of its own
until its first step is done, with networks so small that the step takes no time; measured are the
seconds since the process began, how many of them belong to opening the zip, and the largest
resident set. Decoding: images per second of 256 px files from a folder, by one thread and by one
per core, in turn.
"""

import argparse
import io
import json
import os
import sys
import time
import zipfile
from pathlib import Path
from statistics import median

import numpy as np
import psutil
from common import Record, arguments, integers, interleave, run_python, scratch, speedup
from growth import fit_line
from inputs import write_noise
from PIL import Image

SIDE = 256
CONTENTS = 64  # pictures; every file differs from all others in its last bytes
MOST_SECONDS = 20.0  # until the first step, at a million images
MOST_GIB = 3.0
SPEEDUP = 1.8  # of decoding by two threads
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


def write_zip(path: Path, count: int) -> None:
    """Write a zip of JPEGs of about 2 kB."""
    rng, pictures = np.random.default_rng(0), []
    for _ in range(CONTENTS):
        small = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        buffer = io.BytesIO()
        small.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=75)
        pictures.append(buffer.getvalue())
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(count):
            data = pictures[i % CONTENTS] + i.to_bytes(4, "big")
            archive.writestr(f"{i // 1000:05}/img{i:08}.jpg", data)


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

    def open_timed(place: Path):
        started = time.perf_counter()
        found = probe.open_images(place)
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


def measure(args: argparse.Namespace, record: Record) -> None:
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
    record.table(
        "The line through the seconds",
        ["s at no images", "s per million images", "largest residual, %"],
        [[line["start"], 1e6 * line["slope"], max(map(abs, line["residuals"]))]],
    )
    count, seconds, _, gib = rows[-1]
    record.check(f"first step at {count:,} images", seconds, at_most=MOST_SECONDS, unit=" s")
    record.check(f"memory at {count:,} images", gib, at_most=MOST_GIB, unit=" GiB")


def measure_decoding(args: argparse.Namespace, record: Record) -> None:
    """Time decoding by one thread and by several, and add the table."""
    from unittest.mock import patch

    import probe

    count, rounds = (32, 1) if args.quick else (512, 7)
    cores, rows = os.cpu_count() or 1, []
    many = min(16, cores)
    with scratch() as folder:
        for suffix in (".jpg", ".png"):
            place = folder / suffix[1:]
            write_noise(place, count, SIDE, suffix=suffix, seed=0)
            source = probe.open_images(place)

            def decode(threads: int, source=source) -> None:
                with patch("probe.images.limits.THREADS", threads):
                    source.load(range(count), SIDE)

            times = interleave(
                {"one": lambda: decode(1), "many": lambda: decode(many)}, rounds
            )  # fmt: skip
            ratio = speedup(times["one"], times["many"])
            rows.append([suffix[1:], *(count / median(t) for t in times.values()), str(ratio)])
            if many == 2:
                what = f"decoding {suffix[1:].upper()} by two threads, times one"
                record.check(what, ratio.value, at_least=SPEEDUP)
    title = f"Images of {SIDE} px decoded per second, by one thread and by {many}"
    record.table(title, ["format", "one", f"{many}", "times faster"], rows)


def main() -> None:
    args = parse()
    if args.until_first_step is not None:
        run_until_first_step(args.until_first_step)
        return
    record = Record("scale", "Training on many images: its start, and decoding")
    record.settings = {"images": args.images, "side": SIDE, "options": OPTIONS}
    measure_decoding(args, record)
    measure(args, record)
    record.finish(args.out, quick=args.quick)


if __name__ == "__main__":
    sys.exit(main())
