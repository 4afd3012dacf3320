"""What the benchmarks share: the machine, fair timing, running the command line, the record.

A benchmark fills one `Record` and calls `finish`: tables and checks are printed and written as
JSON, from which `summary.py` renders the figures of README.md.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

import torch

import probe

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).resolve().parent / "results"
PACKAGED = ("efficientnet-lite0", "efficientnet-lite1", "mobilenetv2")  # real weights, no hub
LIBRARIES = ("torch", "torchvision", "timm", "scikit-learn", "numpy", "scipy", "pillow")
FLAGS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY", "KMP_BLOCKTIME")
DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}

Row = Sequence[Any]


def arguments(description: str, name: str) -> argparse.ArgumentParser:
    """Return a parser with the flags that every benchmark has: `--quick` and `--out`."""
    parser = argparse.ArgumentParser(description=description.strip().splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny counts: does it run at all")
    parser.add_argument("--out", type=Path, default=RESULTS / f"{name}.json", help="the record")
    return parser


def integers(text: str) -> list[int]:
    """Return the numbers of a comma-separated flag."""
    return [int(part) for part in text.split(",")]


# ---------------------------------------------------------------------------------------------
# The machine
# ---------------------------------------------------------------------------------------------


def _cpu_facts() -> dict[str, str]:
    """Return the first processor's entry of /proc/cpuinfo; empty elsewhere than on Linux."""
    try:
        first = Path("/proc/cpuinfo").read_text("utf-8").split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def _memory_gib() -> float | None:
    try:
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None
    return round(pages / 2**30, 1)


def machine() -> dict[str, Any]:
    """Describe the machine: processor, cores, threads, the instruction sets that matter, GPU."""
    facts = _cpu_facts()
    present = facts.get("flags", "").split()
    able = hasattr(os, "sched_getaffinity")
    return {
        "cpu": facts.get("model name") or platform.processor() or platform.machine(),
        "family": " ".join(facts[k] for k in ("cpu family", "model") if k in facts),
        "cores": len(os.sched_getaffinity(0)) if able else os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "flags": [flag for flag in FLAGS if flag in present],
        "memory_gib": _memory_gib(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": f"{platform.system()} {platform.machine()}",
        "environment": {k: os.environ[k] for k in THREAD_VARIABLES if k in os.environ},
        "load": [round(x, 2) for x in os.getloadavg()] if hasattr(os, "getloadavg") else None,
    }


def versions() -> dict[str, str]:
    """Return the versions of Python, probe, its commit where it is known, and the libraries."""
    return {
        "python": platform.python_version(),
        "probe": probe.__version__,
        "commit": _commit(),
        **{name: metadata.version(name) for name in LIBRARIES},
    }


def _commit() -> str:
    """Return the checkout's commit, with a + where the package was changed since."""
    try:
        commit = _git("rev-parse", "--short", "HEAD")
        changed = _git("status", "--porcelain", "--", "probe", "modelbank.yaml")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + ("+" if changed else "")


def _git(*command: str) -> str:
    done = subprocess.run(
        ["git", "--no-optional-locks", *command],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    return done.stdout.strip()


# ---------------------------------------------------------------------------------------------
# Timing
# ---------------------------------------------------------------------------------------------


def stopwatch(work: Callable[[], Any]) -> float:
    """Return the seconds that one call takes; work on a GPU is waited for."""
    wait_for_gpu()
    started = time.perf_counter()
    work()
    wait_for_gpu()
    return time.perf_counter() - started


def wait_for_gpu() -> None:
    """Wait until a GPU, where there is one, has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def interleave(
    sides: Mapping[str, Callable[[], Any]], rounds: int, *, warmups: int = 1
) -> dict[str, list[float]]:
    """Time several sides in turn: A, B, A, B, … so that what else the machine does hits all.

    Args:
        sides: name → what to time.
        rounds: timed calls of each side.
        warmups: untimed calls of each side before.

    Returns:
        name → seconds of every round.
    """
    for _ in range(warmups):
        for work in sides.values():
            work()
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, work in sides.items():
            times[name].append(stopwatch(work))
    return times


@dataclass(frozen=True)
class Ratio:
    """How many times faster one side is than another.

    Attributes:
        value: ratio of the medians.
        low: least ratio of any round.
        high: largest ratio of any round.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """Return "3.1 (2.9 to 3.4)"."""
        return f"{self.value:.3g} ({self.low:.3g} to {self.high:.3g})"


def speedup(slow: Sequence[float], fast: Sequence[float]) -> Ratio:
    """Return by how much `fast` is faster than `slow`; round i of one belongs to i of the other.

    Where the sides have different numbers of rounds, the spread is that of the extremes.
    """
    if len(slow) == len(fast):
        each = [s / f for s, f in zip(slow, fast, strict=True)]
    else:
        each = [min(slow) / max(fast), max(slow) / min(fast)]
    return Ratio(median(slow) / median(fast), min(each), max(each))


def matmul_peak(precision: str, *, seconds: float = 2.0):
    """Return the best GFLOP/s of square matrix products in a precision, on all torch threads.

    Args:
        precision: "fp32", "tf32" (on a GPU) or "bf16".
        seconds: to spend on each size.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    sizes = (4096, 8192) if device == "cuda" else (1024, 2048)
    best = 0.0
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    for n in sizes:
        a, b = (torch.randn(n, n, device=device).to(DTYPES[precision]) for _ in range(2))
        torch.mm(a, b)
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            best = max(best, 2e-9 * n**3 / stopwatch(lambda a=a, b=b: torch.mm(a, b)))
    torch.backends.cuda.matmul.allow_tf32 = False
    return best


def copy_peak(*, seconds: float = 2.0) -> float:
    """Return the best GB/s, reads and writes together, of copying a large tensor."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    source = torch.empty(2**30 if device == "cuda" else 2**26, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    best = 0.0
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        best = max(best, 2e-9 * len(source) / stopwatch(lambda: target.copy_(source)))
    return best


# ---------------------------------------------------------------------------------------------
# The command line, from outside
# ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Finished:
    """A command that ended.

    Attributes:
        seconds: from before the process started until it was gone.
        peak_bytes: its largest resident set (0 where the system does not say).
        stdout: what it printed.
    """

    seconds: float
    peak_bytes: int
    stdout: str


def run_python(command: Sequence[str | Path], *, cache: Path | None = None) -> Finished:
    """Run this interpreter with `command` in the checkout; stderr passes through only on failure.

    Args:
        command: what follows "python".
        cache: the feature cache; the user's own unless given.

    Raises:
        RuntimeError: it failed. Code 3, rows missing, is a failure here.
    """
    environment = dict(os.environ)
    if cache is not None:
        environment["PROBE_CACHE_DIR"] = str(cache)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *map(str, command)], cwd=ROOT, env=environment, stdout=out, stderr=err
        )
        peak = 0
        if hasattr(os, "wait4"):
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        code = process.wait()
        seconds = time.perf_counter() - started
        out.seek(0)
        err.seek(0)
        if code:
            raise RuntimeError(f"exit code {code}: {err.read().decode()[-2000:]}")
        return Finished(seconds, peak, out.read().decode())


def run_probe(*command: str | Path, cache: Path | None = None) -> Finished:
    """Run the `probe` command of this checkout in a process of its own; see `run_python`."""
    return run_python(["-m", "probe", *command], cache=cache)


@contextmanager
def scratch() -> Iterator[Path]:
    """Yield a temporary folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="probe-benchmark-") as folder:
        yield Path(folder)


# ---------------------------------------------------------------------------------------------
# The record
# ---------------------------------------------------------------------------------------------


@dataclass
class Record:
    """What a benchmark found.

    Attributes:
        name: of the script.
        title: one line for the README.
        settings: the flags and sizes that decided it; plain values, no paths.
        tables: title, columns and rows of each table.
        checks: what was promised, what was found, and whether it holds.
        values: raw numbers, for whoever wants to look closer.
    """

    name: str
    title: str
    settings: dict[str, Any] = field(default_factory=dict)
    tables: list[dict[str, Any]] = field(default_factory=list)
    checks: list[dict[str, Any]] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        """Add a table; numbers are shown with three significant digits."""
        self.tables.append(
            {"title": title, "columns": list(columns), "rows": [list(row) for row in rows]}
        )

    def check(
        self,
        what: str,
        value: float | bool,
        *,
        at_least: float | None = None,
        at_most: float | None = None,
        unit: str = "",
    ) -> None:
        """Add a promise: a number with its bound, or something that must be true."""
        if at_least is not None:
            met, target = value >= at_least, f"≥ {show(at_least)}{unit}"
        elif at_most is not None:
            met, target = value <= at_most, f"≤ {show(at_most)}{unit}"
        else:
            met, target = bool(value), "yes"
        self.checks.append(
            {"what": what, "value": value, "unit": unit, "target": target, "met": bool(met)}
        )

    def write(self, out: Path, *, quick: bool = False) -> dict[str, Any]:
        """Write everything so far as JSON and return it.

        Args:
            out: the file.
            quick: whether these are tiny counts, whose figures mean nothing.
        """
        body = {
            "name": self.name,
            "title": self.title,
            "quick": quick,
            "date": datetime.now(UTC).date().isoformat(),
            "machine": machine(),
            "versions": versions(),
            "settings": self.settings,
            "tables": self.tables,
            "checks": self.checks,
            "values": self.values,
        }
        write_record(out, body)
        return body

    def finish(self, out: Path, *, quick: bool = False) -> None:
        """Print everything and write it as JSON; see `write`."""
        print("\n".join(self._lines(self.write(out, quick=quick))))

    def _lines(self, body: dict[str, Any]) -> Iterator[str]:
        yield f"\n{self.title}" + (" (quick: figures mean nothing)" if body["quick"] else "")
        for table in self.tables:
            yield f"\n{table['title']}"
            yield from text_table(table["columns"], table["rows"])
        for check in self.checks:
            word = "met" if check["met"] else "MISSED"
            found = f"{show(check['value'])}{check['unit']}"
            yield f"\n{check['what']}: {found} (target {check['target']}: {word})"
        yield f"\n{describe(body)}"


def write_record(path: Path, body: dict[str, Any]) -> None:
    """Write a plain value as indented JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(body, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def describe(body: Mapping[str, Any]) -> str:
    """Return the machine and the versions of a record as one paragraph."""
    place, libraries = body["machine"], body["versions"]
    family = f" (family {place['family']})" if place["family"] else ""
    parts = [
        f"{place['cpu']}{family}, {place['cores']} cores, {place['torch_threads']} threads",
        " ".join(place["flags"]),
        place["gpu"] or "",
        ", ".join(f"{k} {v}" for k, v in libraries.items()),
        ", ".join(f"{k}={v}" for k, v in place["environment"].items()),
        body["date"],
    ]
    return "; ".join(part for part in parts if part)


def show(value: Any) -> str:
    """Return a value for a table: three significant digits, yes or no, a dash for None."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    if isinstance(value, int):
        return f"{value:,}"
    return str(value)


def text_table(columns: Sequence[str], rows: Sequence[Row]) -> Iterator[str]:
    """Yield the lines of a plain table; all but the first column to the right."""
    cells = [list(columns), *[[show(value) for value in row] for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    for row in cells:
        first, *others = (
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join([first, *others]).rstrip()
